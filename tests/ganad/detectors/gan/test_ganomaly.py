"""GANomaly against what is known of the authors' code."""

import numpy as np
import pytest
import torch

from ganad.detectors import configure, create
from ganad.detectors.base import Step
from ganad.detectors.collapse import MAX_RESETS
from ganad.detectors.gan.config import GanomalyConfig
from ganad.detectors.gan.ganomaly import Ganomaly
from ganad.errors import ConfigError, TrainingError
from ganad.training.trainer import Trainer


def num_parameters(*networks: torch.nn.Module) -> int:
    return sum(p.numel() for network in networks for p in network.parameters())


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


def small(**keys: object) -> Ganomaly:
    values = {"image_size": 16, "channels": 1, "width": 8, "latent": 10, "precision": "float32"}
    model = create("ganomaly", configure("ganomaly", {**values, **keys}))
    assert isinstance(model, Ganomaly)
    return model


def test_score_is_the_mean_squared_distance_of_the_codes() -> None:
    model = small()
    images = torch.randint(0, 256, (3, 1, 16, 16), dtype=torch.uint8)
    with torch.no_grad():
        x = images.float() / 127.5 - 1
        z = model.encoder1(x)
        x_hat = model.decoder(z)
        z_hat = model.encoder2(x_hat)
    scores = model.score(images, maps=True)
    expected = (z - z_hat).square().mean((1, 2, 3)).numpy()
    np.testing.assert_allclose(scores.score, expected, rtol=1e-4)
    assert scores.maps is not None
    np.testing.assert_allclose(scores.maps, (x - x_hat).abs().mean(1).numpy(), atol=1e-5)


def test_l1_score_is_the_paper_s() -> None:
    model = small(score_norm="l1")
    images = torch.randint(0, 256, (2, 1, 16, 16), dtype=torch.uint8)
    with torch.no_grad():
        z = model.encoder1(images.float() / 127.5 - 1)
        expected = (z - model.encoder2(model.decoder(z))).abs().mean((1, 2, 3)).numpy()
    np.testing.assert_allclose(model.score(images).score, expected, rtol=1e-4)


@pytest.mark.parametrize("adversarial", ["feature_matching", "bce"])
def test_the_adversarial_term_reaches_the_generator(adversarial: str) -> None:
    # One published version of the code cut this gradient off by a detach.
    model = small(adversarial=adversarial, w_con=0, w_enc=0).train()
    seen = {}

    def update(name: str, loss: torch.Tensor) -> None:
        parameters = [*model.encoder1.parameters(), *model.decoder.parameters()]
        if name == "generator":
            seen["gradients"] = torch.autograd.grad(loss, parameters, retain_graph=True)

    model.training_step(torch.rand(4, 1, 16, 16) * 2 - 1, step_with(update))
    assert all(gradient.abs().sum() > 0 for gradient in seen["gradients"])


def test_a_discriminator_step_lowers_its_own_loss() -> None:
    # Another version minimised the feature distance instead and never trained the classifier.
    torch.manual_seed(0)
    model = small().train()
    images = torch.rand(8, 1, 16, 16) * 2 - 1
    optimizer = model.optimizers()["discriminator"]
    found = []

    def update(name: str, loss: torch.Tensor) -> None:
        if name == "discriminator":
            found.append(loss.item())
            optimizer.zero_grad()
            loss.backward(retain_graph=True, inputs=list(model.discriminator.parameters()))
            optimizer.step()

    for _ in range(5):
        model.training_step(images, step_with(update))
    assert found[-1] < found[0]


def step_with(update: object) -> Step:
    return Step(
        update=update,  # type: ignore[arg-type]
        number=0,
        total=1,
        mean=lambda value: value.item(),
        reset_optimizer=lambda name: None,
        event=lambda text: None,
    )


class Winner(torch.nn.Module):
    """A discriminator that is always right, so that its loss vanishes."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner, self.calls = inner, 0

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logit, features = self.inner(images)
        self.calls += 1
        sure = 100.0 if self.calls % 2 else -100.0
        return logit * 0 + sure, features


class Noise:
    """Training images."""

    def __len__(self) -> int:
        return 16

    def take(self, positions: np.ndarray) -> np.ndarray:
        pixels = np.random.default_rng(0).integers(0, 256, (16, 1, 16, 16))
        return pixels.astype(np.uint8)[positions]


def test_a_collapsed_discriminator_is_drawn_anew_with_its_optimiser() -> None:
    model = small(batch_size=8, epochs=1)
    model.discriminator = Winner(model.discriminator)  # type: ignore[assignment]
    trainer = Trainer(model, Noise())
    before = model.discriminator.inner.classifier.weight.detach().clone()  # type: ignore[union-attr]
    first = next(trainer.run())
    assert "reinitialized" in first.events[0]
    assert int(model.num_resets) == 1
    assert not torch.equal(before, model.discriminator.inner.classifier.weight)  # type: ignore[union-attr]
    assert not trainer.optimizers["discriminator"].state  # Adam's moments are gone too
    assert trainer.optimizers["generator"].state


def test_a_discriminator_that_keeps_collapsing_stops_the_training() -> None:
    model = small(batch_size=8, epochs=MAX_RESETS)
    model.discriminator = Winner(model.discriminator)  # type: ignore[assignment]
    with pytest.raises(TrainingError, match="collapsed 21 times"):
        list(Trainer(model, Noise()).run())


@pytest.mark.parametrize("size", [8, 48, 80, 512])
def test_sizes_that_do_not_halve_to_four_are_refused(size: int) -> None:
    with pytest.raises(
        ConfigError, match=rf"^image_size={size} .* use one of 16, 32, 64, 128, 256"
    ):
        configure("ganomaly", {"image_size": size})


def test_images_of_another_size_or_kind_are_refused() -> None:
    model = small()
    with pytest.raises(ValueError, match="decode them"):
        model.score(torch.zeros(1, 1, 32, 32, dtype=torch.uint8))
    with pytest.raises(ValueError, match="decode them"):
        model.score(torch.zeros(1, 1, 16, 16))
