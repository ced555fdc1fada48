"""The networks of DCGAN (Radford et al. 2016) in the 4×4-kernel form of GANomaly and its relatives:
encoder, decoder and discriminator, the generator from z, and their first weights."""

from __future__ import annotations

from torch import Tensor, nn

LEAK = 0.2


def encoder(
    size: int, channels: int, width: int, outputs: int, extra_layers: int = 0, code_side: int = 1
) -> nn.Sequential:
    """Images n×channels×S×S -> codes n×outputs×1×1 (Akçay et al. 2018; no bias anywhere), or
    n×outputs×4×4 with code_side 4.

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
    side = size // 2
    while side > 4:
        modules += [
            nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False),
            nn.BatchNorm2d(2 * width),
            nn.LeakyReLU(LEAK, inplace=True),
        ]
        width, side = 2 * width, side // 2
    kernel, padding = (4, 0) if code_side == 1 else (3, 1)
    modules.append(nn.Conv2d(width, outputs, kernel, 1, padding, bias=False))
    return nn.Sequential(*modules)


def decoder(
    size: int,
    channels: int,
    width: int,
    latent: int,
    extra_layers: int = 0,
    code_side: int = 1,
    bounded: bool = True,
) -> nn.Sequential:
    """Codes n×latent×1×1, or ×4×4 with code_side 4, -> images n×channels×S×S, in [-1, 1] (tanh) if
    bounded."""
    wide, side = width * size // 8, 4
    kernel, padding = (4, 0) if code_side == 1 else (3, 1)
    modules: list[nn.Module] = [
        nn.ConvTranspose2d(latent, wide, kernel, 1, padding, bias=False),
        nn.BatchNorm2d(wide),
        nn.ReLU(inplace=True),
    ]
    while side < size // 2:
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
    modules.append(nn.ConvTranspose2d(wide, channels, 4, 2, 1, bias=False))
    return nn.Sequential(*modules, *end(bounded))


def end(bounded: bool) -> list[nn.Module]:
    """The last module of a generator: tanh for pixels in [-1, 1], nothing for maps."""
    return [nn.Tanh()] if bounded else []


class Discriminator(nn.Module):
    """Images -> (logit n, features n×(width·S/8)×4×4): an encoder with one output, cut in two."""

    def __init__(self, size: int, channels: int, width: int, extra_layers: int = 0) -> None:
        super().__init__()
        layers = list(encoder(size, channels, width, 1, extra_layers))
        self.features = nn.Sequential(*layers[:-1])
        self.classifier = layers[-1]

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(images)
        return self.classifier(features).flatten(), features


class Generator(nn.Module):
    """Codes (n, latent) -> images (n, channels, S, S), in [-1, 1] if bounded.

    T(4,1,0,w·S/8) BN ReLU, then T(4,2,1,·/2) BN ReLU down to w channels, then T(4,2,1,channels)
    tanh. With w = 64, S = 64 has the widths 512, 256, 128, 64 of AnoGAN, S = 32 has 256, 128, 64.
    """

    def __init__(
        self, size: int, channels: int, width: int, latent: int, bounded: bool = True
    ) -> None:
        super().__init__()
        *layers, _ = decoder(size, channels, width, latent, bounded=False)
        # Only the last convolution has a bias: batch normalisation would undo it in the others.
        last = nn.ConvTranspose2d(width, channels, 4, 2, 1)
        self.layers = nn.Sequential(*layers, last, *end(bounded))
        dcgan_init(self)

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z[:, :, None, None])


def opponent(size: int, channels: int, width: int, layer_norm: bool) -> Discriminator:
    """Images -> (logit (n,), features (n, w·S/8, 4, 4)).

    layer_norm takes the place of batch normalisation for the gradient penalty, which is a
    condition on each image by itself (Gulrajani et al. 2017, §4): one group over C, H and W with
    a scale and shift per channel.
    """
    discriminator = Discriminator(size, channels, width)
    wide = width * size // 8
    discriminator.classifier = nn.Conv2d(wide, 1, 4)
    if layer_norm:
        layers = discriminator.features
        for i, layer in enumerate(layers):
            if isinstance(layer, nn.BatchNorm2d):
                layers[i] = nn.GroupNorm(1, layer.num_features)
    dcgan_init(discriminator)
    return discriminator


def dcgan_init(*networks: nn.Module) -> None:
    """Convolutions N(0, .02), batch-norm scale N(1, .02), shift 0 (Radford et al. 2016, §3)."""
    for part in (part for network in networks for part in network.modules()):
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(part.weight, 0.0, 0.02)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.weight, 1.0, 0.02)
            nn.init.zeros_(part.bias)
            part.reset_running_stats()
