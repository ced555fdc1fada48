"""Damaged images of every format through the decoder: each gives a score or an error, none more.

    python -m tests.ganad.images.fuzz --num 5000 --seed 0 ../shared/data/magnetic_tile

Real files from the folders and generated ones are changed at random. Each goes through the process
that decodes in a job, whose time and memory are measured for each file. The exit status is 1 if a
file took more than 10 s, more than 2 GB, or ended that process, or if a changed PNG, the only
format with checksums, was decoded to other pixels.
"""

from __future__ import annotations

import argparse
import os
import struct
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ganad.images import sandbox
from ganad.images.decode import Preprocessing, decode
from tests.ganad.images.odd_images import odd_images

KIND = Preprocessing(image_size=64)
MOST_SECONDS, MOST_BYTES = 10.0, 2 * 10**9
FORMATS = {
    b"\xff\xd8": "JPEG",
    b"\x89P": "PNG",
    b"BM": "BMP",
    b"II": "TIFF",
    b"MM": "TIFF",
    b"RI": "WebP",
    b"GI": "GIF",
}
EXTREMES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)


@dataclass
class Tally:
    """What became of the changed files of one format."""

    outcomes: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    num_bytes: int = 0
    silent: int = 0
    """Files with checksums that were decoded to other pixels all the same."""

    def is_good(self) -> bool:
        bad = self.outcomes["crashed"] + self.outcomes["timed out"] + self.silent
        return not bad and self.seconds <= MOST_SECONDS and self.num_bytes <= MOST_BYTES


def sources(folders: Sequence[str]) -> list[bytes]:
    """Generated images of every kind, and up to 20 real ones of each format from each folder."""
    found = [odd.data for odd in odd_images() if odd.data[:2] in FORMATS]
    for folder in folders:
        by_format: Counter[str] = Counter()
        for path in sorted(Path(folder).rglob("*")):
            if path.suffix.lower() in (".jpg", ".png", ".bmp", ".tif", ".webp", ".gif"):
                data = path.read_bytes()
                name = FORMATS.get(data[:2], "")
                by_format[name] += 1
                if name and by_format[name] <= 20:
                    found.append(data)
    return found


def flip(data: bytearray, rng: np.random.Generator, others: Sequence[bytes]) -> None:
    for place in rng.integers(0, len(data), int(rng.integers(1, 17))):
        data[place] = int(rng.integers(256))


def flip_header(data: bytearray, rng: np.random.Generator, others: Sequence[bytes]) -> None:
    for place in rng.integers(0, min(len(data), 256), int(rng.integers(1, 9))):
        data[place] ^= 1 << int(rng.integers(8))


def set_extreme(data: bytearray, rng: np.random.Generator, others: Sequence[bytes]) -> None:
    """Write the largest and smallest numbers where sizes, counts and places are."""
    near_end = rng.random() < 0.3  # the tags of a TIFF
    width = int(rng.choice([1, 2, 4]))
    low = max(2, len(data) - 400) if near_end else 2
    high = len(data) if near_end else min(len(data), 300)
    if low >= high - width:
        return
    place = int(rng.integers(low, high - width))
    value = int(rng.choice(EXTREMES)) & (256**width - 1)
    data[place : place + width] = value.to_bytes(width, rng.choice(["little", "big"]))


def truncate(data: bytearray, rng: np.random.Generator, others: Sequence[bytes]) -> None:
    del data[int(rng.integers(0, len(data))) :]


def splice(data: bytearray, rng: np.random.Generator, others: Sequence[bytes]) -> None:
    """The head of another file before the rest of this one."""
    other = others[int(rng.integers(len(others)))]
    end = int(rng.integers(4, min(len(other), 600) + 1))
    data[: int(rng.integers(0, min(len(data), 600)))] = other[:end]


def repeat(data: bytearray, rng: np.random.Generator, others: Sequence[bytes]) -> None:
    """A block of the file several times in a row."""
    start, stop = sorted(int(place) for place in rng.integers(0, len(data), 2))
    place = int(rng.integers(0, len(data)))
    data[place:place] = data[start : min(stop, start + 2000)] * int(rng.integers(1, 20))


Change = Callable[[bytearray, np.random.Generator, Sequence[bytes]], None]
CHANGES: tuple[Change, ...] = (
    flip,
    flip_header,
    set_extreme,
    set_extreme,
    truncate,
    splice,
    repeat,
)


