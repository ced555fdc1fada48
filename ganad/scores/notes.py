"""Work notes of a score table: timings and retries of the work that made each part.

A note is stored in the part's own Parquet footer, so it exists exactly when the part does, even if
the run was killed in between.
"""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ganad.errors import TableError
from ganad.scores.checksums import CheckedFile, Damaged
from ganad.scores.files import ScoreFile
from ganad.scores.sql import SAME_COMMAND
from ganad.scores.table import ScoreTable
from ganad.storage import files as storage
from ganad.storage.threads import in_threads

NUM_PERIODS = 8
NUM_SLOWEST = 5
_KEY = "ganad"

Note = Mapping[str, Any]
"""Keys: rows (images in the part); began, ended (seconds since 1970); score_s (seconds that this
model took); first (name of the first image); host, pid (the worker); restarted (True if the worker
replaced one that died). The note of a unit's first model also has decode_s, and retries (reason ->
number of repeated fetches)."""


def to_metadata(notes: Sequence[Note]) -> dict[str, str]:
    """Key-value pairs for a part's footer."""
    return {_KEY: json.dumps(notes[0] if len(notes) == 1 else list(notes))}


def from_metadata(metadata: Mapping[bytes, bytes]) -> list[dict[str, Any]]:
    """The inverse of to_metadata; [] for a part without a note."""
    notes = json.loads(metadata.get(_KEY.encode(), b"[]"))
    return [notes] if isinstance(notes, dict) else list(notes)


def read_notes(table: ScoreTable) -> list[dict[str, Any]]:
    """The notes of all parts, with `part` and `model` added. Reads footers only. Raises
    ArchiveError."""
    files, remote = list(table.parts.values()), storage.is_remote(table.uri)
    notes_by_part = in_threads(_read, files, remote=remote)
    return [note for notes in notes_by_part for note in notes]


def _read(file: ScoreFile) -> list[dict[str, Any]]:
    try:
        metadata = CheckedFile(file.uri, file.size).metadata
    except Damaged:
        raise TableError(f"{file.uri} cannot be read: {SAME_COMMAND}") from None
    return [{"part": file.name, **note, "model": file.model} for note in from_metadata(metadata)]


def summary(notes: Sequence[Note]) -> dict[str, Any]:
    """Summary of a table's notes; {} without any.

    stages: images and seconds, summed over workers, of decoding and of each model. periods: equal
    spans from the start to the end of the work, with images per second in each. slowest: the parts
    with the most seconds per image. retries: reason -> number of repeated fetches. restarts:
    workers that replaced one that died, and did work.
    """
    decoded = [note for note in notes if "decode_s" in note]
    if not decoded:
        return {}
    stages = {"decode": _stage(decoded, "decode_s")}
    for model in sorted({note["model"] for note in notes}):
        own = [note for note in notes if note["model"] == model]
        stages[f"score {model}"] = _stage(own, "score_s")
    retries: Counter[str] = Counter()
    for note in decoded:
        retries.update(note["retries"])
    return {
        "stages": stages,
        "periods": _periods(decoded),
        "slowest": _slowest(notes),
        "retries": dict(retries.most_common()),
        "restarts": len({(note["host"], note["pid"]) for note in decoded if note["restarted"]}),
    }


def _stage(notes: Sequence[Note], key: str) -> dict[str, Any]:
    images, seconds = sum(note["rows"] for note in notes), sum(note[key] for note in notes)
    rate = images / seconds if seconds > 0 else None
    return {
        "images": images,
        "seconds": round(seconds, 3),
        "images_per_s": None if rate is None else round(rate, 1),
    }


def _periods(notes: Sequence[Note]) -> list[dict[str, Any]]:
    """Images per second over time, in periods of a second or more. A part's images are spread
    evenly over the time that the part took."""
    began, ended = min(note["began"] for note in notes), max(note["ended"] for note in notes)
    num = min(NUM_PERIODS, max(1, int(ended - began)))
    span = max(ended - began, 1e-3) / num
    periods = []
    for number in range(num):
        start, end = began + number * span, began + (number + 1) * span
        images = sum(note["rows"] * _share(note, start, end) for note in notes)
        moment = datetime.fromtimestamp(start, UTC).isoformat(timespec="seconds")
        periods.append({"from": moment, "seconds": round(span, 3), "images_per_s": images / span})
    return [{**period, "images_per_s": round(period["images_per_s"], 1)} for period in periods]


def _share(note: Note, start: float, end: float) -> float:
    """The fraction of a part's work that fell between two moments."""
    length = max(note["ended"] - note["began"], 1e-6)
    inside = min(end, note["began"] + length) - max(start, note["began"])
    return max(0.0, inside) / length


def _slowest(notes: Iterable[Note]) -> list[dict[str, Any]]:
    units: dict[str, dict[str, Any]] = {}
    for note in notes:
        unit = units.setdefault(note["part"], {"rows": note["rows"], "decode_s": 0, "score_s": 0})
        unit["first"] = note["first"]
        unit["score_s"] += note["score_s"]
        unit["decode_s"] += note.get("decode_s", 0)
    for name, unit in units.items():
        unit |= {"part": name, "per_image_s": (unit["decode_s"] + unit["score_s"]) / unit["rows"]}
    usual = statistics.median(unit["per_image_s"] for unit in units.values())
    worst = sorted(units.values(), key=lambda unit: -unit["per_image_s"])[:NUM_SLOWEST]
    return [
        {
            "part": unit["part"],
            "first": unit["first"],
            "images": unit["rows"],
            "decode_s": round(unit["decode_s"], 3),
            "score_s": round(unit["score_s"], 3),
            "times_the_usual": round(unit["per_image_s"] / usual, 2) if usual > 0 else None,
        }
        for unit in worst
    ]


def kinds_of(failures: Mapping[str, int]) -> dict[str, int]:
    """Sum the counts of error texts by kind, most frequent first."""
    kinds: Counter[str] = Counter()
    for text, num in failures.items():
        kinds[kind_of(text)] += num
    return dict(kinds.most_common())


def kind_of(error: str) -> str:
    """The kind of an error text: the words before the colon, as in `cannot be fetched: timeout`."""
    return error.split(":")[0]
