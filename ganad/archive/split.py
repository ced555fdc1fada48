"""Which normal images train, which calibrate, which validate: by a hash of the image's name."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Literal

Part = Literal["train", "calibration", "validation"]

CALIBRATION, VALIDATION = 0.15, 0.05
"""Shares held out of training; p-values need 200 calibration images or more to be fine-grained."""


def part_of(
    name: str, seed: int, calibration: float = CALIBRATION, validation: float = VALIDATION
) -> Part:
    """The part of one image: a function of its name and the seed, so that an archive that grows
    or moves keeps its split."""
    word = hashlib.blake2b(f"{seed}\0{name}".encode(), digest_size=8).digest()
    place = int.from_bytes(word, "big") / 2**64
    if place < calibration:
        return "calibration"
    return "validation" if place < calibration + validation else "train"


def split_digest(names_and_parts: Iterable[tuple[str, str]]) -> str:
    """16 hex characters over the split, in any order."""
    digest = hashlib.blake2b(digest_size=8)
    for name, part in sorted(names_and_parts):
        digest.update(f"{name}\0{part}\n".encode())
    return digest.hexdigest()
