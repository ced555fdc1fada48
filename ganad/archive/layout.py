"""What the folders of an archive say of its images: label, split, mask.

Two layouts are known. MVTec's: `train/good/x.png`, `test/<defect>/x.png` and
`ground_truth/<defect>/x_mask.png`, anywhere in a path, also above the folder that was named as the
source. And one folder per class: the first folder below the source, or the folder below a
`train`, `test` or `val`, is the label.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from ganad.archive.walk import GROUND_TRUTH
from ganad.errors import ArchiveError
from ganad.storage import files as storage

NORMAL_NAMES = ("good", "normal", "ok")
"""Folders of these names, in any case, hold normal images, and their siblings abnormal ones."""
_SPLITS = {"train": "train", "test": "test", "val": None, "validation": None}


class Facts(NamedTuple):
    """What a folder says of the images in it."""

    label: str | None = None
    abnormal: bool | None = None
    split: str | None = None
    masks: str | None = None
    """The folder of their masks."""


def is_normal(label: str) -> bool:
    """Whether a class is normal by its name."""
    return label.lower() in NORMAL_NAMES


def has_normal(labels: Iterable[str]) -> bool:
    """Whether one of the classes is normal by its name."""
    return any(is_normal(label) for label in labels)


class Surroundings:
    """Folder listings that the layout needs, each fetched once and few kept."""

    def __init__(self) -> None:
        self.folders = lru_cache(256)(_folders)
        self.masks = lru_cache(8)(_masks)

    def is_mvtec(self, root: str) -> bool:
        """Whether train/ and test/ in this folder are MVTec's, not two splits of many classes."""
        return (
            has_normal(self.folders(storage.join(root, "train")))
            or has_normal(self.folders(storage.join(root, "test")))
            or GROUND_TRUTH in self.folders(root)
        )


def _folders(folder: str) -> Sequence[str]:
    try:
        return storage.list_folders(folder)
    except ArchiveError:
        return ()  # above the source, where perhaps nothing may be listed


def _masks(folder: str) -> frozenset[str]:
    try:
        return frozenset(storage.list_names(folder))
    except ArchiveError:
        return frozenset()


class Layout:
    """The layout below one source folder."""

    def __init__(self, root: str, surroundings: Surroundings) -> None:
        self.root = root
        self._surroundings = surroundings
        self._facts = lru_cache(1024)(self._facts_of)

    def describe(self, path: str) -> tuple[Facts, str | None]:
        """The facts of the image at this path below the root, and the uri of its mask."""
        folder, _, name = path.rpartition("/")
        facts = self._facts(folder)
        mask = None
        if facts.masks is not None:
            wanted = f"{name.rpartition('.')[0]}_mask.png"
            if wanted in self._surroundings.masks(facts.masks):
                mask = storage.join(facts.masks, wanted)
        return facts, mask

    def _facts_of(self, folder: str) -> Facts:
        below = folder.split("/") if folder else []
        whole = storage.join(self.root, *below)
        parent, _, label = whole.rpartition("/")
        tree, _, split = parent.rpartition("/")
        if split in _SPLITS and self._surroundings.is_mvtec(tree):
            masks = storage.join(tree, GROUND_TRUTH, label) if split == "test" else None
            return Facts(label, not is_normal(label), _SPLITS[split], masks)
        if len(below) >= 2 and below[-2] in _SPLITS:
            return Facts(label, None, _SPLITS[below[-2]])
        if not below:
            return Facts()
        classes = self._surroundings.folders(self.root)
        return Facts(below[0], not is_normal(below[0]) if has_normal(classes) else None)


def describe_member(names: Sequence[str]) -> Facts:
    """The facts of a tar member from the names in its path. What is abnormal is not known before
    all labels of the source are."""
    folders = names[:-1]
    if len(folders) >= 2 and folders[-2] in _SPLITS:
        return Facts(folders[-1], None, _SPLITS[folders[-2]])
    return Facts(folders[0] if folders else None)
