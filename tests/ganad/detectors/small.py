"""Every detector at a size that a test can afford."""

from typing import Any

import numpy as np
import torch

from ganad.detectors import DETECTORS, configure, create, find
from ganad.detectors.base import Detector, GradientDetector

BACKBONE = {"name": "resnet18", "weights": "random"}
SMALL: dict[str, dict[str, Any]] = {
    "ganomaly": {"width": 8, "latent": 10},
    "autoencoder": {"width": 8, "latent": 10},
    "vae": {"width": 8, "latent": 10},
    "egbad": {"width": 4, "features": 32, "latent": 10},
    "alad": {"width": 8, "latent": 10},
    "skip_ganomaly": {"width": 8, "latent": 10},
    "pixelcnn": {"layers": 1, "width": 6, "levels": 8},
    "pixelrnn": {"layers": 1, "hidden": 6, "head_width": 6, "levels": 8},
    "acgan": {"latent": 10, "generator_width": 8, "discriminator_width": 4},
    "anogan": {"width": 8, "latent": 10, "search_steps": 5},
    "fanogan": {"width": 4, "latent": 10, "n_critic": 1},
    "gaussian": {"backbone": BACKBONE},
    "knn": {"backbone": BACKBONE, "k": 2},
    "ocsvm": {"backbone": BACKBONE},
    "padim": {"backbone": BACKBONE, "num_channels": 10},
    "patchcore": {"backbone": BACKBONE, "entries": 100},
}
GRADIENT = [name for name in DETECTORS if issubclass(find(name), GradientDetector)]


def small(name: str, **keys: Any) -> Detector[Any]:
    values = {"image_size": 32, "channels": 1, "batch_size": 8, **SMALL[name], **keys}
    if name not in GRADIENT:
        values.pop("batch_size")
    return create(name, configure(name, values))


def random_images(num: int, channels: int = 1, size: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    shape = (num, channels, size, size)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


class InMemory:
    """Training images from a tensor."""

    def __init__(self, images: torch.Tensor) -> None:
        self.images = images.numpy()

    def __len__(self) -> int:
        return len(self.images)

    def take(self, positions: np.ndarray) -> np.ndarray:
        return self.images[positions]

    def crops(self, positions: np.ndarray, corners: np.ndarray, side: int) -> np.ndarray:
        return np.stack(
            [
                self.images[k][:, top : top + side, left : left + side]
                for k, (top, left) in zip(positions, corners, strict=True)
            ]
        )
