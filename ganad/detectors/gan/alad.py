"""ALAD (Zenati, Romain, Foo, Lecouat, Chandrasekhar: "Adversarially Learned Anomaly Detection",
ICDM 2018): a BiGAN held to cycle consistency by two more discriminators.

    D_xz tells (x, E(x)) from (G(z), z)
    D_xx tells (x, x) from (x, G(E(x))),  D_zz tells (z, z) from (z, E(G(z)))
    A(x) = ‖f_xx(x, x) − f_xx(x, G(E(x)))‖_1, with the features f_xx of D_xx
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from ganad import losses
from ganad.detectors import places
from ganad.detectors.base import BatchScores
from ganad.detectors.collapse import report_if_useless, reset_if_collapsed
from ganad.detectors.gan.base import GanDetector
from ganad.detectors.gan.config import AladConfig, PairAxis
from ganad.detectors.gradient import Step
from ganad.networks.average import Average
from ganad.networks.bigan import batch_norm_2d, halving, normal_init
from ganad.networks.dcgan import LEAK, end

DROPOUT = 0.2
STD = 0.01
"""Standard deviation of the first weights."""
CODE_WIDTHS = (64, 32)
"""Widths of the layers of the discriminator of code pairs."""


class Alad(GanDetector[AladConfig]):
    name = "alad"
    summary = "BiGAN with cycle consistency; score = distance of a discriminator's features"
    paper = "Zenati et al., Adversarially Learned Anomaly Detection, ICDM 2018"
    good_at = "global changes of content, where a plain reconstruction error misleads"
    bad_at = "small data and short training: five networks have to come to terms"
    Config = AladConfig

    def __init__(self, config: AladConfig, load_weights: bool = True) -> None:
        super().__init__(config, load_weights)
        size, channels, bounded = self.shape
        width = config.width
        self.encoder = encoder(size, channels, width, config.latent)
        self.generator = generator(size, channels, width, config.latent, bounded)
        self.discriminator_xz = JointDiscriminator(size, channels, width, config.latent)
        self.discriminator_xx = ImagePairDiscriminator(size, channels, width, config.pair_axis)
        self.discriminator_zz = CodePairDiscriminator(config.latent)
        # D_xz and D_zz take no part in the score, so that no averages of them are kept.
        self.average_encoder = Average(self.encoder, config.average_decay)
        self.average_generator = Average(self.generator, config.average_decay)
        self.average_xx = Average(self.discriminator_xx, config.average_decay)

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """L_G is L_xz(G) + cycles and L_E is L_xz(E) + cycles with the same cycles, and neither
        L_xz depends on the other network: one optimiser over both with the sum does the same."""
        return {
            "discriminator_xz": self.adam(self.discriminator_xz),
            "discriminator_xx": self.adam(self.discriminator_xx),
            "discriminator_zz": self.adam(self.discriminator_zz),
            "generator_encoder": self.adam(self.generator, self.encoder),
        }

    def training_step(self, images: Tensor, step: Step) -> dict[str, Tensor]:
        """The authors draw a batch and noise for the discriminators, and others for G and E; here
        one of each serves both, which halves the passes through G and E."""
        x = images
        z = step.ranks.normal(len(images), self.config.latent, device=images.device)
        z_of_x, x_of_z = self.encoder(x), self.generator(z)
        x_hat, z_hat = self.generator(z_of_x), self.encoder(x_of_z)

        losses_of_d = {
            "discriminator_xz": losses.discriminator_bce(
                self.discriminator_xz(x, z_of_x.detach()), self.discriminator_xz(x_of_z.detach(), z)
            ),
            "discriminator_xx": losses.discriminator_bce(
                self.discriminator_xx(x, x)[0], self.discriminator_xx(x, x_hat.detach())[0]
            ),
            "discriminator_zz": losses.discriminator_bce(
                self.discriminator_zz(z, z), self.discriminator_zz(z, z_hat.detach())
            ),
        }
        for name, loss in losses_of_d.items():
            step.update(name, loss)

        # The discriminators have moved: G and E answer to the new ones.
        encoder_loss = losses.called_fake(self.discriminator_xz(x, z_of_x))
        generator_loss = losses.called_real(self.discriminator_xz(x_of_z, z))
        cycle_x = losses.cycle(self.discriminator_xx(x, x)[0], self.discriminator_xx(x, x_hat)[0])
        cycle_z = losses.cycle(self.discriminator_zz(z, z), self.discriminator_zz(z, z_hat))
        step.update("generator_encoder", generator_loss + encoder_loss + cycle_x + cycle_z)

        for name, loss in losses_of_d.items():
            network = getattr(self, name)
            reset_if_collapsed(
                self, network, loss, step, lambda d: normal_init(d, STD), optimizer=name
            )
        self.average_encoder.update(self.encoder, step.number)
        self.average_generator.update(self.generator, step.number)
        self.average_xx.update(self.discriminator_xx, step.number)
        if step.number + 1 == step.total:
            with torch.no_grad():
                report_if_useless(images, self.reconstruct(images), step)
        reported = {
            **losses_of_d,
            "generator": generator_loss,
            "encoder": encoder_loss,
            "cycle_x": cycle_x,
            "cycle_z": cycle_z,
        }
        return {name: loss.detach() for name, loss in reported.items()}

    def reconstruct(self, images: Tensor) -> Tensor:
        return self.average_generator(self.average_encoder(images))

    def score_pixels(self, x: Tensor, ids: Sequence[str], maps: bool) -> BatchScores:
        with self.autocast():
            x_hat = self.reconstruct(x)
            _, real_features = self.average_xx(x, x)
            fake_logit, fake_features = self.average_xx(x, x_hat)
        terms = {
            "fm": losses.l1_distance(real_features, fake_features),
            "cross_entropy": losses.surprise(fake_logit),
            "l1": losses.l1_distance(x, x_hat),
            "l2": losses.l2_distance(x, x_hat),
        }
        return BatchScores(
            terms[self.config.score], terms, losses.absolute_map(x, x_hat) if maps else None
        )

    def score_places(self, x: Tensor, ids: Sequence[str]) -> dict[str, Tensor]:
        with self.autocast():
            x_hat = self.reconstruct(x)
            features = self.average_xx(x, x)[1]
            features_hat = self.average_xx(x, x_hat)[1]
        by_place = self.discriminator_xx.places
        return {
            "residual": losses.absolute_map(x, x_hat),
            "cosine": places.cosine(x, x_hat),
            "features": losses.absolute_map(by_place(features), by_place(features_hat)),
        }


# Networks for CIFAR-10, generalised to other sizes 4·2^m. Spectral norm is on the convolutions of
# the encoder and on all but the last layers of the discriminators. TensorFlow's conventions are
# kept, as in ganad.networks.bigan.


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


def generator(
    image_size: int, channels: int, width: int, latent: int, bounded: bool = True
) -> nn.Sequential:
    """G: codes n×latent -> images n×channels×S×S, in [-1, 1] (tanh) if bounded."""
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
    network = nn.Sequential(*modules, nn.ConvTranspose2d(wide, channels, 4, 2, 1), *end(bounded))
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
        self.side, num_images = image_size // 4, 1 if axis == "channels" else 2
        self.classifier = classifier(width * num_images * self.side**2)

    def forward(self, images: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(torch.cat([images, others.to(images.dtype)], dim=self.dim))
        return self.classifier(features).flatten(), features

    def places(self, features: Tensor) -> Tensor:
        """Features n×f by place, n×c×(S/4)×(S/4); of images one below the other, the channels of
        both."""
        by_place = features.unflatten(1, (-1, self.dim, self.side, self.side))
        return by_place.flatten(1, 2)


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
