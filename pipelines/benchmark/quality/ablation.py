"""What makes GANomaly on maps work: its parts alone. Run: ganad benchmark ablation --out FOLDER

Three kinds of run, each with every seed:

ganomaly            as its paper trains it
without L_adv       the same with w_adv = 0: no adversarial term in G's loss
no training         G ≡ the mean map of the training images at each place: what frozen features see
                    by themselves, and what a trained network must beat

The terms of a score are made by one trained network, so each term alone costs no training. All are
means over the worst places of an image (see ganad.detectors.places); sum is of all, each
standardised by images that neither trained the network nor are tested. No label is used before the
scores are there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from ganad.archive.listing import list_images
from ganad.archive.rows import SCHEMA
from ganad.archive.splits import normal_rows, with_subsets
from ganad.detectors import configure, create
from ganad.detectors.base import BatchScores, Scores
from ganad.detectors.gan.ganomaly import Ganomaly
from ganad.detectors.places import TermScale, squared
from ganad.errors import ConfigError
from ganad.evaluation.metrics import PixelMetrics, ranking
from ganad.images.decode import Preprocessing
from ganad.images.inputs import from_rows
from ganad.images.shards import Shards
from ganad.training.fit import fit
from ganad.training.maps import fit_maps, moments_of
from pipelines.benchmark.budget import Budget
from pipelines.benchmark.data import DataSet, open_data_set, tested_rows
from pipelines.benchmark.quality.accuracy import trivial_rows
from pipelines.benchmark.quality.run import add_map, is_compared
from pipelines.benchmark.quality.runs import Rows, Run, place_of, report, spread

NAME = "ganomaly_maps"
"""The budget's table with the settings of all runs, if it has one."""
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "ganomaly": {},
    "without L_adv": {"w_adv": 0.0},
    "no training": {},
}
FLOOR = "no training"
TERMS = Ganomaly.Config.known_terms
PARTS = {**{term: (term,) for term in TERMS}, "sum": TERMS}
"""Part of the score -> the terms that it counts."""


def ablation(
    out: str,
    data_set: str,
    seeds: Sequence[int],
    settings: Sequence[str],
    data: str,
    *,
    normal: Sequence[str] = (),
    budget: str | None = None,
    cores: int = 1,
    debug: bool = False,
) -> str:
    """Train, score and evaluate each variant with each seed; arguments as of accuracy().

    Writes OUT/ablation.parquet (a row per run and part of the score) and OUT/ablation.md (means ±
    standard deviation over seeds), which is returned.
    """
    folder = Path(out).absolute()
    chosen = open_data_set(data_set, Path(data), folder / "data", normal)
    budgets = Budget.read(budget, settings, Path(data).absolute())
    name = NAME if NAME in budgets.tables else Ganomaly.name
    runs = []
    for variant, keys in VARIANTS.items():
        for seed in seeds:
            values = budgets.values(name, seed, chosen)
            values |= {"representation": "maps", "terms": TERMS, **keys}
            if configure(Ganomaly.name, values).patch is not None:
                raise ConfigError("--set patch does not work here, on whole images: leave it out")
            known = {"data": chosen.name, "detector": variant, "seed": seed}
            work = floor if variant == FLOOR else trained
            place = place_of(folder, chosen.name, variant, seed)
            runs.append(Run(place, known, work, (chosen, values, cores)))
    trivial = trivial_rows(chosen)
    return report(runs, folder, "ablation", lambda rows: as_markdown(rows, trivial), cores, debug)


def trained(chosen: DataSet, values: Mapping[str, Any], num_threads: int) -> Rows:
    """Rows of a trained GANomaly, one for each part of its score."""
    torch.set_num_threads(num_threads)
    detector = fit(Ganomaly.name, chosen.train, **values).detector
    assert isinstance(detector, Ganomaly)
    assert detector.scale is not None
    tested, rows = Tested(chosen, detector), []
    for part, counted in PARTS.items():
        # A term counts for scores and maps alone, not for training.
        detector.scale.counted = detector.scale.mapped = counted
        scores = (detector.score(raw, maps=tested.has_masks) for raw in tested.raw)
        rows.append({"part": part, **tested.figures(scores)})
    return rows


