"""Networks of ALAD (Zenati et al. 2018b) for CIFAR-10, generalised to other sizes 4·2^m.

Spectral norm is on the convolutions of the encoder and on all but the last layers of the
discriminators. TensorFlow's conventions are kept, as in ganad.networks.bigan.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from ganad.detectors.gan.config import PairAxis
from ganad.networks.bigan import batch_norm_2d, halving, normal_init

LEAK = 0.2
DROPOUT = 0.2
STD = 0.01
"""Of the initial weights."""
CODE_WIDTHS = (64, 32)
"""Of the discriminator of code pairs."""


def normed(modules: list[nn.Module]) -> list[nn.Module]:
    """The same modules, those with a kernel drawn from N(0, STD) and under spectral norm.

    Drawn first: spectral norm starts its power iteration from the kernel that it finds.
    """
    for module in modules:
        normal_init(module, STD)
    return [
        spectral_norm(module) if isinstance(module, nn.Conv2d | nn.Linear) else module
        for module in modules
    ]


def pyramid(
    image_size: int, channels: int, width: int, *, norm_first: bool
) -> tuple[list[nn.Module], int]:
    """Strided 4×4 convolutions down to 4×4, and the channels there: width·S/8."""
    modules: list[nn.Module] = []
    side, outputs = image_size, width
    while side > 4:
        modules += normed(halving(channels, outputs, 4))
        if norm_first or side < image_size:
            modules.append(batch_norm_2d(outputs))
        modules.append(nn.LeakyReLU(LEAK, inplace=True))
        side, channels, outputs = side // 2, outputs, 2 * outputs
    return modules, channels


def encoder(image_size: int, channels: int, width: int, latent: int) -> nn.Sequential:
    """E: images n×channels×S×S -> codes n×latent."""
    modules, wide = pyramid(image_size, channels, width, norm_first=True)
    last = nn.Conv2d(wide, latent, 4, 1, 0)
    normal_init(last, STD)
    return nn.Sequential(*modules, last, nn.Flatten())


def generator(image_size: int, channels: int, width: int, latent: int) -> nn.Sequential:
    """G: codes n×latent -> images n×channels×S×S in [-1, 1] (tanh)."""
    wide, side = width * image_size // 8, 4
    modules: list[nn.Module] = [
        nn.Unflatten(1, (latent, 1, 1)),
        nn.ConvTranspose2d(latent, wide, 4, 1, 0),
        batch_norm_2d(wide),
        nn.ReLU(inplace=True),
    ]
    while side < image_size // 2:
        modules += [
            nn.ConvTranspose2d(wide, wide // 2, 4, 2, 1),
            batch_norm_2d(wide // 2),
            nn.ReLU(inplace=True),
        ]
        wide, side = wide // 2, 2 * side
    network = nn.Sequential(*modules, nn.ConvTranspose2d(wide, channels, 4, 2, 1), nn.Tanh())
    normal_init(network, STD)
    return network


def dense(inputs: int, outputs: int) -> list[nn.Module]:
    """A fully connected layer under spectral norm, with what follows it."""
    return [
        *normed([nn.Linear(inputs, outputs)]),
        nn.LeakyReLU(LEAK, inplace=True),
        nn.Dropout(DROPOUT),
    ]


def classifier(inputs: int) -> nn.Linear:
    """The last layer: a logit, without spectral norm."""
    layer = nn.Linear(inputs, 1)
    normal_init(layer, STD)
    return layer


class JointDiscriminator(nn.Module):
    """D_xz: images and codes n×latent -> logit n, whether (x, E(x)) or (G(z), z)."""

    def __init__(self, image_size: int, channels: int, width: int, latent: int) -> None:
        super().__init__()
        modules, wide = pyramid(image_size, channels, width, norm_first=False)
        self.of_image = nn.Sequential(*modules, nn.Flatten())
        self.of_code = nn.Sequential(*dense(latent, 4 * width), *dense(4 * width, 4 * width))
        self.joint = nn.Sequential(*dense(wide * 16 + 4 * width, 8 * width))
        self.classifier = classifier(8 * width)

    def forward(self, images: Tensor, codes: Tensor) -> Tensor:
        together = torch.cat([self.of_image(images), self.of_code(codes)], dim=1)
        return self.classifier(self.joint(together)).flatten()


class ImagePairDiscriminator(nn.Module):
    """D_xx: two batches of images -> (logit n, features n×f), whether (x, x) or (x, G(E(x)))."""

    def __init__(self, image_size: int, channels: int, width: int, axis: PairAxis) -> None:
        super().__init__()
        self.dim = 1 if axis == "channels" else 2
        self.features = nn.Sequential(
            *normed(halving(channels * 2 if axis == "channels" else channels, width // 2, 5)),
            nn.LeakyReLU(LEAK, inplace=True),
            nn.Dropout(DROPOUT),
            *normed(halving(width // 2, width, 5)),
            nn.LeakyReLU(LEAK, inplace=True),
            nn.Dropout(DROPOUT),
            nn.Flatten(),
        )
        positions = (image_size // 4) ** 2 * (1 if axis == "channels" else 2)
        self.classifier = classifier(width * positions)

    def forward(self, images: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(torch.cat([images, others.to(images.dtype)], dim=self.dim))
        return self.classifier(features).flatten(), features


class CodePairDiscriminator(nn.Module):
    """D_zz: two batches of codes -> logit n, whether (z, z) or (z, E(G(z)))."""

    def __init__(self, latent: int) -> None:
        super().__init__()
        first, second = CODE_WIDTHS
        self.features = nn.Sequential(*dense(2 * latent, first), *dense(first, second))
        self.classifier = classifier(second)

    def forward(self, codes: Tensor, others: Tensor) -> Tensor:
        together = torch.cat([codes, others.to(codes.dtype)], dim=1)
        return self.classifier(self.features(together)).flatten()
