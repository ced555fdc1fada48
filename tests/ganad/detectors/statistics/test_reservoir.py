"""The sample of features, and what must hold for every detector that keeps one."""

import pickle
from typing import Any

import numpy as np
import pytest
import torch

from ganad.detectors import configure, create
from ganad.detectors.statistics.reservoir import Reservoir, SampleDetector, priority
from ganad.errors import ConfigError, TrainingError
from ganad.model import Model, load

NAMES = ["knn", "gmm", "ocsvm"]
SIZE = 32


def build(name: str, **values: Any) -> SampleDetector[Any, Any]:
    backbone = {"name": "resnet18", "weights": "random", **values.pop("backbone", {})}
    config = configure(name, {"image_size": SIZE, "backbone": backbone, **values})
    detector = create(name, config)
    assert isinstance(detector, SampleDetector)
    return detector


def draw(num: int, seed: int = 0) -> torch.Tensor:
    """Smooth coloured noise: images that differ from one another as a whole."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(num, 3, 4, 4, generator=generator)
    fine = torch.rand(num, 3, SIZE, SIZE, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, SIZE, mode="bilinear")
    return (255 * (0.8 * smooth + 0.2 * fine)).to(torch.uint8)


def fitted(name: str, images: torch.Tensor, **values: Any) -> SampleDetector[Any, Any]:
    detector = build(name, **values)
    detector.finish(detector.observe(detector.begin(images), images))
    return detector


@pytest.fixture(scope="module", params=NAMES)
def detector(request: pytest.FixtureRequest) -> SampleDetector[Any, Any]:
    return fitted(request.param, draw(70))


def reservoir(numbers: range, limit: int) -> Reservoir:
    """Of images that are told apart by their one feature."""
    priorities = [priority(np.full((3, 2, 2), number, np.uint8), 0) for number in numbers]
    vectors = {"stem": np.array([[number] for number in numbers], np.float32)}
    one = Reservoir(limit, len(numbers), np.array(priorities, np.uint64), vectors)
    return Reservoir.merge([one])


def test_a_sample_does_not_depend_on_pieces_or_their_order() -> None:
    whole = reservoir(range(200), 20)
    assert (len(whole), whole.num_seen) == (20, 200)
    pieces = [reservoir(range(start, start + 25), 20) for start in range(0, 200, 25)]
    for order in (pieces, pieces[::-1], [Reservoir.empty(20, {"stem": 1}), *pieces]):
        total = order[0]
        for piece in order[1:]:
            total = Reservoir.merge([total, piece])
        assert total.num_seen == 200
        np.testing.assert_array_equal(total.priorities, whole.priorities)
        np.testing.assert_array_equal(total.vectors["stem"], whole.vectors["stem"])


def test_a_sample_is_drawn_from_all_images_by_the_seed() -> None:
    chosen = reservoir(range(250), 100).vectors["stem"][:, 0]
    # The mean of 100 out of 0..249 has the standard deviation 5.6.
    assert abs(chosen.mean() - 124.5) < 4 * 5.6
    image = np.zeros((3, 2, 2), np.uint8)
    assert priority(image, 0) != priority(image, 1)


def test_a_score_depends_on_its_image_alone(detector: SampleDetector[Any, Any]) -> None:
    images = draw(64, seed=2)
    whole = detector.score(images)
    assert whole.score.dtype == np.float64
    assert whole.maps is None
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(detector.score(images[order]).score, whole.score[order], rtol=1e-5)
    for size in (1, 7):
        scores = [detector.score(images[i : i + size]).score for i in range(0, 21, size)]
        np.testing.assert_allclose(np.concatenate(scores), whole.score[:21], rtol=1e-5)


def test_scoring_changes_nothing_in_the_model(detector: SampleDetector[Any, Any]) -> None:
    before = {key: value.clone() for key, value in detector.state_dict().items()}
    detector.train()
    detector.score(draw(5))
    assert detector.training
    assert not detector.extractor.network.training
    for key, value in detector.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_a_saved_model_scores_the_same_without_the_weights_file(
    detector: SampleDetector[Any, Any], tmp_path: Any
) -> None:
    path = tmp_path / "weights.pth"
    torch.save(detector.extractor.network.state_dict(), path)
    images, test = draw(40), draw(9, seed=5)
    first = Model(fitted(detector.name, images, backbone={"weights": str(path)}), None)
    path.unlink()
    first.save(str(tmp_path / "model"))
    again = load(str(tmp_path / "model"))
    assert again.id == first.id
    np.testing.assert_array_equal(again.score(test).score, first.score(test).score)
    assert again.detector.facts() == first.detector.facts()
    with pytest.raises(ConfigError, match="is not a file"):
        create(detector.name, first.detector.config)


def test_an_unfitted_model_can_be_saved_and_gives_no_number(
    detector: SampleDetector[Any, Any], tmp_path: Any
) -> None:
    again = load(Model(build(detector.name), None).save(str(tmp_path)))
    assert np.isnan(again.score(draw(2)).score).all()
    assert list(again.detector.facts()) == ["weights", "weights_digest"]


def test_vectors_of_another_width_are_not_loaded(detector: SampleDetector[Any, Any]) -> None:
    state = detector.state_dict()
    key = next(key for key in state if key.endswith(("stem.vectors", "stem.means", "stem.support")))
    state[key] = state[key][:, 1:]
    with pytest.raises(RuntimeError, match="size mismatch for fits.stem"):
        build(detector.name).load_state_dict(state)


@pytest.mark.parametrize("max_images", [10_000, 30])
@pytest.mark.parametrize("name", NAMES)
def test_pieces_in_any_order_make_the_same_model(name: str, max_images: int) -> None:
    images = draw(70)
    whole = fitted(name, images, max_images=max_images)
    other = build(name, max_images=max_images)
    start = other.begin(images[:3])
    pieces = [
        pickle.loads(pickle.dumps(other.observe(start, images[torch.from_numpy(piece)])))
        for piece in np.split(np.random.default_rng(0).permutation(70), [5, 41])
    ]
    assert start.num_seen == 0
    other.finish(other.merge([other.merge(pieces[:2]), pieces[2]]))
    assert Model(other, None).id == Model(whole, None).id
    facts = other.facts()
    assert (facts["num_images"], facts["num_kept"]) == (70, min(70, max_images))


def test_a_feature_that_is_not_finite_gives_nan_and_no_fit(
    detector: SampleDetector[Any, Any],
) -> None:
    broken = fitted(detector.name, draw(40))
    with torch.no_grad():
        next(broken.extractor.network.layer2.parameters()).fill_(torch.inf)
    broken.load_state_dict(broken.state_dict())  # so that it looks at its weights again
    scores = broken.score(draw(3))
    assert np.isnan(scores.score).all()
    assert np.isfinite(scores.terms["layer1"]).all()
    with pytest.raises(TrainingError, match="features at layer2 that are not finite"):
        broken.observe(broken.begin(draw(4)), draw(4))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("images", "message"),
    [
        (draw(1), "1 training images are too few for a "),
        (
            draw(1).expand(20, -1, -1, -1),
            "the features at stem are the same for all 20 training images",
        ),
    ],
)
def test_images_that_make_no_model_are_refused(
    name: str, images: torch.Tensor, message: str
) -> None:
    with pytest.raises(TrainingError) as error:
        fitted(name, images, **({"k": 1} if name == "knn" else {}))
    assert str(error.value).startswith(f"{name}: {message}")
