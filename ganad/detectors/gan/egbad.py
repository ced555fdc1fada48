"""EGBAD (Zenati, Foo, Lecouat, Manek, Chandrasekhar: "Efficient GAN-Based Anomaly Detection",
ICLR workshop 2018): a BiGAN whose encoder is learned together with its generator.

    L_D = CE(D(x, E(x)), 1) + CE(D(G(z), z), 0),  L_G = CE(D(G(z), z), 1),  L_E = CE(D(x, E(x)), 0)
    A(x) = α‖x − G(E(x))‖_1 + (1 − α)·L_D(x)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ganad import losses
from ganad.detectors import places
from ganad.detectors.base import BatchScores
from ganad.detectors.collapse import report_if_useless, reset_if_collapsed
from ganad.detectors.gan.base import GanDetector
from ganad.detectors.gan.config import EgbadConfig
from ganad.detectors.gradient import Step
from ganad.networks import bigan
from ganad.networks.average import Average


class Egbad(GanDetector[EgbadConfig]):
    name = "egbad"
    summary = "BiGAN; score = reconstruction error and distance of the discriminator's features"
    paper = "Zenati et al., Efficient GAN-Based Anomaly Detection, ICLR workshop 2018"
    good_at = "global changes of content, with one forward pass per image"
    bad_at = "small defects: its reconstruction is often another image of the same kind"
    Config = EgbadConfig

    def __init__(self, config: EgbadConfig, load_weights: bool = True) -> None:
        super().__init__(config, load_weights)
        size, channels, bounded = self.shape
        shape = (size, channels, config.width, config.latent)
        self.encoder = bigan.encoder(*shape)
        self.generator = bigan.generator(*shape, config.features, bounded)
        self.discriminator = bigan.JointDiscriminator(*shape, config.features)
        for network in (self.encoder, self.generator, self.discriminator):
            bigan.normal_init(network, bigan.STD)
        self.average_encoder = Average(self.encoder, config.average_decay)
        self.average_generator = Average(self.generator, config.average_decay)
        self.average_discriminator = Average(self.discriminator, config.average_decay)

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {
            "discriminator": self.adam(self.discriminator),
            "generator": self.adam(self.generator),
            "encoder": self.adam(self.encoder),
        }

    def training_step(self, images: Tensor, step: Step) -> dict[str, Tensor]:
        """The authors draw a batch and noise for D, and others for G and E; here one of each
        serves both, which halves the passes through G and E."""
        z = step.ranks.normal(len(images), self.config.latent, device=images.device)
        z_of_x = self.encoder(images)
        x_of_z = self.generator(z)

        real_logit, _ = self.discriminator(images, z_of_x.detach())
        fake_logit, _ = self.discriminator(x_of_z.detach(), z)
        discriminator_loss = losses.discriminator_bce(real_logit, fake_logit)
        step.update("discriminator", discriminator_loss)

        # D has moved: G and E answer to the new one. Neither loss passes through the other's
        # network, so that the first update does not spoil the graph of the second.
        real_logit, _ = self.discriminator(images, z_of_x)
        fake_logit, _ = self.discriminator(x_of_z, z)
        generator_loss = losses.called_real(fake_logit)
        encoder_loss = losses.called_fake(real_logit)
        step.update("generator", generator_loss)
        step.update("encoder", encoder_loss)

        reset_if_collapsed(
            self,
            self.discriminator,
            discriminator_loss,
            step,
            lambda d: bigan.normal_init(d, bigan.STD),
        )
        self.average_encoder.update(self.encoder, step.number)
        self.average_generator.update(self.generator, step.number)
        self.average_discriminator.update(self.discriminator, step.number)
        if step.number + 1 == step.total:
            with torch.no_grad():
                report_if_useless(images, self.reconstruct(images), step)
        return {
            "discriminator": discriminator_loss.detach(),
            "generator": generator_loss.detach(),
            "encoder": encoder_loss.detach(),
        }

    def reconstruct(self, images: Tensor) -> Tensor:
        return self.average_generator(self.average_encoder(images))

    def score_pixels(self, x: Tensor, ids: Sequence[str], maps: bool) -> BatchScores:
        with self.autocast():
            z = self.average_encoder(x)
            x_hat = self.average_generator(z)
            real_logit, real_features = self.average_discriminator(x, z)
            fake_logit, fake_features = self.average_discriminator(x_hat, z)
        by_generator = losses.l1_distance(x, x_hat)
        if self.config.score == "fm":
            by_discriminator = losses.l1_distance(real_features, fake_features)
        elif self.config.score == "cross_entropy":
            by_discriminator = losses.surprise(real_logit)
        else:
            by_discriminator = losses.surprise(fake_logit)
        alpha = self.config.alpha
        return BatchScores(
            alpha * by_generator + (1 - alpha) * by_discriminator,
            {"reconstruction": by_generator, "discriminator": by_discriminator},
            losses.absolute_map(x, x_hat) if maps else None,
        )

    def score_places(self, x: Tensor, ids: Sequence[str]) -> dict[str, Tensor]:
        with self.autocast():
            z = self.average_encoder(x)
            x_hat = self.average_generator(z)
            features = self.average_discriminator(x, z)[1]
            features_hat = self.average_discriminator(x_hat, z)[1]
        return {
            "residual": losses.absolute_map(x, x_hat),
            "cosine": places.cosine(x, x_hat),
            # Of the pair (x, z): one place.
            "features": losses.absolute_map(
                features[..., None, None], features_hat[..., None, None]
            ),
        }
