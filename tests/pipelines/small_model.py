"""The config of the small GANomaly that tests of jobs share (the fixture `model`)."""

from typing import Any

SMALL: dict[str, Any] = {
    "image_size": 16,
    "channels": 1,
    "width": 8,
    "latent": 10,
    "batch_size": 8,
    "epochs": 2,
}
