"""Derives label, split and mask of an image from the folders of its archive.

Two layouts are supported. In MVTec's, `train/good/x.png`, `test/<defect>/x.png` and the masks in
`ground_truth/<defect>` may be anywhere in a path, also above the source folder. In the other, each
class has a folder: the label is the first folder below the source, or the folder below `train`,
`test` or `val`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from ganad.archive.masks import index_masks, is_image, left_over, stem
from ganad.archive.rows import label_of
from ganad.archive.walk import GROUND_TRUTH, is_hidden
from ganad.errors import ArchiveError
from ganad.storage import files as storage

NORMAL_NAMES = ("good", "normal", "ok")
"""Folders of these names, in any case, hold normal images; their siblings hold abnormal ones."""
_SPLITS = {"train": "train", "test": "test", "val": None, "validation": None}


class Facts(NamedTuple):
    """The facts that a folder gives about its images."""

    label: str | None = None
    abnormal: bool | None = None
    split: str | None = None
    masks: str | None = None
    """Folder of the masks."""
    folder: str | None = None
    """The whole folder path of tar members whose label is not decided yet."""


def is_normal(label: str) -> bool:
    """True if the name of a class means normal."""
    return label.lower() in NORMAL_NAMES


def has_normal(labels: Iterable[str]) -> bool:
    """True if the name of any class means normal."""
    return any(is_normal(label.strip()) for label in labels)


class Surroundings:
    """Cache of the folder listings that the layouts of all sources need."""

    def __init__(self) -> None:
        self.folders = lru_cache(256)(_folders)
        self.masks = lru_cache(8)(_masks)

    def is_mvtec(self, root: str) -> bool:
        """True if train/ and test/ in this folder follow MVTec, not two splits of many classes."""
        return (
            has_normal(self.folders(storage.join(root, "train")))
            or has_normal(self.folders(storage.join(root, "test")))
            or GROUND_TRUTH in self.folders(root)
        )


def _folders(folder: str) -> Sequence[str]:
    try:
        return storage.list_folders(folder)
    except ArchiveError:
        return ()  # above the source, where listing may not be allowed


def _masks(folder: str) -> Mapping[str, str]:
    try:
        return index_masks(storage.list_entries(folder))
    except ArchiveError:
        return {}


class Layout:
    """The layout below one source folder."""

    def __init__(self, root: str, surroundings: Surroundings) -> None:
        self.root = root
        self._surroundings = surroundings
        self._facts = lru_cache(1024)(self._facts_of)
        self._masked: dict[str, str] = {}
        """Folder of masks -> folder of their images, for the images described so far."""

    def describe(self, path: str) -> tuple[Facts, str | None]:
        """The facts about the image at this path below the root, and the URI of its mask."""
        folder, _, name = path.rpartition("/")
        facts = self._facts(folder)
        mask = None
        if facts.masks is not None:
            mask = self._surroundings.masks(facts.masks).get(stem(name))
            self._masked[facts.masks] = storage.join(self.root, *filter(None, [folder]))
        return facts, mask and storage.join(facts.masks or "", mask)

    def _facts_of(self, folder: str) -> Facts:
        below = folder.split("/") if folder else []
        whole = storage.join(self.root, *below)
        parent, _, label = whole.rpartition("/")
        tree, _, split = parent.rpartition("/")
        if split in _SPLITS and self._surroundings.is_mvtec(tree):
            masks = storage.join(tree, GROUND_TRUTH, label) if split == "test" else None
            return Facts(*_judged(label), _SPLITS[split], masks)
        if len(below) >= 2 and below[-2] in _SPLITS:
            return Facts(label_of(below[-1]), None, _SPLITS[below[-2]])
        if not below:
            return Facts()
        classes = self._surroundings.folders(self.root)
        first, abnormal = _judged(below[0])
        return Facts(first, abnormal if has_normal(classes) else None)

    def left_over(self) -> tuple[list[str], list[str]]:
        """(masks without an image, abnormal images without a mask) in trees with a folder
        ground_truth. Call it after all images have been described."""
        stray: list[str] = []
        bare: list[str] = []
        for masks, images in self._pairs():
            entries = [entry for entry in storage.list_entries(masks) if not is_hidden(entry[0])]
            image_names = [name for name in storage.list_names(images) if is_image(name)]
            lost, without = left_over(index_masks(entries), entries, image_names)
            stray += (storage.join(masks, name) for name in lost)
            if _judged(masks.rpartition("/")[2])[1]:
                bare += (storage.join(images, name) for name in without)
        return stray, bare

    def _pairs(self) -> Iterator[tuple[str, str]]:
        """Yield each folder of masks with the folder of its images."""
        trees = set()
        for masks, images in self._masked.items():
            truth = masks.rpartition("/")[0]
            if GROUND_TRUTH in _folders(truth.rpartition("/")[0]):
                trees.add(truth)
                yield masks, images
        for truth in sorted(trees):
            tree = truth.rpartition("/")[0]
            if not f"{tree}/".startswith(f"{self.root.rstrip('/')}/"):
                continue  # the source is a part of the tree
            for label in _folders(truth):
                masks = storage.join(truth, label)
                if masks not in self._masked:
                    yield masks, storage.join(tree, "test", label)


def _judged(folder: str) -> tuple[str | None, bool | None]:
    """(label, True if abnormal) of a folder with normal siblings."""
    label = label_of(storage.printable(folder))
    return label, None if label is None else not is_normal(label)


def describe_member(names: Sequence[str]) -> Facts:
    """The facts that the names in its path give about a tar member. The folder that is the label,
    and the labels that are abnormal, are known only after the whole source has been listed."""
    folders = names[:-1]
    if len(folders) >= 2 and folders[-2] in _SPLITS:
        return Facts(label_of(folders[-1]), None, _SPLITS[folders[-2]])
    return Facts(folder="/".join(folders))


def labels_of_folders(folders: Collection[str]) -> dict[str, str | None]:
    """Folder of tar members -> label: the first folder below the one that all members share, or
    the name of that one if all members are directly in it. '' is the root."""
    split = {folder: [name for name in folder.split("/") if name] for folder in folders}
    shared = 0
    while len({tuple(names[: shared + 1]) for names in split.values()}) == 1:
        if any(len(names) <= shared for names in split.values()):
            break
        shared += 1
    if len(split) == 1:
        shared -= 1
    return {
        folder: label_of(names[shared]) if 0 <= shared < len(names) else None
        for folder, names in split.items()
    }
