"""A training whose reconstructions show nothing of the images says so."""

from pathlib import Path
from typing import Any

import pytest
import torch

from ganad.detectors import find
from ganad.report.training_page import gather_training_page
from ganad.training.fit import fit
from ganad.training.flat import why_flat
from tests.ganad.detectors.small import GRADIENT, MAPS, digits, small

REBUILDING = [name for name in GRADIENT if find(name).rebuilds]


def signs(name: str, out: Path, **keys: Any) -> tuple[list[str], str]:
    """What a training on digits reports at its end, and the number on its page."""
    values = {"image_size": 32, "channels": 1, "batch_size": 16, "width": 4, "latent": 10, **keys}
    model = fit(name, digits(80), out=str(out), precision="float32", **values)
    events = [entry["event"] for entry in model.training["history"] if "event" in entry]
    flat = [event for event in events if event.startswith("collapse: held-out images are rebuilt")]
    return flat, gather_training_page(str(out)).facts["signs of collapse"]


@pytest.mark.parametrize("name", ["ganomaly", "skip_ganomaly", "autoencoder"])
def test_grey_rectangles_are_a_sign_of_collapse_and_digits_are_none(
    name: str, tmp_path: Path
) -> None:
    flat, count = signs(name, tmp_path / "flat", epochs=1, learning_rate=1e-12)
    assert len(flat) == 1
    assert count == "1"
    assert signs(name, tmp_path / "good", epochs=12, learning_rate=5e-3) == ([], "0")


@pytest.mark.parametrize("name", REBUILDING)
def test_every_detector_that_rebuilds_images_is_watched(name: str) -> None:
    untrained = small(name).eval()
    images = torch.from_numpy(digits(8))
    assert "rebuilt no better than by their own flat colour" in (why_flat(untrained, images) or "")


def test_maps_and_windows_are_watched() -> None:
    mapped = small("ganomaly", **MAPS).eval()
    images = torch.from_numpy(digits(8)).expand(-1, 3, -1, -1)
    assert why_flat(mapped, images)
    assert why_flat(mapped, mapped.represent(images))
    windows = small("ganomaly", image_size=64, patch={"size": 32}).eval()
    assert why_flat(windows, torch.from_numpy(digits(4, size=64)))


def test_blank_images_and_samples_are_not_judged() -> None:
    blank = torch.full((4, 1, 32, 32), 90, dtype=torch.uint8)
    assert why_flat(small("autoencoder").eval(), blank) is None
    assert why_flat(small("acgan").eval(), torch.from_numpy(digits(8))) is None
