"""Held-out images: their scores, and what is kept of them so that images can be added."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ganad.detectors import configure, create
from ganad.detectors.statistics.gaussian import Gaussian
from ganad.errors import ModelError
from ganad.heat import Heat
from ganad.model import Model
from ganad.training.held_out import HeldOut


def detector(**keys: Any) -> Gaussian:
    values = {"image_size": 32, "backbone": {"name": "test_efficientnet", "weights": "random"}}
    made = create("gaussian", configure("gaussian", {**values, **keys}))
    assert isinstance(made, Gaussian)
    return made


def images(num: int, size: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (num, 3, size, size), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("keys", [{}, {"image_size": 64, "patch": {"size": 32, "pool": "max"}}])
def test_features_score_as_their_images_do(keys: dict[str, Any], tmp_path: Path) -> None:
    gaussian = detector(**keys)
    some = images(40, gaussian.config.image_size)
    gaussian.finish(gaussian.observe(gaussian.begin(some), some))
    kept = HeldOut.of(gaussian, some, list(map(str, range(40))))
    folder = Model(gaussian, kept.calibration()).save(str(tmp_path), kept.files())
    read = HeldOut.read(folder)
    assert read is not None
    assert read.ids == kept.ids
    for level, vectors in kept.vectors.items():
        np.testing.assert_array_equal(read.vectors[level], vectors)
    np.testing.assert_array_equal(read.scores, gaussian.score(some).score)
    np.testing.assert_array_equal(read.rescored(gaussian).scores, read.scores)
    file = tmp_path / "held_out.parquet"
    file.write_bytes(file.read_bytes()[:-100] + bytes(100))
    with pytest.raises(ModelError, match=r"is damaged \(held_out.parquet has changed\)"):
        HeldOut.read(folder)


def test_of_too_many_features_a_sample_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def part(ids: range) -> HeldOut:
        vectors = {"a": np.array([[i, i] for i in ids], np.float32)}
        return HeldOut(tuple(f"image {i}" for i in ids), np.array(ids, float), vectors)

    monkeypatch.setattr("ganad.training.held_out.KEPT_BYTES", 8 * 10)
    whole = HeldOut.merge([part(range(100))])
    pieces = HeldOut.merge([HeldOut.merge([part(range(60))]), part(range(60, 100))])
    assert len(whole.ids) == 10
    assert whole.ids == pieces.ids
    assert [f"image {int(i)}" for i, _ in whole.vectors["a"]] == list(whole.ids)
    assert [f"image {int(score)}" for score in whole.scores] == list(whole.ids)


def test_an_image_without_a_finite_score_calibrates_nothing() -> None:
    gaussian = detector()
    some = images(8)
    gaussian.finish(gaussian.observe(gaussian.begin(some), some))
    level = next(iter(gaussian.levels.values()))
    level.mean[0] = torch.nan
    assert HeldOut.of(gaussian, some, list("abcdefgh")).calibration() is None


def test_parts_without_vectors_leave_scores_alone() -> None:
    with_vectors = HeldOut(("a",), np.array([1.0]), {"x": np.ones((1, 3), np.float32)})
    both = HeldOut.merge([with_vectors, HeldOut(("b",), np.array([2.0]))])
    assert both.ids == ("a", "b")
    assert not both.vectors
    assert not both.files()


def test_the_heat_of_normal_images_is_kept_whatever_the_pieces(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gaussian = detector()
    some, ids = images(40), [f"image {i}" for i in range(40)]
    gaussian.finish(gaussian.observe(gaussian.begin(some), some))
    whole = HeldOut.of(gaussian, some, ids).heat
    maps = gaussian.score(some, ids, maps=True).maps
    assert maps is not None
    np.testing.assert_allclose(whole.peaks, maps.max((1, 2)))
    np.testing.assert_allclose(whole.medians, np.median(maps, (1, 2)))
    monkeypatch.setattr("ganad.heat.SAMPLE", 10)
    few = HeldOut.of(gaussian, some, ids)
    assert 0 < len(few.heat) < 25
    parts = [
        HeldOut.of(gaussian, some[k : k + 8], ids[k : k + 8], total=40) for k in range(0, 40, 8)
    ]
    merged = HeldOut.merge(parts)
    assert merged.heat.ids == few.heat.ids
    folder = Model(gaussian, few.calibration()).save(str(tmp_path), few.files())
    read = Heat.read(folder)
    assert read is not None
    assert read.ids == few.heat.ids
    np.testing.assert_array_equal(read.peaks, few.heat.peaks)
    file = tmp_path / "heat.parquet"
    file.write_bytes(file.read_bytes()[:-50] + bytes(50))
    with pytest.raises(ModelError, match=r"is damaged \(heat.parquet has changed\)"):
        Heat.read(folder)


def test_a_normal_image_exceeds_a_level_as_rarely_as_it_says() -> None:
    peaks = np.arange(1.0, 200.0)
    heat = Heat(tuple(map(str, peaks)), peaks / 2, peaks)
    assert heat.level(0.01) == 198  # a further image is above it with probability 2/200 at most
    assert heat.level(0.001) == 199  # the largest there is
    assert heat.middle == 50
