"""scikit-learn's handwritten digits (Alpaydin and Kaynak, 1998) as a folder of image files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

TRAIN_SHARE = 0.8
"""Of the normal images; the others and every abnormal one are the test."""


def write_digits(folder: Path, seed: int = 0, abnormal_digit: int = 0, typed: bool = False) -> None:
    """Write the digits as grey PNG files in the MVTec layout.

    train/good/3_0012.png and test/good/7_0150.png are normal, test/digit_0/0_0000.png is not (if 0
    is the abnormal digit); the number counts scikit-learn's order. typed: types/digit_3/… in place
    of train/good/…, so that labels tell the types of the normal images. The same files at every
    call.
    """
    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)  # 0..16 -> 0..255
    normal = np.flatnonzero(digits.target != abnormal_digit)
    order = np.random.default_rng(seed).permutation(normal)
    train = set(order[: int(TRAIN_SHARE * len(order))].tolist())
    for number, (image, digit) in enumerate(zip(pixels, digits.target.tolist(), strict=True)):
        if digit == abnormal_digit:
            place = folder / "test" / f"digit_{digit}"
        else:
            trained = Path("types", f"digit_{digit}") if typed else Path("train", "good")
            place = folder / (trained if number in train else Path("test", "good"))
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{digit}_{number:04d}.png")
