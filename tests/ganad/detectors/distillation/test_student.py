import math
from typing import Any

import numpy as np
import pytest
import torch

from ganad import fit, load
from ganad.detectors import configure
from ganad.detectors.distillation.student import Network, PlaceScale
from ganad.errors import ConfigError
from ganad.training.maps import can_keep_maps, keep_maps
from tests.ganad.detectors.small import (
    BACKBONE,
    MAPS,
    InMemory,
    losses_of,
    num_parameters,
    prepared,
    random_images,
    small,
)


class Answers(torch.nn.Module):
    """A student that says the same of every place."""

    def __init__(self, *values: float) -> None:
        super().__init__()
        self.values = torch.nn.Parameter(torch.tensor(values))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.values[None, :, None, None].expand(len(images), -1, 1, 2)


def with_answers(*answers: tuple[float, ...]) -> Any:
    """A detector whose teacher says (1, 2) at the first place and (0, 0) at the second."""
    model = small("student")
    model.students = torch.nn.ModuleList(Answers(*one) for one in answers)
    says = torch.tensor([[[1.0, 0.0]], [[2.0, 0.0]]])
    model.targets = lambda images: says.expand(len(images), -1, -1, -1)
    return model


def test_loss_by_hand() -> None:
    model = with_answers((1.0, 0.0), (3.0, 2.0))
    # ‖S − ŷ‖² at the two places: 4 and 1 for the first student, 4 and 13 for the second.
    loss = losses_of(model, torch.zeros(2, 1, 32, 32))["students"]
    assert loss.item() == pytest.approx(2.5 + 8.5)


def test_score_by_hand() -> None:
    model = with_answers((1.0, 0.0), (3.0, 2.0))
    with torch.no_grad():
        places = model.score_places(torch.zeros(1, 1, 32, 32), ["a"])
    # S̄ = (2, 1); e = 1 + 1 and 4 + 1; v = (1 + 13) / 2 − 5.
    np.testing.assert_allclose(places["error"], [[[2.0, 5.0]]])
    np.testing.assert_allclose(places["variance"], [[[2.0, 2.0]]])
    model.scale.mean.copy_(torch.tensor([1.0, 1.0]))
    model.scale.spread.copy_(torch.tensor([2.0, 0.5]))
    scores = model.score(torch.zeros(1, 1, 32, 32, dtype=torch.uint8), maps=True)
    # (2 − 1)/2 + (2 − 1)/.5 and (5 − 1)/2 + (2 − 1)/.5; the worst place is the second.
    np.testing.assert_allclose(scores.score, [4.0])
    assert scores.maps is not None
    np.testing.assert_allclose(scores.maps[0][:, [0, -1]], [[2.5, 4.0]] * 32)
    assert scores.terms["error"].item() == pytest.approx(3.5)
    assert scores.terms["error_spread"].item() == pytest.approx(1.5)


def test_places_are_scaled_by_all_those_of_normal_images() -> None:
    rng = np.random.default_rng(0)
    error, variance = rng.gamma(2.0, size=(2, 5, 4, 4)) * [[[[1.0]]], [[[9.0]]]]
    scale = PlaceScale()
    places = {"error": torch.from_numpy(error), "variance": torch.from_numpy(variance)}
    terms = scale.score(places, 1.0, None).terms
    scale.fit({name: values.numpy() for name, values in terms.items()})
    np.testing.assert_allclose(scale.mean, [error.mean(), variance.mean()])
    np.testing.assert_allclose(scale.spread, [error.std(), variance.std()])
    found = scale.score(places, 1 / 16, None).score
    expected = (error - error.mean()) / error.std() + (variance - variance.mean()) / variance.std()
    np.testing.assert_allclose(found, expected.max((1, 2)))


def test_parameters_and_first_weights() -> None:
    model = small("student", channels=3, width=16)
    # 5×5 3→4, 3×3 4→8, 8→16, then 16→16 twice, 1×1 16→448.
    assert num_parameters(model.students[0]) == 304 + 296 + 1168 + 2 * 2320 + 7616
    first = [student.head.weight for student in model.students]
    assert len(first) == 3
    assert not torch.equal(first[0], first[1])
    again = small("student", channels=3, width=16)
    assert torch.equal(first[2], again.students[2].head.weight)


@pytest.mark.parametrize(("size", "grid"), [(32, 4), (100, 12), (48, 20), (16, 16)])
def test_answers_have_the_places_of_the_teacher(size: int, grid: int) -> None:
    config = configure("student", {"backbone": BACKBONE, "image_size": size, "width": 8})
    answers = Network(config, 5, grid)(torch.zeros(2, 3, size, size))
    assert answers.shape == (2, 5, grid, grid)


def test_a_student_sees_65_pixels_around_a_place() -> None:
    config = configure("student", {"image_size": 256, "width": 8})
    network = Network(config, 1, 32).double()
    images = torch.zeros(1, 3, 256, 256, dtype=torch.float64, requires_grad=True)
    network(images)[0, 0, 16, 16].backward()
    assert images.grad is not None
    rows = images.grad.abs().sum((0, 1, 3)).nonzero().flatten()
    assert 1 + rows.max() - rows.min() <= 65


def test_students_see_pixels_and_maps_are_not_kept() -> None:
    model = small("student")
    images = random_images(2)
    assert not can_keep_maps(model)
    assert keep_maps(model, InMemory(images)).take(np.arange(2)).dtype == np.uint8
    assert torch.equal(model.represent(images), images)
    assert torch.equal(model.inputs(images), prepared(images))
    assert model.rebuild(images) is None


def test_a_fit_standardises_learns_and_survives_saving(tmp_path: Any) -> None:
    rng = np.random.default_rng(0)
    stripes = np.tile([40, 200], 16)[None, None, None].repeat(32, 2)
    images = (stripes + rng.normal(0, 8, (60, 1, 32, 32))).clip(0, 255).astype(np.uint8)
    keys = {"image_size": 32, "channels": 1, "width": 8, "backbone": MAPS["backbone"]}
    keys |= {"epochs": 4, "batch_size": 4, "learning_rate": 5e-3, "precision": "float32"}
    model = fit("student", images, out=str(tmp_path / "model"), **keys)
    history = [one["regression"] for one in model.training["history"]]
    assert history[-1] < 0.5 * history[0]
    channels = model.detector.maps.channels  # type: ignore[union-attr]
    assert history[0] < 4 * channels
    assert not torch.equal(model.detector.scale.spread, torch.ones(2))  # type: ignore[union-attr]
    odd = images[:4].copy()
    odd[:, :, 8:24, 8:24] = 120
    normal, found = model.score(images[:4]).score, model.score(odd, maps=True)
    assert found.score.min() > normal.max()
    assert math.isfinite(found.p_value[0])
    heat = np.stack([one for one in found.maps if one is not None])
    assert heat[:, 12:20, 12:20].mean() > heat[:, :4].mean()
    loaded = load(str(tmp_path / "model"))
    np.testing.assert_allclose(loaded.score(odd).score, found.score, rtol=1e-6)
    assert loaded.info["facts"]["weights"]


def test_one_student_has_no_variance_and_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^students=1 cannot be used for student"):
        configure("student", {"students": 1})
