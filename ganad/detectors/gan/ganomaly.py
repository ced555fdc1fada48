"""GANomaly (Akçay, Atapour-Abarghouei, Breckon: "GANomaly: Semi-Supervised Anomaly Detection via
Adversarial Training", ACCV 2018), in the form of the authors' current code.

    z = E1(x),  x̂ = Dec(z),  ẑ = E2(x̂)
    L_G = w_adv·L_adv + w_con·L_con + w_enc·L_enc        L_D = ½[BCE(D(x), 1) + BCE(D(x̂), 0)]
    A(x) = mean_j (z_j − ẑ_j)²
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ganad import losses
from ganad.detectors.base import BatchScores, Step
from ganad.detectors.collapse import reset_if_collapsed
from ganad.detectors.gan.base import GanDetector
from ganad.detectors.gan.config import GanomalyConfig
from ganad.networks.dcgan import Discriminator, dcgan_init, decoder, encoder


class Ganomaly(GanDetector[GanomalyConfig]):
    name = "ganomaly"
    summary = "encoder-decoder-encoder GAN; score = distance between the two codes"
    paper = "Akçay et al., GANomaly, ACCV 2018"
    good_at = "global changes of shape or content in aligned images"
    bad_at = "small local defects and textures; digits that are easy to rebuild, such as 1"
    Config = GanomalyConfig

    def __init__(self, config: GanomalyConfig) -> None:
        super().__init__(config)
        size, channels, width = config.input_size, config.channels, config.width
        extra, latent = config.extra_layers, config.latent
        self.encoder1 = encoder(size, channels, width, latent, extra)
        self.decoder = decoder(size, channels, width, latent, extra)
        self.encoder2 = encoder(size, channels, width, latent, extra)
        self.discriminator = Discriminator(size, channels, width, extra)
        dcgan_init(self)

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {
            "generator": self.adam(self.encoder1, self.decoder, self.encoder2),
            "discriminator": self.adam(self.discriminator),
        }

    def training_step(self, images: Tensor, step: Step) -> dict[str, Tensor]:
        z = self.encoder1(images)
        x_hat = self.decoder(z)
        z_hat = self.encoder2(x_hat)
        real_logit, real_features = self.discriminator(images)
        fake_logit, fake_features = self.discriminator(x_hat)

        if self.config.adversarial == "feature_matching":
            adversarial = losses.squared_error(real_features.detach(), fake_features)
        else:
            adversarial = losses.called_real(fake_logit)
        con = losses.absolute_error(images, x_hat)
        enc = losses.squared_error(z, z_hat)
        generator_loss = losses.total(
            [(self.config.w_adv, adversarial), (self.config.w_con, con), (self.config.w_enc, enc)]
        )
        discriminator_loss = 0.5 * losses.discriminator_bce(real_logit, fake_logit)
        # One graph serves both: an update differentiates its own parameters only, and the
        # discriminator's gradient stops at x̂ because nothing before it is asked for.
        step.update("generator", generator_loss)
        step.update("discriminator", discriminator_loss)
        # The authors' code resets D too, but leaves Adam the moments of the old one.
        reset_if_collapsed(self, self.discriminator, discriminator_loss, step, dcgan_init)
        return {
            "generator": generator_loss.detach(),
            "adversarial": adversarial.detach(),
            "contextual": con.detach(),
            "encoder": enc.detach(),
            "discriminator": discriminator_loss.detach(),
        }

    def reconstruct(self, images: Tensor) -> Tensor:
        return self.decoder(self.encoder1(images))

    def score_batch(self, images: Tensor, ids: Sequence[str], maps: bool) -> BatchScores:
        x = self.prepare(images)
        with self.autocast():
            z = self.encoder1(x)
            x_hat = self.decoder(z)
            z_hat = self.encoder2(x_hat)
        difference = z.float() - z_hat.float()
        distance = difference.abs() if self.config.score_norm == "l1" else difference.square()
        latent = losses.per_image(distance)
        reconstruction = losses.per_image((x - x_hat.float()).abs())
        return BatchScores(
            latent,
            {"latent": latent, "reconstruction": reconstruction},
            losses.absolute_map(x, x_hat) if maps else None,
        )
