import pytest
import timm
import torch

from ganad.errors import ConfigError
from ganad.features.backbone import FeatureExtractor, places, pool
from ganad.features.records import native_size


def build(name: str, size: int = 32, **options) -> FeatureExtractor:
    return FeatureExtractor(name, size, **{"weights": "random", **options})


def images(num: int, size: int = 32, channels: int = 3, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(num, channels, size, size, generator=generator) * 2 - 1


BLOCKS = [f"blocks.{i}" for i in range(12)]
LEVELS = {
    "efficientnet_b0": dict(
        zip(
            ["stem", *BLOCKS[:7], "head"],
            [32, 16, 24, 40, 80, 112, 192, 320, 1280],
            strict=True,
        )
    ),
    "tf_efficientnet_b4": dict(
        zip(
            ["stem", *BLOCKS[:7], "head"],
            [48, 24, 32, 56, 112, 160, 272, 448, 1792],
            strict=True,
        )
    ),
    "tf_efficientnetv2_b0": dict(
        zip(["stem", *BLOCKS[:6], "head"], [32, 16, 32, 48, 96, 112, 192, 1280], strict=True)
    ),
    "resnet18": {"stem": 64, "layer1": 64, "layer2": 128, "layer3": 256, "layer4": 512},
    "regnety_002": {"stem": 32, "s1": 24, "s2": 56, "s3": 152, "s4": 368},
    "convnext_atto": {
        "stem": 40,
        "stages.0": 40,
        "stages.1": 80,
        "stages.2": 160,
        "stages.3": 320,
    },
    "mobilenetv3_small_050": dict(
        zip(["stem", *BLOCKS[:6]], [16, 8, 16, 24, 24, 48, 288], strict=True)
    ),
    "vit_tiny_patch16_224": dict.fromkeys(BLOCKS, 192),
    "swin_tiny_patch4_window7_224": {
        "layers.0": 96,
        "layers.1": 192,
        "layers.2": 384,
        "layers.3": 768,
    },
    "densenet121": {
        "features.norm0": 64,
        "features.denseblock1": 256,
        "features.denseblock2": 512,
        "features.denseblock3": 1024,
        "features.norm5": 1024,
    },
}


@pytest.mark.parametrize("name", LEVELS)
def test_every_stage_is_a_level_of_the_right_width(name):
    size = 224 if name.endswith("224") else 64
    extractor = build(name, size)
    found = extractor(images(1, size))
    assert {level: vectors.shape for level, vectors in found.items()} == {
        level: (1, width) for level, width in LEVELS[name].items()
    }
    assert list(found) == list(LEVELS[name]) == list(extractor.dimensions)
    assert all(vectors.dtype == torch.float32 for vectors in found.values())


def test_a_level_is_the_mean_over_the_map_of_the_stage():
    extractor = build("test_efficientnet", 64)
    batch = images(3, 64)
    network = extractor.network
    x = (batch + 1) / 2
    x = (x - extractor.mean) / extractor.std
    x = network.bn1(network.conv_stem(x))
    expected = {"stem": x}
    for i, block in enumerate(network.blocks):
        x = block(x)
        expected[f"blocks.{i}"] = x
    expected["head"] = network.bn2(network.conv_head(x))
    for level, vectors in extractor(batch).items():
        torch.testing.assert_close(vectors, expected[level].mean((2, 3)), rtol=1e-4, atol=1e-5)


def pooled(output, num: int, prefix: int, channels_last: bool) -> torch.Tensor:
    maps = places(output, num, prefix, channels_last)
    assert maps is not None
    return pool(maps)


def test_maps_and_tokens_are_told_apart():
    values = torch.rand(2, 5, 4, 4)
    tokens = values.flatten(2).transpose(1, 2)
    with_class_token = torch.cat([torch.full((2, 1, 5), 1e6), tokens], 1)
    for output in (values, values.permute(0, 2, 3, 1), tokens, with_class_token):
        (found,) = places(output, 2, 1, False)
        assert torch.equal(found, values)
    cube = torch.rand(2, 4, 4, 4)
    assert torch.equal(places(cube, 2, 0, False)[0], cube)
    assert torch.equal(places(cube, 2, 0, True)[0], cube.permute(0, 3, 1, 2))
    assert places(torch.rand(7, 5, 4, 4), 2, 0, False) is None
    assert places("no tensor", 2, 0, False) is None


def test_a_stage_of_several_parts_is_pooled_over_each():
    values = torch.rand(2, 5, 4, 4)
    mean = values.mean((2, 3))
    torch.testing.assert_close(pooled([values, values], 2, 0, False), torch.cat([mean, mean], 1))
    torch.testing.assert_close(pooled((values, torch.rand(2, 1, 5)), 2, 0, False), mean)
    torch.testing.assert_close(pooled(torch.rand(2, 6, 5), 2, 1, False).shape, (2, 5))
    vectors = torch.rand(2, 5)
    torch.testing.assert_close(pooled(vectors, 2, 0, False), vectors)


@pytest.mark.parametrize("name", ["test_efficientnet", "test_vit", "resnet18"])
def test_pooled_vectors_are_the_means_of_the_maps(name):
    extractor = build(name, 96)
    batch = images(2, 96)
    found = extractor.maps(batch)
    for level, vectors in extractor(batch).items():
        assert torch.equal(pool(found[level]), vectors)
        assert found[level][0].shape[2:] == (extractor.sides[level],) * 2


def test_the_network_runs_no_further_than_the_last_level_used():
    extractor = build("resnet18", levels=["layer2"])
    whole = build("resnet18")(images(2))
    torch.testing.assert_close(extractor(images(2))["layer2"], whole["layer2"])
    (running,) = extractor._fast
    running.layer3.register_forward_pre_hook(lambda *_: pytest.fail("layer3 has run"))
    extractor(images(2))


def test_levels_can_be_chosen_and_come_in_the_order_of_the_network():
    extractor = build("resnet18", levels=["layer3", "stem"])
    assert list(extractor(images(2))) == ["stem", "layer3"]


@pytest.mark.parametrize("name", ["test_efficientnet", "test_convnext", "resnet18"])
def test_an_image_has_the_same_features_in_any_batch(name):
    extractor = build(name)
    batch = images(64)
    with torch.no_grad():
        alone = [extractor(batch[i : i + 1]) for i in range(7)]
        seven, all_of_them = extractor(batch[:7]), extractor(batch)
    for level in extractor.dimensions:
        single = torch.cat([one[level] for one in alone])
        scale = all_of_them[level].abs().max()
        assert (single - all_of_them[level][:7]).abs().max() <= 1e-5 * scale
        assert (seven[level] - all_of_them[level][:7]).abs().max() <= 1e-5 * scale


def test_training_mode_moves_no_statistics():
    extractor = build("test_efficientnet").train()
    before = {key: value.clone() for key, value in extractor.state_dict().items()}
    extractor(images(8))
    assert not any(module.training for module in extractor.modules())
    assert not any(parameter.requires_grad for parameter in extractor.parameters())
    for key, value in extractor.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_grey_images_are_taken_as_three_equal_channels():
    extractor = build("resnet18")
    grey = images(2, channels=1)
    for ours, theirs in zip(
        extractor(grey).values(), extractor(grey.expand(-1, 3, -1, -1)).values(), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_normalisation_is_the_networks_own():
    assert build("tf_efficientnet_b0.ap_in1k").mean.flatten().tolist() == [0.5, 0.5, 0.5]
    mean = build("tf_efficientnet_b0.aa_in1k").mean.flatten()
    torch.testing.assert_close(mean, torch.tensor([0.485, 0.456, 0.406]))


def test_random_weights_follow_from_the_seed_alone():
    torch.manual_seed(1)
    first = build("test_efficientnet", seed=0).digest
    state = torch.get_rng_state()
    second = build("test_efficientnet", seed=0).digest
    assert first == second
    assert torch.equal(state, torch.get_rng_state())
    assert build("test_efficientnet", seed=1).digest != first


def test_a_vision_transformer_takes_another_size_than_its_own():
    network = timm.create_model("test_vit", pretrained=False)
    extractor = build("test_vit", 96)
    assert native_size("test_vit") == 160
    assert extractor(images(2, 96))["blocks.0"].shape == (2, network.embed_dim)


WRONG = {
    "backbone.name=tf_efficientnet_b44 is not a network that timm has: "
    "did you mean tf_efficientnet_b4,": {"name": "tf_efficientnet_b44"},
    "backbone.name=resnet18.foo: timm has no weights of resnet18 with the tag foo: use one of a1": {
        "name": "resnet18.foo"
    },
    "backbone.levels=layer9 is not a level of resnet18: "
    "use some of stem, layer1, layer2, layer3, layer4": {"name": "resnet18", "levels": ["layer9"]},
    "image_size=100 does not suit test_vit (its patches are 16 pixels wide): "
    "set image_size to 160": {"name": "test_vit", "size": 100},
    "image_size=8 does not suit inception_v3": {"name": "inception_v3", "size": 8},
    "backbone.name=twins_svt_small has no stages": {"name": "twins_svt_small", "size": 224},
    "backbone.weights=nowhere.pth is not a file": {"name": "resnet18", "weights": "nowhere.pth"},
    "backbone.name=vit_small_patch16_18x2_224: timm has no weights for it": {
        "name": "vit_small_patch16_18x2_224",
        "weights": None,
    },
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_settings_are_told_in_one_sentence(message):
    with pytest.raises(ConfigError) as error:
        build(**WRONG[message])
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)
