"""Which images a page of the grid shows: the filters in its URL, as SQL over the score table."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import pyarrow as pa
from cachetools import LRUCache

from ganad.archive.verdicts import Verdict
from ganad.errors import ConfigError
from ganad.report.scale import typical_rows
from ganad.scores.sql import Session, shortened
from ganad.scores.table import ScoreTable

PAGE_SIZES = (24, 48, 96)
MAX_PAGE = 10**7
ERRORS = ("without", "with", "only")
"""Images that have no score: left out, shown among the others, or shown alone."""
NUM_SEEN = 20_000
"""Rows kept by image: the pictures of a page are asked for one by one, without a scan for each."""
VERDICTS = ("any", "none", "defect", "false alarm")
_SHOWN = (
    "image_id, uri, member, name, folder, width, height, score, p_value, terms, label, abnormal, "
    "mask, error, verdict"
)


@dataclass(frozen=True)
class Selection:
    """The state of the grid; all of it is in the URL."""

    model: str
    beside: str | None = None
    """A second model whose score and map stand beside the first one's."""
    p_below: float | None = None
    folder: str | None = None
    """Images in this folder and the folders below it."""
    label: str | None = None
    errors: str = "without"
    verdict: str = "any"
    where: str | None = None
    """A condition in SQL over the columns of the table, `folder` and `verdict`."""
    page: int = 1
    size: int = PAGE_SIZES[1]
    groups: bool = False
    """One picture for each group of near duplicates."""
    heat: bool = False

    @classmethod
    def parse(cls, parameters: Mapping[str, str], models: list[str]) -> Selection:
        """From the URL's parameters. Raises ConfigError naming the one that is wrong."""

        def one_of(name: str, allowed: Iterable[str], default: str) -> str:
            value = parameters.get(name) or default
            if value not in allowed:
                raise ConfigError(f"{name}={value}: choose one of {', '.join(allowed)}")
            return value

        def number(name: str, low: int, high: int, default: int) -> int:
            text = parameters.get(name) or str(default)
            if not text.isascii() or not text.isdigit() or not low <= int(text[:12]) <= high:
                raise ConfigError(f"{name}={text}: give a whole number from {low} to {high}")
            return int(text)

        try:
            p_below = float(parameters["p"]) if parameters.get("p") else None
        except ValueError:
            p_below = -1.0
        if p_below is not None and not 0 < p_below <= 1:
            raise ConfigError(f"p={parameters['p']}: give a number above 0, at most 1")
        beside = parameters.get("beside") or None
        if beside is not None and beside not in models:
            raise ConfigError(f"beside={beside}: choose one of {', '.join(models)}")
        return cls(
            model=one_of("model", models, models[0]),
            beside=beside,
            p_below=p_below,
            folder=parameters.get("folder") or None,
            label=parameters.get("label") or None,
            errors=one_of("errors", ERRORS, "without"),
            verdict=one_of("verdict", VERDICTS, "any"),
            where=(parameters.get("where") or "").strip() or None,
            page=number("page", 1, MAX_PAGE, 1),
            size=number("size", 1, 200, PAGE_SIZES[1]),
            groups=parameters.get("groups") == "1",
            heat=parameters.get("heat") == "1",
        )

    def url(self, **changes: Any) -> str:
        """The query string of this state with some of it changed; defaults are left out."""
        state = {
            "model": self.model,
            "beside": self.beside,
            "p": self.p_below,
            "folder": self.folder,
            "label": self.label,
            "errors": None if self.errors == "without" else self.errors,
            "verdict": None if self.verdict == "any" else self.verdict,
            "where": self.where,
            "size": None if self.size == PAGE_SIZES[1] else self.size,
            "groups": "1" if self.groups else None,
            "heat": "1" if self.heat else None,
            "page": self.page,
        } | changes
        if state["page"] == 1:
            state["page"] = None
        return "?" + urlencode({key: value for key, value in state.items() if value is not None})

    def condition(self) -> tuple[str, list[Any]]:
        """SQL of the filters, and its parameters from $1 on."""
        parts, values = ["model = $1"], [self.model]

        def add(sql: str, value: Any) -> None:
            values.append(value)
            parts.append(sql.replace("?", f"${len(values)}"))

        if self.p_below is not None:
            add("p_value < ?", self.p_below)
        if self.folder is not None:
            add("(folder = ? OR starts_with(folder, ? || '/'))", self.folder)
        if self.label is not None:
            add("label = ?", self.label)
        if self.errors != "with":
            parts.append("error IS NULL" if self.errors == "without" else "error IS NOT NULL")
        if self.verdict == "none":
            parts.append("verdict IS NULL")
        elif self.verdict != "any":
            add("verdict = ?", self.verdict)
        if self.where is not None:
            parts.append(f"({self.where}\n)")  # a line break ends a comment
        return " AND ".join(parts), values


