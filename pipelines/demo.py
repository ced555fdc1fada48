"""The whole way on real images, without a network. Run: ganad demo [--out DIR]

scikit-learn brings 1,797 handwritten digits of 8×8 pixels (Alpaydin and Kaynak, 1998). The detectors
learn from digits 1 to 9; a 0 is the anomaly they have never seen.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

ABNORMAL_DIGIT = 0
TRAIN_SHARE = 0.8
"""Of the normal images; the others and every 0 are the test."""


def write_digits(folder: Path, seed: int = 0) -> None:
    """Write the digits as grey PNG files in the MVTec layout.

    train/good/3_0012.png and test/good/7_0150.png are normal, test/digit_0/0_0000.png is not; the
    number counts scikit-learn's order. The same files at every call.
    """
    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)  # 0..16 -> 0..255
    normal = np.flatnonzero(digits.target != ABNORMAL_DIGIT)
    order = np.random.default_rng(seed).permutation(normal)
    train = set(order[: int(TRAIN_SHARE * len(order))].tolist())
    for number, (image, digit) in enumerate(zip(pixels, digits.target.tolist(), strict=True)):
        if digit == ABNORMAL_DIGIT:
            place = folder / "test" / f"digit_{digit}"
        else:
            place = folder / ("train" if number in train else "test") / "good"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{digit}_{number:04d}.png")
