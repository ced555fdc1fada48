"""Whatever a person has at hand (a folder, paths, PIL images, arrays) as decoded images."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ganad.archive.listing import list_images
from ganad.errors import ConfigError
from ganad.images.decode import Decoded, Preprocessing, decode, failed
from ganad.images.load import load_images

PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I;16B")
BATCH = 256
"""Images decoded at a time, so that a folder of any length fits into memory."""


class Batch(NamedTuple):
    """Images that belong together: decoded, their ids, which seed noise, and names for people."""

    images: list[Decoded]
    ids: list[str]
    names: list[str]
    """The path of an image (s3://bucket/key, archive.tar#member), or its number."""


def decoded_batches(images: Any, preprocessing: Preprocessing) -> Iterator[Batch]:
    """Decode images in batches; raises ConfigError for other kinds of input."""
    if isinstance(images, str | os.PathLike):
        yield from _from_paths([os.fspath(images)], preprocessing)
    elif isinstance(images, np.ndarray):
        yield from _from_array(images, preprocessing)
    elif _is_tensor(images):
        yield from _from_array(images.detach().cpu().numpy(), preprocessing)
    elif isinstance(images, Image.Image):
        yield Batch([_from_pil(images, preprocessing)], ["0"], ["0"])
    elif isinstance(images, Sequence) and all(isinstance(i, str | os.PathLike) for i in images):
        yield from _from_paths([os.fspath(one) for one in images], preprocessing)
    elif isinstance(images, Sequence) and all(isinstance(i, Image.Image) for i in images):
        for start in range(0, len(images), BATCH):
            some = images[start : start + BATCH]
            ids = [str(start + i) for i in range(len(some))]
            yield Batch([_from_pil(one, preprocessing) for one in some], ids, ids)
    else:
        raise ConfigError(
            f"{type(images).__name__} is no kind of images: give a path, a folder, a list of paths "
            f"or PIL images, an array or a tensor"
        )


def from_rows(
    rows: Iterable[Mapping[str, Any]], preprocessing: Preprocessing
) -> Iterator[tuple[list[Decoded], list[str]]]:
    """Yield (decoded images, their ids) for rows of a manifest."""
    rest = iter(rows)
    while some := list(islice(rest, BATCH)):
        loaded = load_images(some, [preprocessing])
        yield [one[0] for one in loaded], [row["image_id"] for row in some]


def _from_paths(paths: list[str], preprocessing: Preprocessing) -> Iterator[Batch]:
    rows = list_images(paths)
    while some := list(islice(rows, BATCH)):
        ((decoded, ids),) = from_rows(some, preprocessing)
        yield Batch(decoded, ids, [_place(row) for row in some])


def _place(row: Mapping[str, Any]) -> str:
    return row["uri"] if row["member"] is None else f"{row['uri']}#{row['member']}"


def _from_pil(image: Image.Image, preprocessing: Preprocessing) -> Decoded:
    # As a lossless file, so that the policy for files holds for every image. PNG cannot hold all
    # modes, and of 32-bit integers it would silently keep 16 bits.
    buffer = io.BytesIO()
    try:
        image.save(buffer, "PNG" if image.mode in PNG_MODES else "TIFF")
    except (OSError, ValueError):
        return failed(f"PIL images of mode {image.mode} are not read; convert it to RGB")
    return decode(buffer.getvalue(), preprocessing)


def _is_tensor(images: Any) -> bool:
    # Whoever has a tensor has imported torch; commands that have none need not wait for it.
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(images, torch.Tensor)


def _from_array(array: np.ndarray, preprocessing: Preprocessing) -> Iterator[Batch]:
    if array.ndim == 3:
        array = array[None]
    if array.ndim != 4 or array.shape[1] not in (1, 3):
        raise ConfigError(
            f"{tuple(array.shape)} is no shape of images: give (n, c, h, w) with c = 1 or 3"
        )
    if np.issubdtype(array.dtype, np.floating):
        if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise ConfigError(
                "float images outside 0..1 cannot be told apart from normalised ones: "
                "scale them to 0..1, or give uint8 in 0..255"
            )
        array = np.rint(array * 255).astype(np.uint8)
    if array.dtype != np.uint8:
        raise ConfigError(f"{array.dtype} images are ambiguous: give uint8 in 0..255 or float 0..1")
    for start in range(0, len(array), BATCH):
        decoded = []
        for one in array[start : start + BATCH]:
            pixels = one[0] if one.shape[0] == 1 else one.transpose(1, 2, 0)
            decoded.append(_from_pil(Image.fromarray(pixels), preprocessing))
        ids = [str(start + i) for i in range(len(decoded))]
        yield Batch(decoded, ids, ids)