class Rows:
    """Rows of a score table with their verdicts. Safe to call from several threads."""

    def __init__(self, table: ScoreTable) -> None:
        self.table = table
        self._session: Session = table.session()
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, tuple[Any, ...]], int] = {}
        self._seen: LRUCache[tuple[str, str], dict[str, Any]] = LRUCache(NUM_SEEN)
        self.set_verdicts({})
        self._session.connection.execute(
            "CREATE VIEW images AS SELECT s.*, v.verdict, "
            "parse_dirpath(s.name, 'forward_slash') AS folder "
            "FROM scores s LEFT JOIN verdicts v ON s.image_id = v.judged"
        )

    def close(self) -> None:
        """Free the memory of the session."""
        self._session.close()

    def set_verdicts(self, verdicts: Mapping[str, Verdict]) -> None:
        """Replace the verdicts that filters see."""
        given = pa.table(
            {
                "judged": pa.array(list(verdicts), pa.string()),
                "verdict": pa.array([one.verdict for one in verdicts.values()], pa.string()),
            }
        )
        with self._lock:
            self._session.connection.register("verdicts", given)
            self._counts.clear()

    def page(self, selection: Selection) -> list[dict[str, Any]]:
        """Rows of one page, highest score first, ties by image_id; images without one last."""
        offset = (selection.page - 1) * selection.size
        return self.ranked(selection, selection.size, offset)

    def ranked(self, selection: Selection, num: int, offset: int = 0) -> list[dict[str, Any]]:
        """num rows from offset on, in the order of the grid."""
        condition, values = selection.condition()
        rows = self._query(
            f"SELECT {_SHOWN} FROM images WHERE {condition} "
            f"ORDER BY score DESC NULLS LAST, image_id LIMIT {num} OFFSET {offset}",
            values,
            selection.where,
        )
        self._keep(selection.model, rows)
        return rows

    def count(self, selection: Selection) -> int:
        """Images that the filters let through."""
        condition, values = selection.condition()
        key = (condition, tuple(values))
        if key not in self._counts:
            rows = self._query(
                f"SELECT count(*) AS n FROM images WHERE {condition}", values, selection.where
            )
            self._counts[key] = int(rows[0]["n"])
        return self._counts[key]

    def of_images(self, model: str, image_ids: Iterable[str]) -> dict[str, dict[str, Any]]:
        """image_id -> its row of this model; the verdict in it may be an older one."""
        ids = list(image_ids)
        with self._lock:
            found = {one: self._seen[model, one] for one in ids if (model, one) in self._seen}
        missing = [one for one in ids if one not in found]
        if missing:
            sql = (
                f"SELECT {_SHOWN} FROM images WHERE model = $1 AND image_id IN (SELECT unnest($2))"
            )
            found |= self._keep(model, self._query(sql, [model, missing]))
        return found

    def _keep(self, model: str, rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
        with self._lock:
            for row in rows:
                self._seen[model, row["image_id"]] = row
        return {row["image_id"]: row for row in rows}

    def all_models(self, image_id: str) -> list[dict[str, Any]]:
        """The rows of one image, one per model."""
        sql = f"SELECT model, {_SHOWN} FROM images WHERE image_id = $1 ORDER BY model"
        return self._query(sql, [image_id])

    def regions(self, model: str, image_id: str) -> list[dict[str, Any]]:
        """The regions of one image, the highest peak first; none if the table holds none."""
        if "regions" not in self._session.views:
            return []
        sql = "SELECT * FROM regions WHERE model = $1 AND image_id = $2 ORDER BY peak DESC, y0, x0"
        return self._query(sql, [model, image_id])

    def typical(self, model: str, num: int) -> list[dict[str, Any]]:
        """num images around the median score: what the archive usually looks like."""
        with self._lock:
            return typical_rows(self._session, model, _SHOWN, num, "images")

    def choices(self, model: str, limit: int = 200) -> dict[str, list[str]]:
        """Folders and labels to choose from, the most frequent first."""
        found = {}
        for column in ("folder", "label"):
            rows = self._query(
                f"SELECT {column} AS value FROM images WHERE model = $1 AND {column} IS NOT NULL "
                f"AND {column} <> '' GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT {limit}",
                [model],
            )
            found[column] = [row["value"] for row in rows]
        return found

    def _query(self, sql: str, values: list[Any], where: str | None = None) -> list[dict[str, Any]]:
        shown = None if where is None else f'"{shortened(where, 100)}"'
        with self._lock:
            schema, batches = self._session.stream(sql, *values, shown=shown)
            table = pa.Table.from_batches(list(batches), schema)
        return list(table.to_pylist(maps_as_pydicts="strict"))
