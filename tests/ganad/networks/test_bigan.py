"""The networks of EGBAD and ALAD against the authors' layer lists."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ganad.detectors.gan import alad
from ganad.errors import ConfigError
from ganad.networks import bigan
from ganad.networks.options import BIGAN_SIZES, check_bigan_size


def num_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_egbad_parameter_counts_for_mnist() -> None:
    with torch.device("meta"):
        assert num_parameters(bigan.encoder(28, 1, 32, 200)) == 1_347_656
        assert num_parameters(bigan.generator(28, 1, 32, 200, 1024)) == 6_781_505
        assert num_parameters(bigan.JointDiscriminator(28, 1, 32, 200, 1024)) == 3_907_329


def test_alad_parameter_counts_for_cifar() -> None:
    # Added up by hand from the layers of the authors' code, biases and batch norm included.
    assert num_parameters(alad.encoder(32, 3, 128, 100)) == 3_449_572
    assert num_parameters(alad.generator(32, 3, 128, 100)) == 3_449_475
    assert num_parameters(alad.JointDiscriminator(32, 3, 128, 100)) == 11_859_329
    assert num_parameters(alad.ImagePairDiscriminator(32, 3, 128, "channels")) == 222_785
    assert num_parameters(alad.ImagePairDiscriminator(32, 3, 128, "height")) == 226_177
    assert num_parameters(alad.CodePairDiscriminator(100)) == 14_977


def test_stacked_one_below_the_other_the_pair_has_the_authors_features() -> None:
    pair = torch.zeros(2, 3, 32, 32)
    cases: list[tuple[alad.PairAxis, int]] = [("channels", 8_192), ("height", 16_384)]
    for axis, features in cases:
        discriminator = alad.ImagePairDiscriminator(32, 3, 128, axis)
        logit, found = discriminator(pair, pair)
        assert logit.shape == (2,)
        assert found.shape == (2, features)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", BIGAN_SIZES)
def test_egbad_shapes(size: int, channels: int) -> None:
    images = torch.zeros(2, channels, size, size)
    codes = bigan.encoder(size, channels, 2, 5)(images)
    assert codes.shape == (2, 5)
    rebuilt = bigan.generator(size, channels, 2, 5, 8)(codes)
    assert rebuilt.shape == images.shape
    assert rebuilt.abs().max() <= 1
    logit, features = bigan.JointDiscriminator(size, channels, 2, 5, 8)(images, codes)
    assert logit.shape == (2,)
    assert features.shape == (2, 8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [16, 32, 64])
def test_alad_shapes(size: int, channels: int) -> None:
    images = torch.zeros(2, channels, size, size)
    codes = alad.encoder(size, channels, 2, 5)(images)
    assert codes.shape == (2, 5)
    assert alad.generator(size, channels, 2, 5)(codes).shape == images.shape
    assert alad.JointDiscriminator(size, channels, 2, 5)(images, codes).shape == (2,)
    assert alad.CodePairDiscriminator(5)(codes, codes).shape == (2,)


@pytest.mark.parametrize("kernel", [3, 4, 5])
def test_halving_pads_as_tensorflow_s_same(kernel: int) -> None:
    # Its rule: (half − 1)·2 + kernel − side pixels in all, the odd one right and below.
    network = nn.Sequential(*bigan.halving(1, 1, kernel))
    convolution = network[-1]
    assert isinstance(convolution, nn.Conv2d)
    image = torch.rand(1, 1, 14, 14)
    before, after = (kernel - 2) // 2, (kernel - 1) // 2
    padded = F.pad(image, (before, after, before, after))
    expected = F.conv2d(padded, convolution.weight, convolution.bias, stride=2)
    assert expected.shape[-1] == 7
    torch.testing.assert_close(network(image), expected)


@pytest.mark.parametrize("size", [8, 29, 48, 512])
def test_other_sizes_are_refused(size: int) -> None:
    with pytest.raises(ConfigError, match=rf"^image_size={size} .* use one of 16, 28, 32"):
        check_bigan_size(size)


def test_spectral_norm_is_on_all_but_the_last_layers_and_the_generator() -> None:
    def has_norm(network: nn.Module) -> list[bool]:
        return [
            nn.utils.parametrize.is_parametrized(part)
            for part in network.modules()
            if isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)
        ]

    assert has_norm(alad.encoder(32, 3, 4, 5)) == [True] * 3 + [False]
    assert has_norm(alad.generator(32, 3, 4, 5)) == [False] * 4
    assert has_norm(alad.JointDiscriminator(32, 3, 4, 5)) == [True] * 6 + [False]
    assert has_norm(alad.ImagePairDiscriminator(32, 3, 4, "channels")) == [True] * 2 + [False]
    assert has_norm(alad.CodePairDiscriminator(5)) == [True] * 2 + [False]


def test_weights_drawn_anew_are_normal_and_normed_at_once() -> None:
    discriminator = alad.JointDiscriminator(32, 3, 32, 20)
    layer: Any = discriminator.joint[0]
    for parameter in discriminator.parameters():
        nn.init.constant_(parameter, 7.0)
    bigan.normal_init(discriminator, 0.01)
    original = layer.parametrizations.weight.original
    assert original.std().item() == pytest.approx(0.01, rel=0.05)
    assert original.mean().item() == pytest.approx(0, abs=1e-3)
    largest = torch.linalg.svdvals(layer.weight)[0]
    assert largest.item() == pytest.approx(1, abs=0.1)
    assert torch.all(layer.bias == 0)
