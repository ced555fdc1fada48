"""Every detector at a size that a test can afford, and the pieces that their tests share."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from ganad.detectors import DETECTORS, configure, create, find, find_config
from ganad.detectors.config import RepresentationConfig
from ganad.detectors.gradient import GradientDetector, Step
from ganad.training.maps import fit_maps, moments_of

BACKBONE = {"name": "resnet18", "weights": "random"}
SMALL: dict[str, dict[str, Any]] = {
    "ganomaly": {"width": 8, "latent": 10},
    "autoencoder": {"width": 8, "latent": 10},
    "vae": {"width": 8, "latent": 10},
    "egbad": {"width": 4, "features": 32, "latent": 10},
    "alad": {"width": 8, "latent": 10},
    "skip_ganomaly": {"width": 8, "latent": 10},
    "student": {"backbone": BACKBONE, "width": 8},
    "pixelcnn": {"layers": 1, "width": 6, "levels": 8},
    "pixelrnn": {"layers": 1, "hidden": 6, "head_width": 6, "levels": 8},
    "acgan": {"latent": 10, "generator_width": 8, "discriminator_width": 4},
    "anogan": {"width": 8, "latent": 10, "search_steps": 5},
    "fanogan": {"width": 4, "latent": 10, "n_critic": 1},
    "gaussian": {"backbone": BACKBONE},
    "knn": {"backbone": BACKBONE, "k": 2},
    "gmm": {"backbone": BACKBONE, "max_components": 2},
    "ocsvm": {"backbone": BACKBONE},
    "padim": {"backbone": BACKBONE, "num_channels": 10},
    "patchcore": {"backbone": BACKBONE, "entries": 100},
    "deep_anomaly": {"backbone": BACKBONE, "hidden": 20, "steps": 100},
    "dictionary": {"backbone": BACKBONE, "entries": 20},
}
GRADIENT = [name for name in DETECTORS if issubclass(find(name), GradientDetector)]
ON_MAPS = [name for name in GRADIENT if issubclass(find_config(name), RepresentationConfig)]
MAPS: dict[str, Any] = {
    "representation": "maps",
    "backbone": {"name": "test_efficientnet", "weights": "random", "levels": ["blocks.0"]},
    "channels": 3,
}
"""Keys of a detector that sees maps: 16 channels, 16 places a side."""


def small(name: str, **keys: Any) -> Any:
    """A detector with its first weights; noise drawn after it is the same in every test. One that
    sees maps has them standardised by random images, as by a training."""
    values = {"image_size": 32, "channels": 1, "batch_size": 8, **SMALL[name], **keys}
    if name not in GRADIENT:
        values.pop("batch_size")
    detector = create(name, configure(name, values))
    if isinstance(detector, GradientDetector) and detector.maps is not None:
        config = detector.config
        images = InMemory(random_images(4, config.channels, config.image_size))
        fit_maps(detector, moments_of(detector, images, np.arange(4)))
    torch.manual_seed(0)
    return detector


def random_images(num: int, channels: int = 1, size: int = 32) -> Tensor:
    """Noise, uint8 (num, channels, size, size)."""
    generator = torch.Generator().manual_seed(1)
    shape = (num, channels, size, size)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def prepared(images: Tensor) -> Tensor:
    """uint8 images as the networks see them, in [-1, 1]."""
    return images.float() / 127.5 - 1


def digits(num: int, size: int = 32) -> np.ndarray:
    """Handwritten digits of 8 pixels enlarged, uint8 (num, 1, size, size)."""
    pixels = (load_digits().images[:num] * 255 / 16).astype(np.uint8)
    return pixels.repeat(size // 8, axis=1).repeat(size // 8, axis=2)[:, None]


def num_parameters(*networks: nn.Module) -> int:
    return sum(p.numel() for network in networks for p in network.parameters())


class InMemory:
    """Training images from a tensor or an array."""

    def __init__(self, images: Tensor | np.ndarray) -> None:
        self.images = np.asarray(images)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def image_bytes(self) -> int:
        return self.images[0].nbytes

    def take(self, positions: np.ndarray) -> np.ndarray:
        return self.images[positions]

    def crops(self, positions: np.ndarray, corners: np.ndarray, side: int) -> np.ndarray:
        return np.stack(
            [
                self.images[k][:, top : top + side, left : left + side]
                for k, (top, left) in zip(positions, corners, strict=True)
            ]
        )


def ignore(name: str, loss: Tensor) -> None:
    """An update that changes nothing."""


def step_with(update: Callable[[str, Tensor], Any] = ignore, **keys: Any) -> Step:
    """The first of a hundred steps, on one worker."""
    values: dict[str, Any] = {
        "number": 0,
        "total": 100,
        "mean": lambda value: value.item(),
        "reset_optimizer": lambda name: None,
        "event": lambda text: None,
    }
    return Step(update=update, **{**values, **keys})


def losses_of(model: Any, x: Tensor, **keys: Any) -> dict[str, Tensor]:
    """The loss of each optimiser at one training step on prepared images, from fixed noise."""
    found: dict[str, Tensor] = {}
    torch.manual_seed(3)
    model.train().training_step(x, step_with(found.__setitem__, **keys))
    return found


def train_against_the_rest(
    model: Any,
    optimizer: str,
    x: Tensor,
    num_steps: int,
    rate: float | None = None,
    seed: int | None = None,
) -> list[float]:
    """The losses of one optimiser over training steps in which it alone changes weights; with a
    seed, all from the same noise."""
    own = model.optimizers()[optimizer]
    parameters = [p for group in own.param_groups for p in group["params"]]
    found = []

    def update(name: str, loss: Tensor) -> None:
        if name == optimizer:
            found.append(loss.item())
            own.zero_grad()
            loss.backward(retain_graph=True, inputs=parameters)
            for group in own.param_groups:
                group["lr"] = rate or group["lr"]
            own.step()

    model.train()
    for _ in range(num_steps):
        if seed is not None:
            torch.manual_seed(seed)
        model.training_step(x, step_with(update))
    return found


def make_always_right(discriminator: nn.Module, one_batch: bool = False) -> None:
    """Let it call real inputs real and fakes fake without doubt, so that its loss vanishes.

    It sees real and fake inputs in turn, or in the two halves of one batch.
    """
    calls = 0

    def win(module: nn.Module, inputs: Any, output: Any) -> Any:
        nonlocal calls
        calls += 1
        logit = output[0] if isinstance(output, tuple) else output
        sure = torch.full_like(logit, 100.0 if calls % 2 or one_batch else -100.0)
        if one_batch:
            sure[len(sure) // 2 :] = -100.0
        right = logit * 0 + sure
        return (right, *output[1:]) if isinstance(output, tuple) else right

    discriminator.register_forward_hook(win)
