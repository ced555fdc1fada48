"""GANomaly against what is known of the authors' code."""

from functools import partial

import numpy as np
import pytest
import torch

from ganad.detectors.gan.config import GanomalyConfig
from ganad.detectors.gan.ganomaly import Ganomaly
from tests.ganad.detectors.small import (
    losses_of,
    num_parameters,
    prepared,
    random_images,
    small,
    train_against_the_rest,
)

ganomaly = partial(small, "ganomaly", image_size=16, precision="float32")


@pytest.mark.parametrize(
    ("size", "channels", "generator", "discriminator"),
    [
        (32, 1, 3_200_384, 661_248),
        (32, 3, 3_206_528, 663_296),
        (64, 1, 10_723_712, 2_763_520),
        (64, 3, 10_729_856, 2_765_568),
        (128, 3, 38_359_424, 11_164_416),
        (256, 3, 143_950_208, 44_739_328),
    ],
)
def test_parameter_counts(size: int, channels: int, generator: int, discriminator: int) -> None:
    with torch.device("meta"):
        model = Ganomaly.__new__(Ganomaly)
    with torch.device("meta"):
        Ganomaly.__init__(model, GanomalyConfig(image_size=size, channels=channels))
    assert num_parameters(model.encoder1, model.decoder, model.encoder2) == generator
    assert num_parameters(model.discriminator) == discriminator


def test_score_is_the_mean_squared_distance_of_the_codes() -> None:
    model = ganomaly()
    images = random_images(3, size=16)
    with torch.no_grad():
        x = prepared(images)
        z = model.encoder1(x)
        x_hat = model.decoder(z)
        z_hat = model.encoder2(x_hat)
    scores = model.score(images, maps=True)
    expected = (z - z_hat).square().mean((1, 2, 3)).numpy()
    np.testing.assert_allclose(scores.score, expected, rtol=1e-4)
    assert scores.maps is not None
    np.testing.assert_allclose(scores.maps, (x - x_hat).abs().mean(1).numpy(), atol=1e-5)


def test_l1_score_is_the_paper_s() -> None:
    model = ganomaly(score_norm="l1")
    images = random_images(2, size=16)
    with torch.no_grad():
        z = model.encoder1(prepared(images))
        expected = (z - model.encoder2(model.decoder(z))).abs().mean((1, 2, 3)).numpy()
    np.testing.assert_allclose(model.score(images).score, expected, rtol=1e-4)


@pytest.mark.parametrize("adversarial", ["feature_matching", "bce"])
def test_the_adversarial_term_reaches_the_generator(adversarial: str) -> None:
    # One published version of the code cut this gradient off by a detach.
    model = ganomaly(adversarial=adversarial, w_con=0, w_enc=0)
    loss = losses_of(model, prepared(random_images(4, size=16)))["generator"]
    parameters = [*model.encoder1.parameters(), *model.decoder.parameters()]
    assert all(gradient.abs().sum() > 0 for gradient in torch.autograd.grad(loss, parameters))


def test_a_discriminator_step_lowers_its_own_loss() -> None:
    # Another version minimised the feature distance instead and never trained the classifier.
    x = prepared(random_images(8, size=16))
    found = train_against_the_rest(ganomaly(), "discriminator", x, 5)
    assert found[-1] < found[0]
