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
from ganad.detectors.base import GradientDetector, Scores, Step
from ganad.detectors.collapse import redraw_if_collapsed
from ganad.detectors.gan.config import GanomalyConfig
from ganad.networks.dcgan import Discriminator, decoder, encoder
from ganad.networks.initialisation import dcgan_init


class Ganomaly(GradientDetector[GanomalyConfig]):
    name = "ganomaly"
    summary = "encoder-decoder-encoder GAN; score = distance between the two codes"
    paper = "Akçay et al., GANomaly, ACCV 2018"
    good_at = "global changes of shape or content in aligned images"
    bad_at = "small local defects and textures; digits that are easy to rebuild, such as 1"
    Config = GanomalyConfig
    num_resets: Tensor
    """How often the discriminator was drawn anew; a buffer, so that it survives a resume."""

    def __init__(self, config: GanomalyConfig) -> None:
        super().__init__(config)
        size, channels, width = config.input_size, config.channels, config.width
        extra, latent = config.extra_layers, config.latent
        self.encoder1 = encoder(size, channels, width, latent, extra)
        self.decoder = decoder(size, channels, width, latent, extra)
        self.encoder2 = encoder(size, channels, width, latent, extra)
        self.discriminator = Discriminator(size, channels, width, extra)
        dcgan_init(self)
        self.register_buffer("num_resets", torch.zeros((), dtype=torch.long))

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        generator = [
            parameter
            for network in (self.encoder1, self.decoder, self.encoder2)
            for parameter in network.parameters()
        ]
        rate, betas = self.config.learning_rate, (self.config.beta1, 0.999)
        return {
            "generator": torch.optim.Adam(generator, lr=rate, betas=betas),
            "discriminator": torch.optim.Adam(
                self.discriminator.parameters(), lr=rate, betas=betas
            ),
        }

    def training_step(self, images: Tensor, step: Step) -> dict[str, Tensor]:
        z = self.encoder1(images)
        x_hat = self.decoder(z)
        z_hat = self.encoder2(x_hat)
        real_logit, real_features = self.discriminator(images)
        fake_logit, fake_features = self.discriminator(x_hat)

        if self.config.adversarial == "feature_matching":
            adversarial = losses.feature_pair(real_features.detach(), fake_features)
        else:
            adversarial = losses.generator_bce(fake_logit)
        con = losses.contextual(images, x_hat)
        enc = losses.encoder_distance(z, z_hat)
        generator_loss = losses.total(
            [(self.config.w_adv, adversarial), (self.config.w_con, con), (self.config.w_enc, enc)]
        )
        discriminator_loss = losses.discriminator_bce(real_logit, fake_logit)
        # One graph serves both: an update differentiates its own parameters only, and the
        # discriminator's gradient stops at x̂ because nothing before it is asked for.
        step.update("generator", generator_loss)
        step.update("discriminator", discriminator_loss)
        # The authors' code draws D anew too, but leaves Adam the moments of the old one.
        redraw_if_collapsed(self, self.discriminator, discriminator_loss, step, dcgan_init)
        return {
            "generator": generator_loss.detach(),
            "adversarial": adversarial.detach(),
            "contextual": con.detach(),
            "encoder": enc.detach(),
            "discriminator": discriminator_loss.detach(),
        }

    def reconstruct(self, images: Tensor) -> Tensor:
        return self.decoder(self.encoder1(images))

    def score_batch(self, images: Tensor, ids: Sequence[str], maps: bool) -> Scores:
        x = self.prepare(images)
        with self.autocast():
            z = self.encoder1(x)
            x_hat = self.decoder(z)
            z_hat = self.encoder2(x_hat)
        difference = z.float() - z_hat.float()
        distance = difference.abs() if self.config.score_norm == "l1" else difference.square()
        latent = losses.per_image(distance).double().cpu().numpy()
        reconstruction = losses.per_image((x - x_hat.float()).abs()).double().cpu().numpy()
        return Scores(
            latent,
            {"latent": latent, "reconstruction": reconstruction},
            losses.absolute_map(x, x_hat).cpu().numpy() if maps else None,
        )
