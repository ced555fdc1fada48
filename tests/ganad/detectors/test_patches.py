"""Detectors that see windows of images, tried on all of them."""

from typing import Any

import numpy as np
import pytest
import torch

from ganad import fit
from ganad.batch.config import PatchConfig
from ganad.batch.patches import cut, stitch
from ganad.detectors import DETECTORS, configure
from ganad.detectors.base import Detector, StatisticsDetector
from ganad.detectors.gradient import GradientDetector
from ganad.errors import ConfigError
from ganad.training.trainer import Trainer
from tests.ganad.detectors.small import (
    BACKBONE,
    GRADIENT,
    SMALL,
    InMemory,
    random_images,
    small,
)

WHOLE, SIDE = 80, 32
"""Windows of 32 pixels at 0, 32 and 48: the last ones overlap."""


def images(num: int, channels: int = 1) -> torch.Tensor:
    """Noise whose strength differs from place to place, so that windows differ in score."""
    noise = random_images(num, channels, WHOLE).float() - 128
    generator = torch.Generator().manual_seed(2)
    strength = torch.rand(num, 1, 5, 5, generator=generator)
    strength = torch.nn.functional.interpolate(strength, WHOLE, mode="bilinear")
    return (128 + noise * strength).to(torch.uint8)


def with_patches(name: str, **keys: Any) -> Detector[Any]:
    patch = {"size": SIDE, **{key: keys.pop(key) for key in ("pool", "top_k") if key in keys}}
    detector = small(name, image_size=WHOLE, patch=patch, **keys)
    return fitted(detector)


def fitted(detector: Detector[Any]) -> Detector[Any]:
    if isinstance(detector, StatisticsDetector):
        some = images(8, detector.config.channels)
        detector.finish(detector.observe(detector.begin(some), some))
    return detector


@pytest.mark.parametrize("name", DETECTORS)
def test_an_image_is_scored_by_its_worst_window(name: str) -> None:
    whole = with_patches(name)
    plain = small(name, image_size=SIDE)
    if isinstance(plain, StatisticsDetector):  # its buffers take their shapes from a fit
        windows = cut(images(8), PatchConfig(size=SIDE))
        plain.finish(plain.observe(plain.begin(windows), windows))
    plain.load_state_dict(whole.state_dict())
    some = images(3)
    found = whole.score(some, ["a", "b", "c"], maps=True)
    ids = [f"{name}#{k}" for name in "abc" for k in range(9)]
    by_window = plain.score(cut(some, PatchConfig(size=SIDE)), ids, maps=True)
    scores = by_window.score.reshape(3, 9)
    np.testing.assert_allclose(found.score, scores.max(1), rtol=1e-6)
    assert len(set(scores[0])) == 9, "windows that score alike would show nothing"
    worst = scores.argmax(1)
    for term, values in by_window.terms.items():
        expected = values.reshape(3, 9)[[0, 1, 2], worst]
        np.testing.assert_allclose(found.terms[term], expected, rtol=1e-6)
    if by_window.maps is not None:
        assert found.maps is not None
        expected = stitch(torch.from_numpy(by_window.maps)[:, None], WHOLE, PatchConfig(size=SIDE))
        np.testing.assert_allclose(found.maps, expected[:, 0].numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", DETECTORS)
def test_a_score_depends_on_the_model_and_that_image_alone(name: str) -> None:
    model = with_patches(name)
    some, ids = images(9), list("abcdefghi")
    together = model.score(some, ids).score
    for size in (1, 4):
        parts = [model.score(some[i : i + size], ids[i : i + size]).score for i in (0, size)]
        np.testing.assert_allclose(np.concatenate(parts), together[: 2 * size], rtol=1e-5, atol=0)
    backwards = model.score(some.flip(0), ids[::-1]).score
    np.testing.assert_allclose(backwards[::-1], together, rtol=1e-5, atol=0)


def test_groups_that_share_batches_do_not_show_in_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    model, some = with_patches("ganomaly"), images(9)
    whole = model.score(some, maps=True)
    monkeypatch.setattr("ganad.detectors.base.GROUP_PATCHES", 20)  # two images at a time
    cut_up = model.score(some, maps=True)
    np.testing.assert_allclose(cut_up.score, whole.score, rtol=1e-6)
    np.testing.assert_allclose(cut_up.maps, whole.maps, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("pool", "top_k"), [("mean", 1), ("top_k", 4)])
def test_pooled_scores_are_explained_by_their_terms(pool: str, top_k: int) -> None:
    model = with_patches("gaussian", channels=3, pool=pool, top_k=top_k)
    scores = model.score(images(4, 3))
    np.testing.assert_allclose(sum(scores.terms.values()), scores.score, rtol=1e-6)


@pytest.mark.parametrize("name", [name for name in GRADIENT if name != "student"])
def test_reconstructions_of_windows_are_put_together(name: str) -> None:
    model = with_patches(name)
    assert isinstance(model, GradientDetector)
    assert model.rebuild(images(2)).shape == (2, 1, WHOLE, WHOLE)


@pytest.mark.parametrize("name", GRADIENT)
def test_training_sees_windows_and_resumes(name: str) -> None:
    def trainer() -> Trainer:
        model = with_patches(name, epochs=2, precision="float32")
        assert isinstance(model, GradientDetector)
        return Trainer(model, InMemory(images(16)))

    whole = trainer()
    list(whole.run())
    first = trainer()
    steps = first.run()
    for _ in range(3):
        next(steps)
    second = trainer()
    second.restore(first.state())
    list(second.run())
    for key, value in whole.detector.state_dict().items():
        assert torch.equal(value, second.detector.state_dict()[key]), key


def test_windows_are_drawn_anew_in_each_epoch_and_many_from_an_image() -> None:
    patch = {"size": SIDE, "per_image": 3}
    model = small("autoencoder", image_size=WHOLE, patch=patch, epochs=2)
    assert isinstance(model, GradientDetector)
    trainer = Trainer(model, InMemory(images(16)))
    assert trainer.steps_per_epoch == 16 * 3 // 8
    taken = [
        np.concatenate([trainer._inputs(epoch, trainer._chosen(epoch, k)) for k in range(6)])
        for epoch in (0, 1, 0)
    ]
    assert taken[0].shape == (48, 1, SIDE, SIDE)
    assert np.array_equal(taken[0], taken[2])
    assert len(np.unique(np.concatenate(taken[:2]).reshape(96, -1), axis=0)) > 90
    counts = np.bincount(np.concatenate([trainer._chosen(0, k) for k in range(6)]) % 16)
    assert counts.tolist() == [3] * 16


def test_calibration_is_on_scores_of_images() -> None:
    some = images(64).numpy()
    keys = {"image_size": WHOLE, "channels": 1, "width": 4, "epochs": 1, "patch": {"size": SIDE}}
    model = fit("autoencoder", some, **keys)
    assert model.calibration is not None
    held_out = [int(one) for one in model.calibration.ids]
    again = model.score(some[held_out]).score
    np.testing.assert_allclose(again, model.calibration.scores, rtol=1e-5)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"patch": {"size": 64}, "image_size": 32}, "^patch.size=64 is larger than image_size=32"),
        ({"patch": {"size": 20}, "image_size": 100}, "^patch.size=20 does not halve down to 4"),
        ({"patch": {"size": 32, "stride": 33}}, "^patch.stride=33 would leave pixels unseen"),
        (
            {"patch": {"size": 32, "pool": "top_k", "top_k": 5}},
            "^patch.top_k=5 is more than the 4 patches",
        ),
        ({"patch": {"sise": 32}}, "^patch.sise is no key of ganomaly: did you mean patch.size"),
        ({"patch": {"stride": 32}}, "^patch.size is missing: set it"),
        ({"image_size": 20}, "^image_size=20 does not halve down to 4"),
    ],
)
def test_wrong_keys_are_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        configure("ganomaly", {"image_size": 64, **keys})


