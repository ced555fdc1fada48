"""Verdicts of people on images, stored in append-only CSV files in a score table's folder.

TABLE/_verdicts/<date>-<person>-<random>.csv    one file per browsing session

Each line is one verdict and is never changed. The latest line about an image counts; an empty
verdict revokes the previous one. Every session writes its own file, so that several people can work
on one table at once, also on S3, where objects cannot be appended to.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, Literal

import pyarrow as pa

from ganad.errors import ArchiveError
from ganad.storage import files as storage

FOLDER = "_verdicts"
Choice = Literal["defect", "false alarm", ""]
DEFECT: Choice = "defect"
FALSE_ALARM: Choice = "false alarm"
NONE: Choice = ""
CHOICES: tuple[Choice, ...] = (DEFECT, FALSE_ALARM, NONE)

_MOMENT = pa.timestamp("us", "UTC")
_LABELS = {DEFECT: ("defect", "true"), FALSE_ALARM: ("good", "false"), NONE: ("", "")}


@dataclass(frozen=True)
class Verdict:
    """One line. label and abnormal repeat the verdict in the form of a CSV of labels."""

    image_id: str
    uri: str
    member: str
    """Name inside the tar or Parquet file; empty for a loose file."""
    name: str
    label: str
    abnormal: str
    """true, false, or empty."""
    verdict: Choice
    who: str
    when: str
    """UTC, ISO 8601."""
    model: str
    """The model whose scores were shown."""

    @classmethod
    def of(cls, row: Mapping[str, Any], choice: Choice, who: str, model: str) -> Verdict:
        """Make a verdict with the current time. row needs image_id, uri, member and name."""
        label, abnormal = _LABELS[choice]
        return cls(
            image_id=row["image_id"],
            uri=row["uri"],
            member=row["member"] or "",
            name=row["name"],
            label=label,
            abnormal=abnormal,
            verdict=choice,
            who=who,
            when=datetime.now(UTC).isoformat(timespec="microseconds"),
            model=model,
        )


HEADER = tuple(field.name for field in fields(Verdict))


def read_verdicts(uri: str) -> dict[str, Verdict]:
    """image_id -> its current verdict over all sessions; images without one are left out.

    uri: a score table, its folder of verdicts, or one file in it. Raises ArchiveError for a file
    that does not hold verdicts.
    """
    place = storage.absolute(uri)
    if place.endswith(".csv"):
        return latest(parse(storage.read_bytes(place), place))
    folder = place if place.rstrip("/").endswith(FOLDER) else storage.join(place, FOLDER)
    if not storage.exists(folder):
        return {}
    lines: list[Verdict] = []
    for name in sorted(storage.list_names(folder)):
        if name.endswith(".csv"):
            file = storage.join(folder, name)
            lines += parse(storage.read_bytes(file), file)
    return latest(lines)


def verdict_rows(uri: str) -> pa.Table:
    """The current verdicts of a score table, a row for each image: image_id, name, verdict, who,
    judged_at, and the model whose scores were shown. Raises ArchiveError."""
    current = read_verdicts(uri).values()
    columns = {
        name: pa.array([getattr(one, name) for one in current], pa.string())
        for name in ("image_id", "name", "verdict", "who", "model")
    }
    moments = pa.array([_moment(one.when) for one in current], _MOMENT)
    return pa.table({**columns, "judged_at": moments})


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:  # a line that a person wrote
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def is_verdicts(uri: str) -> bool:
    """True for a table's folder of verdicts, and for a file in it."""
    return f"/{FOLDER}/" in storage.absolute(uri).rstrip("/") + "/"


def parse(data: bytes, uri: str) -> Iterator[Verdict]:
    """Yield the verdicts in one file. Raises ArchiveError that names the file and the line."""
    try:
        reader = csv.reader(io.StringIO(data.decode("utf-8"), newline=""))
        if tuple(next(reader, ())) != HEADER:
            raise ArchiveError(
                f"{uri} is not a file of verdicts, whose first line is {','.join(HEADER)}: "
                f"move it out of {FOLDER}"
            )
        for number, cells in enumerate(reader, start=2):
            if len(cells) != len(HEADER) or cells[HEADER.index("verdict")] not in CHOICES:
                raise ArchiveError(f"{uri}: line {number} is not a verdict: remove the line")
            yield Verdict(*cells)  # type: ignore[arg-type]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ArchiveError(
            f"{uri} is not CSV in UTF-8 ({error}): move it out of {FOLDER}"
        ) from error


def latest(lines: Iterable[Verdict]) -> dict[str, Verdict]:
    """image_id -> its latest verdict, without revoked ones."""
    ordered = {line.image_id: line for line in sorted(lines, key=lambda line: line.when)}
    return {key: line for key, line in ordered.items() if line.verdict != NONE}
