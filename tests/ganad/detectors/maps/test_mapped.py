"""What must hold for every detector that is fitted to maps in one pass."""

from typing import Any

import numpy as np
import pytest
import torch

from ganad.detectors import configure, create
from ganad.detectors.maps.mapped import MapDetector, spreading
from ganad.model import Model, load

KEYS: dict[str, dict[str, Any]] = {
    "padim": {"num_channels": 20},
    "patchcore": {"entries": 200},
    "dictionary": {"entries": 50},
    "deep_anomaly": {"hidden": 20, "steps": 100},
}
OUTLIERS = ["padim", "patchcore", "deep_anomaly"]
"""These see noise in smooth images; others are tried on what they are good at."""
EXACT = ["padim", "patchcore"]
"""These draw no places by a hash of an image's pixels, which differs between grey and colour."""
SIZE = 64


def build(name: str, **values: Any) -> MapDetector[Any, Any]:
    levels = {"levels": ["layer1", "layer2"], "grid": 8}
    backbone = {"name": "resnet18", "weights": "random", **levels}
    values = {"image_size": SIZE, "backbone": backbone, **KEYS[name], **values}
    detector = create(name, configure(name, values))
    assert isinstance(detector, MapDetector)
    return detector


def draw(num: int, seed: int = 0, channels: int = 3) -> torch.Tensor:
    """Smooth coloured noise: images that differ from one another as a whole."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(num, channels, 4, 4, generator=generator)
    fine = torch.rand(num, channels, SIZE, SIZE, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, SIZE, mode="bilinear")
    return (255 * (0.8 * smooth + 0.2 * fine)).to(torch.uint8)


def fitted(name: str, images: torch.Tensor, **values: Any) -> MapDetector[Any, Any]:
    detector = build(name, **values)
    detector.finish(detector.observe(detector.begin(images[:32]), images))
    return detector


@pytest.fixture(scope="module", params=KEYS)
def detector(request: pytest.FixtureRequest) -> MapDetector[Any, Any]:
    return fitted(request.param, draw(40))


def test_a_score_depends_on_the_model_and_that_image_alone(detector: MapDetector[Any, Any]) -> None:
    images = draw(40, seed=1)
    together = detector.score(images, maps=True)
    for size in (1, 7):
        part = detector.score(images[:size], maps=True)
        np.testing.assert_allclose(part.score, together.score[:size], rtol=1e-5)
        np.testing.assert_allclose(part.maps, together.maps[:size], rtol=1e-3, atol=1e-5)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(2))
    shuffled = detector.score(images[order])
    np.testing.assert_allclose(shuffled.score, together.score[order.numpy()], rtol=1e-5)
    np.testing.assert_allclose(detector.score(images).score, together.score, rtol=1e-6)


@pytest.mark.parametrize("detector", OUTLIERS, indirect=True)
def test_a_defect_raises_the_score_and_is_hottest_where_it_is(
    detector: MapDetector[Any, Any],
) -> None:
    images = draw(6, seed=1)
    broken = images.clone()
    noise = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    broken[:, :, 40:56, 8:24] = (255 * noise).byte()
    before, after = detector.score(images, maps=True), detector.score(broken, maps=True)
    assert (after.score > before.score).all()
    assert before.maps is not None
    assert after.maps is not None
    assert after.maps.shape == (6, SIZE, SIZE)
    assert after.maps.dtype == np.float32
    for one in after.maps - before.maps:
        top, left = np.unravel_index(one.argmax(), one.shape)
        assert 36 <= top < 60
        assert 4 <= left < 28


def test_a_saved_model_scores_alike(detector: MapDetector[Any, Any], tmp_path: Any) -> None:
    images = draw(3, seed=1)
    again = load(Model(detector, None).save(str(tmp_path)))
    # The loaded numbers lie elsewhere in memory, and vector code rounds by alignment.
    expected = detector.score(images).score
    np.testing.assert_allclose(again.score(images).score, expected, rtol=1e-6)
    assert {**again.detector.facts(), "weights": ""} == {**detector.facts(), "weights": ""}
    assert detector.facts()["num_images"] == 40


@pytest.mark.parametrize("name", KEYS)
def test_an_unfitted_model_can_be_saved_and_gives_no_number(name: str, tmp_path: Any) -> None:
    again = load(Model(build(name), None).save(str(tmp_path)))
    assert np.isnan(again.score(draw(2)).score).all()


@pytest.mark.parametrize("name", KEYS)
def test_windows_are_scored_and_their_maps_put_together(name: str) -> None:
    images = draw(20)
    model = fitted(name, images, image_size=SIZE, patch={"size": 32})
    scores = model.score(images[:2], maps=True)
    assert scores.maps is not None
    assert scores.maps.shape == (2, SIZE, SIZE)
    windows = model.score_inputs(model.patches(images[:2]))
    np.testing.assert_allclose(scores.score, windows.score.reshape(2, 4).max(1), rtol=1e-5)


@pytest.mark.parametrize("name", KEYS)
def test_the_score_can_be_the_mean_over_all_places(name: str) -> None:
    images = draw(20)
    model = fitted(name, images, image_score="mean")
    places, _ = model.score_places(model.raw_maps(images[:2]))
    np.testing.assert_allclose(model.score(images[:2]).score, places.mean((1, 2)), rtol=1e-4)


@pytest.mark.parametrize("name", EXACT)
def test_grey_images_are_scored_as_three_equal_channels(name: str) -> None:
    images = draw(10, channels=1)
    grey = fitted(name, images, channels=1)
    colour = fitted(name, images.expand(-1, 3, -1, -1).contiguous())
    np.testing.assert_allclose(
        grey.score(images[:3]).score,
        colour.score(images[:3].expand(-1, 3, -1, -1).contiguous()).score,
        rtol=1e-3,
    )


def test_a_map_is_resized_bilinearly_and_smoothed() -> None:
    rows = spreading(4, 16, 0)
    values = torch.rand(1, 1, 4, 4)
    expected = torch.nn.functional.interpolate(values, 16, mode="bilinear")
    torch.testing.assert_close(rows @ values[0, 0] @ rows.T, expected[0, 0])
    smooth = spreading(4, 16, 2.0)
    torch.testing.assert_close(smooth.sum(1), torch.ones(16))
    assert (smooth @ values[0, 0] @ smooth.T).std() < expected.std()
