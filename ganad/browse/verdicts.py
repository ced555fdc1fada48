"""The verdicts of one browsing session, and those that were there before it."""

from __future__ import annotations

import csv
import io
import os
import re
import secrets
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from ganad.archive.verdicts import FOLDER, HEADER, NONE, Choice, Verdict, latest, read_verdicts
from ganad.errors import ArchiveError
from ganad.storage import files as storage


class Verdicts:
    """The verdicts on a table: those that count, and a file for the ones of this session.

    Nothing is written before the first verdict. Safe to call from several threads.
    Raises ArchiveError if a file of verdicts cannot be read.
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
