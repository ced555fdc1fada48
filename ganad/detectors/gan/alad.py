"""ALAD (Zenati, Romain, Foo, Lecouat, Chandrasekhar: "Adversarially Learned Anomaly Detection",
ICDM 2018): a BiGAN held to cycle consistency by two more discriminators.

    D_xz tells (x, E(x)) from (G(z), z)
    D_xx tells (x, x) from (x, G(E(x))),  D_zz tells (z, z) from (z, E(G(z)))
    A(x) = ‖f_xx(x, x) − f_xx(x, G(E(x)))‖_1, with the features f_xx of D_xx
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ganad import losses, losses_bigan
from ganad.detectors.base import GradientDetector, Scores, Step
from ganad.detectors.collapse import redraw_if_collapsed, report_if_useless
from ganad.detectors.gan import alad_networks as alad
from ganad.detectors.gan.config import AladConfig
from ganad.networks.average import Average
from ganad.networks.bigan import normal_init


class Alad(GradientDetector[AladConfig]):
    name = "alad"
    summary = "BiGAN with cycle consistency; score = distance of a discriminator's features"
    paper = "Zenati et al., Adversarially Learned Anomaly Detection, ICDM 2018"
    good_at = "global changes of content, where a plain reconstruction error misleads"
    bad_at = "small data and short training: five networks have to come to terms"
    Config = AladConfig
    num_resets: Tensor
    """How often a discriminator was drawn anew."""

    def __init__(self, config: AladConfig) -> None:
        super().__init__(config)
        size, channels, width = config.input_size, config.channels, config.width
        self.encoder = alad.encoder(size, channels, width, config.latent)
        self.generator = alad.generator(size, channels, width, config.latent)
        self.discriminator_xz = alad.JointDiscriminator(size, channels, width, config.latent)
        self.discriminator_xx = alad.ImagePairDiscriminator(size, channels, width, config.pair_axis)
        self.discriminator_zz = alad.CodePairDiscriminator(config.latent)
        # D_xz and D_zz take no part in the score, so that no averages of them are kept.
        self.average_encoder = Average(self.encoder, config.average_decay)
        self.average_generator = Average(self.generator, config.average_decay)
        self.average_xx = Average(self.discriminator_xx, config.average_decay)
        self.register_buffer("num_resets", torch.zeros((), dtype=torch.long))

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """L_G is L_xz(G) + cycles and L_E is L_xz(E) + cycles with the same cycles, and neither
        L_xz depends on the other network: one optimiser over both with the sum does the same."""
        rate, betas = self.config.learning_rate, (self.config.beta1, 0.999)
        parameters = {
            "discriminator_xz": [*self.discriminator_xz.parameters()],
            "discriminator_xx": [*self.discriminator_xx.parameters()],
            "discriminator_zz": [*self.discriminator_zz.parameters()],
            "generator_encoder": [*self.generator.parameters(), *self.encoder.parameters()],
        }
        return {
            name: torch.optim.Adam(some, lr=rate, betas=betas) for name, some in parameters.items()
        }

    def training_step(self, images: Tensor, step: Step) -> dict[str, Tensor]:
        """The authors draw a batch and noise for the discriminators, and others for G and E; here
        one of each serves both, which halves the passes through G and E."""
        x = images
        z = step.ranks.normal(len(images), self.config.latent, device=images.device)
        z_of_x, x_of_z = self.encoder(x), self.generator(z)
        x_hat, z_hat = self.generator(z_of_x), self.encoder(x_of_z)

        losses_of_d = {
            "discriminator_xz": losses_bigan.discriminator(
                self.discriminator_xz(x, z_of_x.detach()), self.discriminator_xz(x_of_z.detach(), z)
            ),
            "discriminator_xx": losses_bigan.discriminator(
                self.discriminator_xx(x, x)[0], self.discriminator_xx(x, x_hat.detach())[0]
            ),
            "discriminator_zz": losses_bigan.discriminator(
                self.discriminator_zz(z, z), self.discriminator_zz(z, z_hat.detach())
            ),
        }
        for name, loss in losses_of_d.items():
            step.update(name, loss)

        # The discriminators have moved: G and E answer to the new ones.
        encoder_loss = losses_bigan.called_fake(self.discriminator_xz(x, z_of_x))
        generator_loss = losses_bigan.called_real(self.discriminator_xz(x_of_z, z))
        cycle_x = losses_bigan.cycle(
            self.discriminator_xx(x, x)[0], self.discriminator_xx(x, x_hat)[0]
        )
        cycle_z = losses_bigan.cycle(self.discriminator_zz(z, z), self.discriminator_zz(z, z_hat))
        step.update("generator_encoder", generator_loss + encoder_loss + cycle_x + cycle_z)

        for name, loss in losses_of_d.items():
            network = getattr(self, name)
            redraw_if_collapsed(
                self, network, loss, step, lambda d: normal_init(d, alad.STD), optimizer=name
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

    def score_batch(self, images: Tensor, ids: Sequence[str], maps: bool) -> Scores:
        x = self.prepare(images)
        with self.autocast():
            x_hat = self.reconstruct(x)
            _, real_features = self.average_xx(x, x)
            fake_logit, fake_features = self.average_xx(x, x_hat)
        terms = {
            "fm": losses_bigan.l1_distance(real_features, fake_features),
            "cross_entropy": losses_bigan.cross_entropy(fake_logit),
            "l1": losses_bigan.l1_distance(x, x_hat),
            "l2": losses_bigan.l2_distance(x, x_hat),
        }
        columns = {name: term.cpu().numpy() for name, term in terms.items()}
        return Scores(
            columns[self.config.score],
            columns,
            losses.absolute_map(x, x_hat).cpu().numpy() if maps else None,
        )