def test_large_images_need_patches_where_the_networks_are_small() -> None:
    with pytest.raises(
        ConfigError, match="^image_size=128 is not a size that this method takes: use 8 to 64"
    ):
        configure("pixelrnn", {"image_size": 128})
    assert configure("pixelrnn", {"image_size": 128, "patch": {"size": 32}}).input_size == 32


SURFACE = 512
DEFECT = slice(301, 311), slice(205, 215)
"""Ten pixels a side, in a window in the middle of the image."""


def surfaces(num: int, seed: int) -> torch.Tensor:
    """Grey surfaces with a fine grain, uint8 (num, 3, 512, 512)."""
    rng = np.random.default_rng(seed)
    grain = rng.normal(128, 6, (num, 1, SURFACE, SURFACE)).clip(0, 255).astype(np.uint8)
    return torch.from_numpy(np.broadcast_to(grain, (num, 3, SURFACE, SURFACE)).copy())


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("padim", SMALL["padim"]),
        ("patchcore", SMALL["patchcore"]),
        ("ganomaly", {"representation": "maps", "backbone": {**BACKBONE, "grid": 16}, "width": 4}),
    ],
)
def test_a_defect_of_ten_pixels_in_a_large_image_is_found_at_its_place(
    name: str, keys: dict[str, Any]
) -> None:
    keys = {**keys, "image_size": SURFACE, "patch": {"size": 128, "stride": 96}}
    if name == "ganomaly":
        keys |= {"terms": "residual", "latent": 4, "epochs": 1, "batch_size": 8}
    model = fit(name, surfaces(12, seed=0).numpy(), precision="float32", **keys)
    batches: list[int] = []
    score_batch = model.detector.score_batch

    def counted(images: torch.Tensor, ids: Any, maps: bool) -> Any:
        batches.append(len(images))
        return score_batch(images, ids, maps)

    model.detector.score_batch = counted  # type: ignore[method-assign]
    some = surfaces(3, seed=1)
    rows, columns = DEFECT
    some[2, :, rows, columns] = 20
    scores = model.detector.score(some, maps=True)
    assert len(batches) == -(-3 * 25 // model.detector.scoring_batch), "windows share batches"
    assert scores.score.argmax() == 2
    assert scores.maps is not None
    row, column = np.unravel_index(scores.maps[2].argmax(), (SURFACE, SURFACE))
    # Within the places of 8 pixels, pooled 3×3, that see the defect.
    assert abs(row - 306) <= 16
    assert abs(column - 210) <= 16
