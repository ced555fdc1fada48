"""Encoder, generator and joint discriminator of EGBAD (Zenati et al. 2018), whose networks for
28-pixel grey images are generalised here to other sizes and to colour.

TensorFlow's conventions are kept: SAME padding, biases on, batch norm with ε 1e-3 and momentum .99.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ganad.networks.dcgan import end

LEAK = 0.1
DROPOUT = 0.5
STD = 0.02
"""Of the initial weights."""
WARM_UP = 15
"""Power iterations for fresh weights, as torch's own spectral_norm makes at its start."""


def base_of(image_size: int) -> tuple[int, int]:
    """(halvings, side after them): 28 -> (2, 7), 32 -> (2, 8), 64 -> (3, 8)."""
    halvings, side = 0, image_size
    while side > 8:
        halvings, side = halvings + 1, side // 2
    return halvings, side


def batch_norm_1d(features: int) -> nn.BatchNorm1d:
    return nn.BatchNorm1d(features, eps=1e-3, momentum=0.01)


def batch_norm_2d(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


def halving(channels: int, outputs: int, kernel: int) -> list[nn.Module]:
    """A convolution of stride 2 with SAME padding: an odd pixel of padding goes right and below."""
    before, odd = divmod(kernel - 2, 2)
    if not odd:
        return [nn.Conv2d(channels, outputs, kernel, 2, before)]
    after = before + 1
    return [
        nn.ZeroPad2d((before, after, before, after)),
        nn.Conv2d(channels, outputs, kernel, 2),
    ]


def encoder(image_size: int, channels: int, width: int, latent: int) -> nn.Sequential:
    """E: images n×channels×S×S -> codes n×latent."""
    halvings, side = base_of(image_size)
    modules: list[nn.Module] = [
        nn.Conv2d(channels, width, 3, 1, 1),
        nn.LeakyReLU(LEAK, inplace=True),
    ]
    for _ in range(halvings):
        modules += [
            *halving(width, 2 * width, 3),
            batch_norm_2d(2 * width),
            nn.LeakyReLU(LEAK, inplace=True),
        ]
        width *= 2
    return nn.Sequential(*modules, nn.Flatten(), nn.Linear(width * side**2, latent))


def generator(
    image_size: int, channels: int, width: int, latent: int, features: int, bounded: bool = True
) -> nn.Sequential:
    """G: codes n×latent -> images n×channels×S×S, in [-1, 1] (tanh) if bounded."""
    halvings, side = base_of(image_size)
    wide = width * 2**halvings
    modules: list[nn.Module] = [
        nn.Linear(latent, features),
        batch_norm_1d(features),
        nn.ReLU(inplace=True),
        nn.Linear(features, wide * side**2),
        batch_norm_1d(wide * side**2),  # one scale per unit, before the reshape
        nn.ReLU(inplace=True),
        nn.Unflatten(1, (wide, side, side)),
    ]
    for _ in range(halvings - 1):
        modules += [
            nn.ConvTranspose2d(wide, wide // 2, 4, 2, 1),
            batch_norm_2d(wide // 2),
            nn.ReLU(inplace=True),
        ]
        wide //= 2
    return nn.Sequential(*modules, nn.ConvTranspose2d(wide, channels, 4, 2, 1), *end(bounded))


class JointDiscriminator(nn.Module):
    """D: images and codes n×latent -> (logit n, features n×features), whether they belong together
    as (x, E(x)) do, or as (G(z), z)."""

    def __init__(
        self, image_size: int, channels: int, width: int, latent: int, features: int
    ) -> None:
        super().__init__()
        halvings, side = base_of(image_size)
        wide = 2 * width
        modules: list[nn.Module] = [
            *halving(channels, wide, 4),
            nn.LeakyReLU(LEAK, inplace=True),
            nn.Dropout(DROPOUT),
        ]
        for _ in range(halvings - 1):
            modules += [
                *halving(wide, wide, 4),
                batch_norm_2d(wide),
                nn.LeakyReLU(LEAK, inplace=True),
                nn.Dropout(DROPOUT),
            ]
        self.of_image = nn.Sequential(*modules, nn.Flatten())
        self.of_code = nn.Sequential(
            nn.Linear(latent, features // 2),
            nn.LeakyReLU(LEAK, inplace=True),
            nn.Dropout(DROPOUT),
        )
        self.joint = nn.Sequential(
            nn.Linear(wide * side**2 + features // 2, features),
            nn.LeakyReLU(LEAK, inplace=True),
            nn.Dropout(DROPOUT),
        )
        self.classifier = nn.Linear(features, 1)

    def forward(self, images: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        together = torch.cat([self.of_image(images), self.of_code(codes)], dim=1)
        features = self.joint(together)
        return self.classifier(features).flatten(), features


@torch.no_grad()
def normal_init(module: nn.Module, std: float) -> None:
    """Kernels N(0, std), biases 0, batch norm as new; drawn on the processor on every device."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            normed = parametrize.is_parametrized(part, "weight")
            own = dict(part.named_parameters())
            weight = own["parametrizations.weight.original" if normed else "weight"]
            weight.copy_(torch.empty(weight.shape).normal_(0.0, std))
            if part.bias is not None:
                part.bias.zero_()
            for _ in range(WARM_UP if normed and part.training else 0):
                part.weight  # noqa: B018  looking at a weight under spectral norm is an iteration
        elif isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            part.reset_parameters()
