"""The convolutional pyramid of DCGAN in the 4×4-kernel form that GANomaly and its kin use."""

from __future__ import annotations

from torch import Tensor, nn

LEAK = 0.2


def encoder(
    image_size: int, channels: int, width: int, outputs: int, extra_layers: int = 0
) -> nn.Sequential:
    """Images n×channels×S×S -> n×outputs×1×1 (Akçay et al. 2018; no bias anywhere).

    The last module is the final convolution; all before it give n×(width·S/8)×4×4.
    """
    modules: list[nn.Module] = [
        nn.Conv2d(channels, width, 4, 2, 1, bias=False),
        nn.LeakyReLU(LEAK, inplace=True),
    ]
    for _ in range(extra_layers):
        modules += [
            nn.Conv2d(width, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.LeakyReLU(LEAK, inplace=True),
        ]
    side = image_size // 2
    while side > 4:
        modules += [
            nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False),
            nn.BatchNorm2d(2 * width),
            nn.LeakyReLU(LEAK, inplace=True),
        ]
        width, side = 2 * width, side // 2
    modules.append(nn.Conv2d(width, outputs, 4, 1, 0, bias=False))
    return nn.Sequential(*modules)


def decoder(
    image_size: int, channels: int, width: int, latent: int, extra_layers: int = 0
) -> nn.Sequential:
    """Codes n×latent×1×1 -> images n×channels×S×S in [-1, 1] (tanh)."""
    wide, side = width * image_size // 8, 4
    modules: list[nn.Module] = [
        nn.ConvTranspose2d(latent, wide, 4, 1, 0, bias=False),
        nn.BatchNorm2d(wide),
        nn.ReLU(inplace=True),
    ]
    while side < image_size // 2:
        modules += [
            nn.ConvTranspose2d(wide, wide // 2, 4, 2, 1, bias=False),
            nn.BatchNorm2d(wide // 2),
            nn.ReLU(inplace=True),
        ]
        wide, side = wide // 2, 2 * side
    for _ in range(extra_layers):
        modules += [
            nn.Conv2d(wide, wide, 3, 1, 1, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU(inplace=True),
        ]
    modules += [nn.ConvTranspose2d(wide, channels, 4, 2, 1, bias=False), nn.Tanh()]
    return nn.Sequential(*modules)


class Discriminator(nn.Module):
    """Images -> (logit n, features n×(width·S/8)×4×4): an encoder with one output, cut in two."""

    def __init__(self, image_size: int, channels: int, width: int, extra_layers: int = 0) -> None:
        super().__init__()
        layers = list(encoder(image_size, channels, width, 1, extra_layers))
        self.features = nn.Sequential(*layers[:-1])
        self.classifier = layers[-1]

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(images)
        return self.classifier(features).flatten(), features