def floor(chosen: DataSet, values: Mapping[str, Any], num_threads: int) -> Rows:
    """The row of G ≡ the mean map at each place, whose residual alone is the score."""
    torch.set_num_threads(num_threads)
    detector = create(Ganomaly.name, configure(Ganomaly.name, values))
    assert isinstance(detector, Ganomaly)
    detector.to("cuda" if torch.cuda.is_available() else "cpu")
    listed = pa.Table.from_pylist(list(list_images([chosen.train])), schema=SCHEMA)
    rows = with_subsets(normal_rows(listed, chosen.train), detector.config.seed)
    training = rows.filter(pc.equal(rows["part"], "train")).to_pylist()
    seen = [raw for raw, _ in _represented(detector, training)]
    num = sum(map(len, seen))
    shards = Shards([raw.numpy() for raw in seen])
    fit_maps(detector, moments_of(detector, shards, np.arange(num)))
    usual = torch.stack([detector.inputs(raw).double().sum(0) for raw in seen]).sum(0) / num
    tested, scale = Tested(chosen, detector), TermScale(["residual"], ["residual"])
    side = detector.config.input_size if tested.has_masks else None

    def scored(raw: Tensor) -> Scores:
        x = detector.inputs(raw)
        residual = {"residual": squared(x, usual.expand_as(x)).cpu()}
        found: BatchScores = scale.score(residual, detector.config.worst, side)
        return found.head(len(raw))

    return [{"part": "residual", **tested.figures(map(scored, tested.raw))}]


class Tested:
    """The test images of a data set that can be read, as raw maps of a detector."""

    def __init__(self, chosen: DataSet, detector: Ganomaly) -> None:
        rows = tested_rows(chosen)
        self.raw: list[Tensor] = []
        self.rows: list[dict[str, Any]] = []
        """With width and height."""
        for raw, its_rows in _represented(detector, rows):
            self.raw.append(raw)
            self.rows += its_rows
        self.has_masks = any(row["mask"] for row in self.rows)

    def figures(self, scores: Iterator[Scores]) -> dict[str, Any]:
        """Columns of a row, from the scores of raw, tensor by tensor."""
        found: list[np.ndarray] = []
        pixels, rows = PixelMetrics(), iter(self.rows)
        for some in scores:
            found.append(some.score)
            for one in some.maps if some.maps is not None else ():
                row = next(rows)
                if is_compared(row):
                    add_map(pixels, one, row)
        abnormal = np.array([bool(row["abnormal"]) for row in self.rows])
        result, places = ranking(np.concatenate(found), abnormal), pixels.result()
        return {
            "num": result.num,
            "num_abnormal": result.num_abnormal,
            "auroc": result.auroc,
            "aupr": result.aupr,
            "pixel_auroc": places.auroc,
            "aupro": places.aupro,
        }


def _represented(
    detector: Ganomaly, rows: Sequence[dict[str, Any]]
) -> Iterator[tuple[Tensor, list[dict[str, Any]]]]:
    """Raw maps of the images of these rows that can be read, and their rows with width and
    height."""
    config, rest = detector.config, iter(rows)
    preprocessing = Preprocessing(image_size=config.image_size, channels=config.channels)
    for decoded, _ in from_rows(rows, preprocessing):
        both = [(one, next(rest)) for one in decoded]
        good = [(one, row) for one, row in both if one.image is not None]
        if good:
            pixels = torch.from_numpy(np.stack([one.image for one, _ in good]))  # type: ignore[misc]
            with detector.scoring():
                raw = detector.represent(pixels).cpu()
            yield raw, [{**row, "width": one.width, "height": one.height} for one, row in good]


def as_markdown(rows: Rows, trivial: Rows) -> str:
    """A line for each variant and part of the score, with mean ± standard deviation over seeds."""
    lines = [
        "| G | score | seeds | AUROC | AUPR | pixel AUROC | AUPRO |",
        "|---|---|---|---|---|---|---|",
    ]
    for variant in VARIANTS:
        for part in PARTS:
            group = [r for r in rows if (r["detector"], r["part"]) == (variant, part)]
            if group:
                columns = ("auroc", "aupr", "pixel_auroc", "aupro")
                cells = (spread(r[key] for r in group) for key in columns)
                lines.append(f"| {variant} | {part} | {len(group)} | {' | '.join(cells)} |")
    for row in trivial:
        figures = f"{row['auroc']:.3f} | {row['aupr']:.3f}"
        lines.append(f"| | {row['detector']} | | {figures} | | |")
    return "\n".join(lines) + "\n"
