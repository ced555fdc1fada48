"""Compares two score tables, such as those of two nights, model by model and folder by folder.

The distance of two sets of scores is the Kolmogorov-Smirnov statistic: the largest difference
between their empirical distribution functions, 0 for equal sets and 1 for sets without overlap.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from scipy import stats

from ganad.errors import TableError
from ganad.evaluation.evaluate import ALPHA
from ganad.scores.sql import Session
from ganad.scores.table import ScoreTable

QUANTILES = (0.5, 0.9, 0.99)
CHANCE = 0.01
"""Significance level of a difference, after Bonferroni correction."""
FEWEST = 20
"""Minimum number of images per table for a folder to be compared separately."""
_LATER = "later"


@dataclass(frozen=True)
class Side:
    """One model's scores in one of the tables, in one folder or in all."""

    num: int
    quantiles: tuple[float, ...]
    """Score quantiles at QUANTILES."""
    share_flagged: float | None
    """Fraction of images with p < 0.05; None without p-values."""


@dataclass(frozen=True)
class Comparison:
    """One model in both tables."""

    model: str
    folder: str | None
    """None for all folders together."""
    first: Side
    second: Side
    distance: float
    chance: float
    """p-value of the distance if both sets came from one distribution."""


@dataclass
class Differences:
    """All comparisons of two tables; for each model all folders together first, then each
    folder."""

    comparisons: list[Comparison] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def beyond(self, bound: float) -> list[Comparison]:
        """Comparisons whose distance exceeds bound and is significant after Bonferroni correction
        for the number of comparisons."""
        num = len(self.comparisons)
        return [c for c in self.comparisons if c.distance > bound and c.chance * num < CHANCE]


def compare(first: ScoreTable, second: ScoreTable) -> Differences:
    """Compare the models that both tables share, on all images and by folder.

    The folder of an image is its name up to the last slash. Raises TableError if the tables share
    no model.
    """
    shared = [model for model in first.models if model in second.models]
    if not shared:
        raise TableError(
            f"{second.typed} and {first.typed} have no model in common ({', '.join(second.models)} "
            f"and {', '.join(first.models)}): score both with the same model"
        )
    result = Differences()
    for table, other in ((first, second), (second, first)):
        for model in table.models:
            if model not in other.models:
                result.notes.append(f"{model} was not compared, because only {table.typed} has it")
    with closing(first.session()) as session:
        session.add_table(_LATER, second.part_files)
        session.connection.execute(
            "CREATE VIEW both_tables AS SELECT *, CASE WHEN contains(name, '/') "
            "THEN regexp_replace(name, '/[^/]*$', '') ELSE '' END AS folder FROM ("
            f"SELECT *, 0 AS side FROM scores UNION ALL SELECT *, 1 AS side FROM {_LATER}) "
            "WHERE score IS NOT NULL"
        )
        for model in shared:
            sides = _sides(session, model, by_folder=False)
            if len(sides.get(None, {})) < 2:
                result.notes.append(f"{model} has no scores in one of the tables")
                continue
            result.comparisons += _compared(session, model, sides, by_folder=False)
            folders = {
                folder: both
                for folder, both in _sides(session, model, by_folder=True).items()
                if len(both) == 2 and min(side.num for side in both.values()) >= FEWEST
            }
            if len(folders) > 1:
                result.comparisons += _compared(session, model, folders, by_folder=True)
            elif not folders:
                result.notes.append(
                    f"{model}: no folder has {FEWEST} images in both tables, so folders were not "
                    f"compared"
                )
    return result


Sides = dict[str | None, dict[int, Side]]


def _sides(session: Session, model: str, by_folder: bool) -> Sides:
    """Folder (None for all) -> table number, 0 or 1 -> its scores."""
    folder = "folder" if by_folder else "NULL::VARCHAR"
    quantiles = ", ".join(map(str, QUANTILES))
    rows = session.query(
        f"SELECT {folder} AS folder, side, count(*) AS num, "
        f"quantile_cont(score, [{quantiles}]) AS quantiles, "
        f"count(*) FILTER (p_value < {ALPHA}) / nullif(count(p_value), 0) AS share "
        f"FROM both_tables WHERE model = $1 GROUP BY 1, 2 ORDER BY 1, 2",
        model,
    )
    sides: Sides = {}
    for row in rows.to_pylist():
        side = Side(row["num"], tuple(row["quantiles"]), row["share"])
        sides.setdefault(row["folder"], {})[row["side"]] = side
    return sides


def _compared(session: Session, model: str, sides: Sides, by_folder: bool) -> Iterator[Comparison]:
    folder = "folder" if by_folder else "NULL::VARCHAR"
    # The default window frame is by value, so running counts include all images of equal score.
    rows = session.query(
        f"WITH counted AS (SELECT {folder} AS folder, "
        f"count(*) FILTER (side = 0) OVER below AS before, count(*) FILTER (side = 0) OVER whole "
        f"AS num_before, count(*) FILTER (side = 1) OVER below AS after, "
        f"count(*) FILTER (side = 1) OVER whole AS num_after FROM both_tables WHERE model = $1 "
        f"WINDOW below AS (PARTITION BY {folder} ORDER BY score), "
        f"whole AS (PARTITION BY {folder})) "
        f"SELECT folder, max(abs(before / num_before - after / num_after)) AS distance "
        f"FROM counted WHERE num_before > 0 AND num_after > 0 GROUP BY folder",
        model,
    )
    distances = {row["folder"]: row["distance"] for row in rows.to_pylist()}
    for name, both in sides.items():
        num = both[0].num * both[1].num / (both[0].num + both[1].num)
        chance = float(stats.kstwo.sf(distances[name], max(1, round(num))))
        yield Comparison(model, name, both[0], both[1], distances[name], chance)


def sentences(comparisons: Sequence[Comparison], bound: float) -> list[str]:
    """One sentence per comparison whose distance exceeds the bound."""
    return [
        f"{c.model}, {'all images' if c.folder is None else f'folder {c.folder!r}'}: the "
        f"distance of the scores is {c.distance:.3f}, more than {bound:g}"
        for c in comparisons
    ]
