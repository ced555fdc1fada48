"""Matches ground-truth masks with images.

The masks of the images in `test/<defect>` are in `ground_truth/<defect>`. A mask is named after its
image: `x_mask.png` (MVTec, MPDD), `x.png` (BTAD), `x_gt.png`, `x_label.png`, or a folder `x` whose
files together are the mask (MVTec LOCO). Any image format will do, and only the image's own name is
case-sensitive.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif")
_ENDINGS = ("_mask", "", "_gt", "_label")


def is_image(name: str) -> bool:
    """True if a name has the suffix of an image, in any case."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def stem(name: str) -> str:
    """x.y.png -> x.y"""
    return name.rpartition(".")[0] or name


def index_masks(entries: Iterable[tuple[str, bool]]) -> Mapping[str, str]:
    """Stem of an image -> file or folder of its mask. entries: (name, is a folder) of everything in
    the folder of masks."""
    found: dict[str, tuple[int, str]] = {}

    def offer(key: str, rank: int, name: str) -> None:
        if key and (key not in found or (rank, name) < found[key]):
            found[key] = (rank, name)

    for name, is_folder in entries:
        if is_folder:
            offer(name, len(_ENDINGS), name)
        elif is_image(name):
            whole = stem(name)
            for rank, ending in enumerate(_ENDINGS):
                if whole.lower().endswith(ending):
                    offer(whole[: len(whole) - len(ending)], rank, name)
    return {key: name for key, (_, name) in found.items()}


def left_over(
    masks: Mapping[str, str], entries: Iterable[tuple[str, bool]], images: Iterable[str]
) -> tuple[list[str], list[str]]:
    """(entries that are not the mask of any image, images without a mask), both sorted."""
    used, bare = set(), []
    for image in images:
        mask = masks.get(stem(image))
        if mask is None:
            bare.append(image)
        else:
            used.add(mask)
    return sorted({name for name, _ in entries} - used), sorted(bare)
