"""Verdicts of people on images, in append-only CSV files beside a score table.

TABLE/_verdicts/<date>-<person>-<random>.csv    one file per browsing session

Each line is one verdict and is never changed. The latest line about an image counts; an empty
verdict takes the one before it back. Because a session writes its own file, two people can work on
one table at once, also on S3, where an object cannot be appended to.
"""

from __future__ import annotations

import csv
import io
import os
import re
import secrets
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any, Literal

from ganad.errors import ArchiveError, TableError
from ganad.storage import files as storage

FOLDER = "_verdicts"
Choice = Literal["defect", "false alarm", ""]
DEFECT: Choice = "defect"
FALSE_ALARM: Choice = "false alarm"
NONE: Choice = ""
CHOICES: tuple[Choice, ...] = (DEFECT, FALSE_ALARM, NONE)

_LABELS = {DEFECT: ("defect", "true"), FALSE_ALARM: ("good", "false"), NONE: ("", "")}


@dataclass(frozen=True)
class Verdict:
    """One line. label and abnormal say the same as verdict in the words of a CSV of labels."""

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
    """The model in view."""

    @classmethod
    def of(cls, row: Mapping[str, Any], choice: Choice, who: str, model: str) -> Verdict:
        """A verdict of now. row needs image_id, uri, member and name."""
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


class Verdicts:
    """The verdicts on a table: those that count, and a file for the ones of this session.

    Nothing is written before the first verdict. Safe to call from several threads.
    Raises TableError if a file of verdicts cannot be read.
    """

    def __init__(self, table: str, who: str) -> None:
        self.who = who
        person = re.sub(r"[^A-Za-z0-9_-]+", "-", who)[:40] or "someone"
        name = f"{datetime.now(UTC):%Y%m%d}-{person}-{secrets.token_hex(4)}.csv"
        self.uri = storage.join(storage.absolute(table), FOLDER, name)
        self.known = read_verdicts(table)
        """image_id -> the verdict that counts."""
        self.num_written = 0
        self._written = b""
        self._history: list[dict[str, Verdict | None]] = []
        self._lock = threading.Lock()

    def judge(self, rows: Sequence[Mapping[str, Any]], choice: Choice, model: str) -> None:
        """Give all rows one verdict; undo() takes it back from all of them.

        Raises ArchiveError naming the file if it cannot be written.
        """
        with self._lock:
            before = {row["image_id"]: self.known.get(row["image_id"]) for row in rows}
            self._append([Verdict.of(row, choice, self.who, model) for row in rows])
            self._history.append(before)

    def undo(self) -> dict[str, Choice]:
        """Take back the last verdict of this session: image_id -> what it has now, maybe ""."""
        with self._lock:
            if not self._history:
                return {}
            restored: dict[str, Choice] = {}
            lines = []
            for image_id, before in self._history[-1].items():
                last = self.known.get(image_id) or before
                if last is None:
                    continue
                choice = NONE if before is None else before.verdict
                lines.append(Verdict.of(asdict(last), choice, self.who, last.model))
                restored[image_id] = choice
            self._append(lines)
            self._history.pop()
            return restored

    def _append(self, verdicts: Sequence[Verdict]) -> None:
        """Write the lines; they are on disk, or in the object, when this returns."""
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        if not self._written:
            writer.writerow(HEADER)
        writer.writerows(asdict(verdict).values() for verdict in verdicts)
        data = text.getvalue().encode()
        if storage.is_remote(self.uri):
            storage.write_bytes(self.uri, self._written + data)
        else:
            self._append_locally(data)
        self._written += data
        self.num_written += len(verdicts)
        self.known = latest([*self.known.values(), *verdicts])

    def _append_locally(self, data: bytes) -> None:
        try:
            os.makedirs(os.path.dirname(self.uri), exist_ok=True)
            with open(self.uri, "ab") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise ArchiveError(
                f"{self.uri} cannot be written ({error.strerror}): make the table's folder "
                f"writable, or browse a copy of the table"
            ) from error


def read_verdicts(table: str) -> dict[str, Verdict]:
    """image_id -> the verdict that counts, of all sessions; images without one are left out.

    Raises TableError for a file that is not a list of verdicts.
    """
    folder = storage.join(storage.absolute(table), FOLDER)
    if not storage.exists(folder):
        return {}
    lines: list[Verdict] = []
    for name in sorted(storage.list_names(folder)):
        if name.endswith(".csv"):
            uri = storage.join(folder, name)
            lines += parse(storage.read_bytes(uri), uri)
    return latest(lines)


def parse(data: bytes, uri: str) -> Iterator[Verdict]:
    """The lines of one file. Raises TableError naming the file and the line."""
    try:
        reader = csv.reader(io.StringIO(data.decode("utf-8"), newline=""))
        if tuple(next(reader, ())) != HEADER:
            raise TableError(
                f"{uri} is not a file of verdicts, whose first line is {','.join(HEADER)}: "
                f"move it out of {FOLDER}"
            )
        for number, cells in enumerate(reader, start=2):
            if len(cells) != len(HEADER) or cells[HEADER.index("verdict")] not in CHOICES:
                raise TableError(f"{uri}: line {number} is not a verdict: remove the line")
            yield Verdict(*cells)  # type: ignore[arg-type]
    except (UnicodeDecodeError, csv.Error) as error:
        raise TableError(f"{uri} is not CSV in UTF-8 ({error}): move it out of {FOLDER}") from error


def latest(lines: Iterable[Verdict]) -> dict[str, Verdict]:
    """image_id -> its latest verdict, without those that were taken back."""
    ordered = {line.image_id: line for line in sorted(lines, key=lambda line: line.when)}
    return {key: line for key, line in ordered.items() if line.verdict != NONE}
