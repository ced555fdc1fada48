import numpy as np
import pytest
import torch
from torch.nn import functional

from ganad.detectors.maps.config import PatchcoreBackbone
from ganad.errors import ConfigError
from ganad.features.maps import ChannelMoments, FeatureMaps, on_grid, smooth
from ganad.features.settings import MapBackbone


def build(name: str = "resnet18", size: int = 64, **keys) -> FeatureMaps:
    return FeatureMaps(MapBackbone(name=name, weights="random", **keys), size)


def images(num: int, size: int = 64, channels: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(num, channels, size, size, generator=generator) * 2 - 1


CHOSEN = {
    "resnet18": (["layer1", "layer2", "layer3"], 64 + 128 + 256),
    "tf_efficientnetv2_b0": (["blocks.1", "blocks.2", "blocks.4"], 32 + 48 + 112),
    "test_vit": (["blocks.5"], 64),
    "test_convnext": (["stages.0", "stages.1", "stages.2"], None),
}


@pytest.mark.parametrize("name", CHOSEN)
def test_the_last_stage_of_each_size_from_4_to_16_pixels_per_place_is_taken(name):
    maps = build(name)
    levels, channels = CHOSEN[name]
    assert list(maps.extractor.dimensions) == levels
    assert maps.channels == (channels or maps.channels)
    assert maps.grid == (4 if name == "test_vit" else 8)
    found = maps(images(2))
    assert found.shape == (2, maps.channels, maps.grid, maps.grid)
    assert found.dtype == torch.float32


def test_maps_are_the_stages_smoothed_on_one_grid():
    maps = build(levels=["layer1", "layer3"], grid=8)
    batch = images(3)
    (fine,), (coarse,) = maps.extractor.maps(batch).values()
    assert (fine.shape[-1], coarse.shape[-1]) == (16, 4)
    expected = torch.cat(
        [
            functional.avg_pool2d(smooth(fine), 2),
            functional.interpolate(smooth(coarse), (8, 8), mode="bilinear"),
        ],
        1,
    )
    torch.testing.assert_close(maps(batch), expected)


def test_patchcore_takes_coarser_stages_on_a_coarser_grid():
    maps = FeatureMaps(PatchcoreBackbone(name="resnet18", weights="random"), 64)
    assert list(maps.extractor.dimensions) == ["layer2", "layer3"]
    assert maps.grid == 4


def test_smoothing_counts_no_places_beyond_the_edge():
    torch.testing.assert_close(smooth(torch.ones(1, 2, 5, 5)), torch.ones(1, 2, 5, 5))
    spot = torch.zeros(1, 1, 3, 3)
    spot[0, 0, 0, 0] = 36
    expected = torch.tensor([[9.0, 6, 0], [6, 4, 0], [0, 0, 0]])
    torch.testing.assert_close(smooth(spot)[0, 0], expected)


def test_resizing_keeps_the_mean_of_a_map():
    values = torch.rand(2, 3, 4, 4)
    for side in (2, 4, 8, 12):
        torch.testing.assert_close(on_grid(values, side).mean((2, 3)), values.mean((2, 3)))


def test_moments_merge_in_any_order_to_those_of_all_places():
    values = torch.randn(6, 3, 5, 5) * torch.tensor([1.0, 10.0, 0.1])[:, None, None] + 7
    parts = [ChannelMoments.of(values[i : i + 2]) for i in (0, 2, 4)]
    flat = values.double().transpose(0, 1).flatten(1).numpy()
    for order in ([0, 1, 2], [2, 0, 1]):
        merged = ChannelMoments.merge([parts[i] for i in order])
        assert merged.n == 150
        np.testing.assert_allclose(merged.mean, flat.mean(1), rtol=1e-13)
        np.testing.assert_allclose(merged.std, flat.std(1), rtol=1e-13)


def test_standardised_maps_have_mean_0_and_spread_1_where_a_channel_varies():
    maps = build(levels=["layer1"])
    raw = maps(images(4))
    raw[:, 5] = 2.0
    assert maps.standardise(raw).isnan().all()
    maps.fit(ChannelMoments.of(raw))
    seen = maps.standardise(raw)
    torch.testing.assert_close(seen.mean((0, 2, 3)), torch.zeros(64), atol=1e-5, rtol=0)
    spread = torch.ones(64)
    spread[5] = 0
    torch.testing.assert_close(seen.std((0, 2, 3), correction=0), spread)
    raw[:, 5] += maps.scale.median()  # a change there counts like one elsewhere
    assert 0.5 < maps.standardise(raw)[:, 5].mean() < 2


def test_raw_maps_are_kept_by_all_that_they_depend_on():
    names = {
        build().identity,
        build(grid=4).identity,
        build(levels=["layer1"]).identity,
        FeatureMaps(MapBackbone(name="resnet18", weights="random"), 64, seed=1).identity,
    }
    assert len(names) == 4
    assert build().identity in names


def test_grey_images_and_other_batches_have_the_same_maps():
    maps = build()
    grey = images(9, channels=1)
    together = maps(grey)
    torch.testing.assert_close(maps(grey[:1].expand(-1, 3, -1, -1)), together[:1])


def test_levels_without_a_place_are_refused():
    with pytest.raises(ConfigError, match=r"backbone.levels=layer9 is not a level of resnet18"):
        build(levels=["layer9"])
    with pytest.raises(ConfigError, match="has no maps there: use stem, layer1"):
        build(levels=["layer4"], size=32)
