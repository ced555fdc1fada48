"""The residual networks of f-AnoGAN (Schlegl et al. 2019), which are the 64-pixel "Good" ones of
WGAN-GP (Gulrajani et al. 2017, appendix F), for 32 to 256 pixels.

The narrow end is always 4×4 with 8·width channels, so z and the features have one size whatever
the image's. From 64 to 256 pixels blocks are added there; 32 pixels has one block fewer.
"""

from __future__ import annotations

import math
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from ganad.networks.options import LatentRange

Norm = Literal["batch", "layer"]
SIDE = 4
"""Of the narrowest feature map, in pixels."""


def widths(image_size: int) -> list[int]:
    """Channels after the input convolution and after each halving, in units of the width."""
    halvings = int(math.log2(image_size // SIDE))
    return [min(2**i, 8) for i in range(halvings + 1)]


def _norm(kind: Norm, channels: int) -> nn.Module:
    if kind == "layer":
        return nn.GroupNorm(1, channels)  # over C, H and W, with a scale and shift per channel
    # TensorFlow's momentum 0.99 and epsilon.
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class ResidualUp(nn.Module):
    """n×i×s×s -> n×o×2s×2s."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm1 = _norm("batch", inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.norm2 = _norm("batch", outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        main = self.conv1(_double(F.relu(self.norm1(x))))
        main = self.conv2(F.relu(self.norm2(main)))
        # A 1×1 convolution and the repetition of pixels commute; this order costs a quarter.
        return main + _double(self.shortcut(x))


class ResidualDown(nn.Module):
    """n×i×s×s -> n×o×½s×½s."""

    def __init__(self, inputs: int, outputs: int, norm: Norm) -> None:
        super().__init__()
        self.norm1 = _norm(norm, inputs)
        self.conv1 = nn.Conv2d(inputs, inputs, 3, padding=1, bias=False)
        self.norm2 = _norm(norm, inputs)
        self.conv2 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        main = self.conv1(F.relu(self.norm1(x)))
        main = self.conv2(F.relu(self.norm2(main)))
        return F.avg_pool2d(main, 2) + self.shortcut(F.avg_pool2d(x, 2))


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


class ResnetGenerator(nn.Module):
    """Codes (n, latent) -> images (n, channels, S, S), in [-1, 1] if bounded."""

    def __init__(
        self, image_size: int, channels: int, width: int, latent: int, bounded: bool = True
    ) -> None:
        super().__init__()
        self.bounded = bounded
        wide = [width * factor for factor in reversed(widths(image_size))]
        self.linear = nn.Linear(latent, wide[0] * SIDE * SIDE)
        self.blocks = nn.Sequential(
            *(ResidualUp(i, o) for i, o in zip(wide[:-1], wide[1:], strict=True))
        )
        self.norm = _norm("batch", width)
        self.output = nn.Conv2d(width, channels, 3, padding=1)
        resnet_init(self)

    def forward(self, z: Tensor) -> Tensor:
        x = self.blocks(self.linear(z).unflatten(1, (-1, SIDE, SIDE)))
        x = self.output(F.relu(self.norm(x)))
        return x.tanh() if self.bounded else x


class Trunk(nn.Module):
    """Images -> (n, 16·8·width) features: the sum of the last block as it is, flattened."""

    def __init__(self, image_size: int, channels: int, width: int, norm: Norm) -> None:
        super().__init__()
        wide = [width * factor for factor in widths(image_size)]
        self.input = nn.Conv2d(channels, width, 3, padding=1)
        self.blocks = nn.Sequential(
            *(ResidualDown(i, o, norm) for i, o in zip(wide[:-1], wide[1:], strict=True))
        )
        self.num_features = wide[-1] * SIDE * SIDE

    def forward(self, images: Tensor) -> Tensor:
        return self.blocks(self.input(images)).flatten(1)


class ResnetCritic(nn.Module):
    """Images -> (value (n,), features (n, 128·width)), with layer normalisation."""

    def __init__(self, image_size: int, channels: int, width: int) -> None:
        super().__init__()
        self.features = Trunk(image_size, channels, width, "layer")
        self.classifier = nn.Linear(self.features.num_features, 1)
        resnet_init(self)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(images)
        return self.classifier(features).flatten(), features


class ResnetEncoder(nn.Module):
    """Images -> codes (n, latent) within the chosen range."""

    def __init__(
        self, image_size: int, channels: int, width: int, latent: int, latent_range: LatentRange
    ) -> None:
        super().__init__()
        self.features = Trunk(image_size, channels, width, "batch")
        self.linear = nn.Linear(self.features.num_features, latent)
        self.latent_range = latent_range
        resnet_init(self)

    def forward(self, images: Tensor) -> Tensor:
        return limit(self.linear(self.features(images)), self.latent_range)


def limit(z: Tensor, latent_range: LatentRange) -> Tensor:
    """a·tanh(z), z clipped to ±a, or z."""
    if latent_range == "none":
        return z
    bound = float(latent_range.removesuffix("tanh").removesuffix("clip") or 1)
    if latent_range.endswith("tanh"):
        return bound * z.tanh()
    return z.clamp(-bound, bound)


def resnet_init(module: nn.Module) -> None:
    """Uniform weights of deviation √(4/(fan in + fan out)) for the convolutions that ReLUs
    surround, √(2/(fan in + fan out)) for the input, 1×1 and linear ones; biases 0 (the authors'
    code of WGAN-GP)."""
    for name, part in module.named_modules():
        if not isinstance(part, nn.Conv2d | nn.Linear):
            continue
        plain = isinstance(part, nn.Linear) or name.split(".")[-1] in ("input", "shortcut")
        # Glorot's bound is √(6/(fan in + fan out)) = √3·√(2/(…)).
        nn.init.xavier_uniform_(part.weight, gain=1.0 if plain else math.sqrt(2.0))
        if part.bias is not None:
            nn.init.zeros_(part.bias)