def with_right_checksums(data: bytes) -> bytes:
    """A PNG whose chunks are taken for whole, so that what is in them is read."""
    result, place = bytearray(data), 8
    while place + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        end = place + 8 + length
        if end + 4 > len(data):
            break
        struct.pack_into(">I", result, end, zlib.crc32(data[place + 4 : end]))
        place = end + 4
    return bytes(result)


@dataclass(frozen=True)
class Mutant:
    """original: the file before. data: after. checked: its checksums tell that it was changed."""

    original: bytes
    data: bytes
    checked: bool


def mutants(originals: Sequence[bytes], num: int, seed: int) -> Iterator[Mutant]:
    """Changed files, the same for the same seed."""
    rng = np.random.default_rng(seed)
    for number in range(num):
        original = originals[number % len(originals)]
        data = bytearray(original)
        changes = [CHANGES[int(rng.integers(len(CHANGES)))] for _ in range(rng.integers(1, 4))]
        for change in changes:
            if data:
                change(data, rng, originals)
        is_png = original[:4] == data[:4] == b"\x89PNG"
        if is_png and rng.random() < 0.7:
            yield Mutant(original, with_right_checksums(bytes(data)), False)
        else:
            # A whole chunk of another PNG has a checksum that fits.
            yield Mutant(original, bytes(data), is_png and splice not in changes)


def outcome(error: str | None) -> str:
    if error is None:
        return "decoded"
    if error == sandbox.OUT_OF_TIME:
        return "timed out"
    return "crashed" if error.startswith("decoding it crashes") else "an error"


class Watch:
    """Processor time and peak memory of the process that decodes, for one file."""

    def __init__(self) -> None:
        children = sandbox._idle.get(os.getpid(), [])
        self.pid = children[-1].process.pid if children else None
        self.before = self._seconds()
        if self.pid is not None:
            Path(f"/proc/{self.pid}/clear_refs").write_text("5")  # forgets the peak

    def _seconds(self) -> float:
        if self.pid is None:
            return 0.0
        return int(Path(f"/proc/{self.pid}/schedstat").read_text().split()[0]) / 1e9

    def stop(self) -> tuple[float, int]:
        """Seconds and bytes; 0 if the process has been replaced."""
        if self.pid is None or not Path(f"/proc/{self.pid}").exists():
            return 0.0, 0
        (line,) = (
            line
            for line in Path(f"/proc/{self.pid}/status").read_text().splitlines()
            if line.startswith("VmHWM")
        )
        return self._seconds() - self.before, int(line.split()[1]) * 1024


def run(originals: Sequence[bytes], num: int, seed: int) -> dict[str, Tally]:
    """By format of the original."""
    tallies: dict[str, Tally] = {}
    for mutant in mutants(originals, num, seed):
        tally = tallies.setdefault(FORMATS[mutant.original[:2]], Tally())
        watch = Watch()
        ((_, (found,)),) = sandbox.decode_all([(None, mutant.data)], [KIND])
        seconds, num_bytes = watch.stop()
        tally.outcomes[outcome(found.error)] += 1
        tally.seconds = max(tally.seconds, seconds)
        tally.num_bytes = max(tally.num_bytes, num_bytes)
        if found.image is not None and mutant.checked:
            pixels = decode(mutant.original, KIND).image
            tally.silent += pixels is not None and bool((found.image != pixels).any())
    return tallies


def table(tallies: dict[str, Tally]) -> str:
    lines = [
        "| format | tried | decoded | an error | crashed | timed out | silent | most s | most MB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in sorted(tallies):
        one = tallies[name]
        counts = [one.outcomes[key] for key in ("decoded", "an error", "crashed", "timed out")]
        silent = one.silent if name == "PNG" else "-"
        numbers = [sum(counts), *counts, silent, f"{one.seconds:.2f}", one.num_bytes // 10**6]
        lines.append("| " + " | ".join(map(str, [name, *numbers])) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="Damaged images through the decoder.")
    parser.add_argument("folders", nargs="*", help="folders of real images")
    parser.add_argument("--num", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    began = time.monotonic()
    originals = sources(options.folders)
    tallies = run(originals, options.num, options.seed)
    print(
        f"{options.num} changed files from {len(originals)} images, seed {options.seed}, ", end=""
    )
    print(f"{time.monotonic() - began:.0f} s\n\n{table(tallies)}")
    return int(not all(tally.is_good() for tally in tallies.values()))


if __name__ == "__main__":
    sys.exit(main())
