"""The two players of DCGAN (Radford et al. 2016) in the 4×4-kernel form: a generator from z and
the discriminator that faces it."""

from __future__ import annotations

from torch import Tensor, nn

from ganad.networks.dcgan import Discriminator, decoder
from ganad.networks.initialisation import dcgan_init


class Generator(nn.Module):
    """Codes (n, latent) -> images (n, channels, S, S) in [-1, 1].

    T(4,1,0,w·S/8) BN ReLU, then T(4,2,1,·/2) BN ReLU down to w channels, then T(4,2,1,channels)
    tanh. With w = 64, S = 64 has the widths 512, 256, 128, 64 of AnoGAN, S = 32 has 256, 128, 64.
    """

    def __init__(self, image_size: int, channels: int, width: int, latent: int) -> None:
        super().__init__()
        layers = list(decoder(image_size, channels, width, latent))
        # Only the last convolution has a bias: batch normalisation would undo it in the others.
        layers[-2] = nn.ConvTranspose2d(width, channels, 4, 2, 1)
        self.layers = nn.Sequential(*layers)
        dcgan_init(self)

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z[:, :, None, None])


def opponent(image_size: int, channels: int, width: int, layer_norm: bool) -> Discriminator:
    """Images -> (logit (n,), features (n, w·S/8, 4, 4)).

    layer_norm takes the place of batch normalisation for the gradient penalty, which is a
    condition on each image by itself (Gulrajani et al. 2017, §4): one group over C, H and W with
    a scale and shift per channel.
    """
    discriminator = Discriminator(image_size, channels, width)
    wide = width * image_size // 8
    discriminator.classifier = nn.Conv2d(wide, 1, 4)
    if layer_norm:
        layers = discriminator.features
        for i, layer in enumerate(layers):
            if isinstance(layer, nn.BatchNorm2d):
                layers[i] = nn.GroupNorm(1, layer.num_features)
    dcgan_init(discriminator)
    return discriminator
