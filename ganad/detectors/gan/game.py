"""The game of a generator G(z) and a discriminator D, shared by AnoGAN and f-AnoGAN."""

from __future__ import annotations

from abc import abstractmethod
from typing import TypeVar

import torch
from torch import Tensor, nn

from ganad import losses_adversarial as adversarial
from ganad.detectors.base import GradientDetector, Step
from ganad.detectors.collapse import COLLAPSED, redraw
from ganad.detectors.gan.config import AdversarialConfig
from ganad.errors import TrainingError

PATIENCE = 10
"""Steps running that D must have won before it is drawn anew."""
ALIKE = 0.1
"""Pictures that differ from each other by less than this share of what images do are all one."""
LOOK_EVERY = 50
"""Steps between looks at how pictures differ: a look waits for the device."""
SETTLING = 0.2
"""Share of a stage before the first look: every network begins with pictures that are all one."""


ConfigT = TypeVar("ConfigT", bound=AdversarialConfig)


class AdversarialDetector(GradientDetector[ConfigT]):
    """Subclasses set the two networks; D gives (logit or value (n,), features)."""

    generator: nn.Module
    discriminator: nn.Module
    num_resets: Tensor
    num_collapsed: Tensor
    alike: Tensor

    def __init__(self, config: ConfigT) -> None:
        super().__init__(config)
        # Buffers, so that a resumed run is guarded like an undisturbed one.
        self.register_buffer("num_resets", torch.zeros((), dtype=torch.long))
        self.register_buffer("num_collapsed", torch.zeros((), dtype=torch.long))
        self.register_buffer("alike", torch.zeros((), dtype=torch.bool))

    @abstractmethod
    def new_discriminator(self) -> nn.Module:
        """D with weights freshly drawn."""

    def adam(self, network: nn.Module) -> torch.optim.Optimizer:
        betas = (self.config.beta1, self.config.beta2)
        return torch.optim.Adam(network.parameters(), lr=self.config.learning_rate, betas=betas)

    def noise(self, n: int, step: Step) -> Tensor:
        """z ~ N(0, I), (n, latent)."""
        return step.ranks.normal(n, self.config.latent, device=self.device)

    def play(self, images: Tensor, step: Step, num_steps: int) -> dict[str, Tensor]:
        """One step of D and, every n_critic steps, one of G; the game lasts num_steps."""
        config = self.config
        if num_steps < config.n_critic:
            raise TrainingError(
                f"n_critic={config.n_critic} is more than the {num_steps} steps of adversarial "
                f"training, so the generator would never learn: raise epochs"
            )
        generator_learns = (step.number + 1) % config.n_critic == 0
        with torch.set_grad_enabled(generator_learns):
            fake = self.generator(self.noise(len(images), step))
        real_value, real_features = self.discriminator(images)
        fake_value, fake_features = self.discriminator(fake)

        d_loss = adversarial.discriminator_loss(config.adversarial, real_value, fake_value)
        g_loss = adversarial.generator_loss(config.adversarial, fake_value)
        report = {"generator": g_loss.detach(), "discriminator": d_loss.detach()}
        if config.adversarial == "wgan-gp":
            u = step.ranks.uniform(len(images), 1, 1, 1, device=images.device)
            penalty = adversarial.gradient_penalty(
                lambda x: self.discriminator(x)[0], images, fake, u
            )
            d_loss = d_loss + config.gradient_penalty * penalty
            report["gradient_penalty"] = penalty.detach()
        if config.w_fm:
            matching = adversarial.fm_mean(
                real_features.detach(), fake_features, step.ranks.batch_mean
            )
            g_loss = g_loss + config.w_fm * matching
            report["feature_matching"] = matching.detach()
        # One graph serves both. G first: its gradient passes through D's weights as they were.
        if generator_learns:
            step.update("generator", g_loss)
        step.update("discriminator", d_loss)

        if config.adversarial == "bce":
            self._watch_discriminator(report["discriminator"], step)
        if step.number >= SETTLING * num_steps:
            self.watch_spread(images, fake, step, "generated images")
        return report

    def _watch_discriminator(self, loss: Tensor, step: Step) -> None:
        """Draw D anew when it has won PATIENCE times running."""
        if not step.mean(loss) < COLLAPSED:  # nor a loss that is no number: the loop refuses it
            self.num_collapsed.zero_()
            return
        self.num_collapsed += 1
        if self.num_collapsed < PATIENCE:
            return
        self.num_collapsed.zero_()
        redraw(
            self,
            self.discriminator,
            step,
            lambda old: old.load_state_dict(self.new_discriminator().state_dict()),
        )

    def watch_spread(self, images: Tensor, pictures: Tensor, step: Step, what: str) -> None:
        """Report when pictures become all one (mode collapse), and when they cease to be."""
        if step.number % LOOK_EVERY:
            return
        found, expected = (
            adversarial.spread(some.detach(), step.ranks.batch_mean).item()
            for some in (pictures, images)
        )
        alike = found < ALIKE * expected
        if alike and not self.alike:
            step.event(
                f"mode collapse: {what} differ from each other {found / expected:.1%} as much as "
                f"training images do; if this does not pass, train longer or with other seeds"
            )
        elif self.alike and not alike:
            step.event(f"mode collapse has passed: {what} differ from each other again")
        self.alike.fill_(alike)
