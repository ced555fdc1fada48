"""A score table in a notebook: the same answers as the commands give, as Arrow tables.

table = ganad.open_table("scores")
table.top(20).to_pandas()
table.evaluate().findings
"""

from __future__ import annotations

import os
from contextlib import closing
from functools import cached_property
from typing import Any

import duckdb
import pyarrow as pa

from ganad.errors import ConfigError
from ganad.evaluation import compare as comparing
from ganad.evaluation import evaluate as evaluating
from ganad.evaluation.flags import by_budget, by_false_discoveries, highest, rows_where
from ganad.evaluation.thresholds import Prices
from ganad.scores.sql import Session
from ganad.scores.table import ScoreTable
from ganad.storage.frames import to_pandas, to_polars


def open_table(uri: str | os.PathLike[str]) -> OpenTable:
    """Open the score table in a folder, local or on S3. Raises TableError if it is not one, or has
    no finished part yet."""
    return OpenTable(os.fspath(uri))


class OpenTable(ScoreTable):
    """A score table with the answers of ganad query, evaluate and compare."""

    def __repr__(self) -> str:
        return f"ScoreTable({self.typed}, {len(self.parts)} parts of {', '.join(self.models)})"

    def relation(self) -> duckdb.DuckDBPyRelation:
        """All rows, read from the parts when they are asked for: filter, aggregate or join them in
        DuckDB. It reads no other file, as SQL over a table never does."""
        return self._session.connection.table("scores")

    @cached_property
    def _session(self) -> Session:
        """Stays open as long as the table, for relations to read from."""
        return self.session()

    def to_arrow(self) -> pa.Table:
        """All rows in memory."""
        return self.query("SELECT * FROM scores")

    def to_pandas(self) -> Any:
        """All rows as a pandas DataFrame. Raises ConfigError without pandas."""
        return to_pandas(self.to_arrow())

    def to_polars(self) -> Any:
        """All rows as a polars DataFrame. Raises ConfigError without polars."""
        return to_polars(self.to_arrow())

    def top(self, num: int = 20, where: str | None = None) -> pa.Table:
        """The num highest scores of each model, as `ganad query --top`. where: SQL condition on the
        images."""
        if num < 1:
            raise ConfigError(f"top({num}) asks for no images: give 1 or more")
        condition = "true" if where is None else f"({where}\n)"
        return self.query(highest(self.models, num, condition), where or f"top({num})")

    def flagged(self, *, fdr: float | None = None, budget: int | None = None) -> pa.Table:
        """The images that a rule flags, as `ganad query --fdr` and `--budget`: at a false discovery
        rate, or about so many of each model. Raises ConfigError unless one of them is given."""
        if (fdr is None) == (budget is None):
            raise ConfigError("flagged() needs one rule: give fdr=0.1, or budget=200")
        if budget is not None and budget < 1:
            raise ConfigError(f"flagged(budget={budget}) asks for no images: give 1 or more")
        with closing(self.session()) as session:
            if fdr is not None:
                flags = by_false_discoveries(self, session, fdr)
            else:
                assert budget is not None
                flags = by_budget(session, budget)
            return session.query(rows_where(f"({flags.condition})"))

    def evaluate(
        self,
        labels: str | None = None,
        *,
        pixels: bool = False,
        brightness: bool | None = None,
        cost: str | None = None,
    ) -> evaluating.Evaluation:
        """The figures of `ganad evaluate`; see ganad.evaluation.evaluate. cost: FP:FN, such as
        "1:20"."""
        prices = None if cost is None else Prices.parse(cost)
        return evaluating.evaluate(self, labels, pixels, brightness=brightness, prices=prices)

    def compare(self, other: ScoreTable | str | os.PathLike[str]) -> comparing.Differences:
        """How a later table differs from this one, as `ganad compare`."""
        table = other if isinstance(other, ScoreTable) else ScoreTable(os.fspath(other))
        return comparing.compare(self, table)
