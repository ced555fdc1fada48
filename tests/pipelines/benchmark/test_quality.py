"""What detectors find and what their numbers promise, on data small enough for a test."""

from pathlib import Path

import numpy as np
import pytest

from ganad.calibration import Calibration
from ganad.errors import ConfigError
from pipelines.benchmark.data import open_data_set
from pipelines.benchmark.quality import ablation as parts
from pipelines.benchmark.quality.ablation import ablation
from pipelines.benchmark.quality.calibration import as_markdown, binomial, expected, tried

RANDOM = {"image_size": 32, "backbone": {"weights": "random"}}
TINY = {**RANDOM, "representation": "maps", "terms": parts.TERMS, "code_side": 4, "epochs": 2}
SMALL = {"width": 4, "latent": 4, "batch_size": 8}


def test_every_part_of_a_score_is_measured_alone(image_folder: Path, tmp_path: Path) -> None:
    chosen = open_data_set(str(image_folder), tmp_path, tmp_path)
    rows = parts.trained(chosen, {**TINY, **SMALL}, 1)
    assert [row["part"] for row in rows] == ["residual", "cosine", "latent", "features", "sum"]
    (floor,) = parts.floor(chosen, {**TINY, **SMALL}, 1)
    for row in (*rows, floor):
        assert (row["num"], row["num_abnormal"]) == (16, 8)
        assert all(0 <= row[key] <= 1 for key in ("auroc", "aupr", "pixel_auroc", "aupro"))
    assert len({row["pixel_auroc"] for row in rows}) == len(rows)
    # A crack is dark: the mean of the training images at each place does not show it.
    assert floor["auroc"] > 0.7
    known = [{"detector": "ganomaly", **row} for row in rows]
    text = parts.as_markdown(known + [{**row, "auroc": 1.0} for row in known], [])
    assert "| ganomaly | sum | 2 | " in text
    assert " ± " in text


def test_patches_are_refused(image_folder: Path, tmp_path: Path) -> None:
    settings = ["patch.size=16", "backbone.weights=random", "image_size=32", "code_side=4"]
    with pytest.raises(ConfigError, match="^--set patch does not work here"):
        ablation(str(tmp_path), str(image_folder), [0], settings, "nowhere")


def test_p_values_are_counted_on_fresh_images(image_folder: Path, tmp_path: Path) -> None:
    chosen = open_data_set(str(image_folder), tmp_path, tmp_path)
    rows = tried(chosen, "knn", {**RANDOM, "seed": 1}, 3, 1)
    assert [row["way"] for row in rows] == ["held out", "crossed in 3"]
    for row in rows:
        assert row["num_own"] == row["num_fresh"] == 24
        assert row["smallest_p"] >= 1 / (row["num_calibration"] + 1)
        assert row["below_0.01"] == 0
        assert row["below_0.05"] <= row["below_0.1"]
    assert rows[1]["num_calibration"] == 24
    text = as_markdown([{"data": "metal", "detector": "knn", **row} for row in rows])
    assert "| metal | knn | crossed in 3 | 24 | 24 | 0.01 | 0.0000 (0.0000) |" in text


def test_exact_p_values_lie_inside_what_is_expected_of_them() -> None:
    rng = np.random.default_rng(0)
    alpha, num, num_fresh, inside = 0.05, 59, 300, 0
    ids = tuple(map(str, range(num)))
    for _ in range(400):
        p = Calibration(rng.normal(size=num), ids).p_values(rng.normal(size=num_fresh))
        low, high = expected(alpha, num, num_fresh)
        inside += low <= (p < alpha).mean() <= high
    assert 0.93 < inside / 400 < 0.99
    assert expected(0.01, 50, 1000) == (0.0, 0.0)  # no p-value is so small
    low, high = binomial(5, 100)
    assert low < 0.05 < high
    assert (low, high) == pytest.approx((0.0164, 0.1128), abs=1e-3)
