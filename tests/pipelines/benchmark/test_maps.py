"""The benchmark of detectors over maps, small: that it measures what it says."""

import sys
from pathlib import Path

import numpy as np
import pytest

from ganad.detectors import configure, create
from ganad.errors import ConfigError
from pipelines.benchmark.maps import _anomalib, maps

SETTINGS = ["image_size=32", "backbone.weights=random", "entries=20"]


def test_a_detector_stands_beside_its_network(image_folder: Path) -> None:
    source = str(image_folder / "train")
    bare, whole = maps(source, SETTINGS, detectors=["patchcore"], num=6, rounds=2)
    assert (bare["way"], whole["way"]) == ("bare network", "patchcore")
    assert bare["share"] == 1
    assert bare["images_per_s"] > 0
    assert whole["images_per_s"] > 0
    assert whole["places"] == 4
    assert whole["fitted"] == 6
    assert whole["fit_s"] >= 0
    assert min(whole["fit_peak"], whole["half_peak"]) > 50  # MiB: Python and torch alone


def test_detectors_without_maps_are_refused() -> None:
    with pytest.raises(ConfigError, match="^knn has no maps: give some of padim, patchcore$"):
        maps("nowhere", ["backbone.weights=random"], detectors=["knn"])


def test_a_python_without_anomalib_is_refused(tmp_path: Path) -> None:
    detector = create("padim", configure("padim", {"backbone": {"weights": "random"}}))
    images = np.zeros((2, 3, 224, 224), np.uint8)
    with (
        pytest.raises(ConfigError, match=f"^--anomalib {sys.executable} does not fit anomalib's"),
        _anomalib(sys.executable, detector, images, tmp_path, 1),
    ):
        pass
