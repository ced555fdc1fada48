"""The game of a generator G(z) and a discriminator D, shared by AnoGAN and f-AnoGAN."""

from __future__ import annotations

from abc import abstractmethod
from typing import TypeVar

import torch
from torch import Tensor, nn

from ganad import losses
from ganad.detectors.collapse import COLLAPSED, reset
from ganad.detectors.gan.base import GanDetector
from ganad.detectors.gan.config import AdversarialConfig
from ganad.detectors.gradient import Step
from ganad.errors import TrainingError

PATIENCE = 10
"""D is reset after it has won this many steps in a row."""
ALIKE = 0.1
"""Mode collapse: generated images vary less than this fraction of real ones."""
LOOK_EVERY = 50
"""Steps between checks for mode collapse: each check waits for the device."""
SETTLING = 0.2
"""Fraction of a stage before the first check: untrained networks generate images that are alike."""


ConfigT = TypeVar("ConfigT", bound=AdversarialConfig)


class AdversarialDetector(GanDetector[ConfigT]):
    """Subclasses set the two networks; D gives (logit or value (n,), features)."""

    generator: nn.Module
    discriminator: nn.Module
    num_collapsed: Tensor
    alike: Tensor

    def __init__(self, config: ConfigT, load_weights: bool = True) -> None:
        super().__init__(config, load_weights)
        # Buffers, so that a resumed run is guarded like an undisturbed one.
        self.register_buffer("num_collapsed", torch.zeros((), dtype=torch.long))
        self.register_buffer("alike", torch.zeros((), dtype=torch.bool))

    @abstractmethod
    def new_discriminator(self) -> nn.Module:
        """D with new first weights."""

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

        if config.adversarial == "bce":
            d_loss = losses.discriminator_bce(real_value, fake_value)
            g_loss = losses.called_real(fake_value)
        else:
            d_loss = losses.wgan_critic(real_value, fake_value)
            g_loss = losses.wgan_generator(fake_value)
        report = {"generator": g_loss.detach(), "discriminator": d_loss.detach()}
        if config.adversarial == "wgan-gp":
            u = step.ranks.uniform(len(images), 1, 1, 1, device=images.device)
            penalty = losses.gradient_penalty(lambda x: self.discriminator(x)[0], images, fake, u)
            d_loss = d_loss + config.gradient_penalty * penalty
            report["gradient_penalty"] = penalty.detach()
        if config.w_fm:
            matching = losses.fm_mean(real_features.detach(), fake_features, step.ranks.batch_mean)
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
        """Reset D when it has won PATIENCE steps in a row."""
        if not step.mean(loss) < COLLAPSED:  # nan is left to the training loop, which raises
            self.num_collapsed.zero_()
            return
        self.num_collapsed += 1
        if self.num_collapsed < PATIENCE:
            return
        self.num_collapsed.zero_()
        reset(
            self,
            self.discriminator,
            step,
            lambda old: old.load_state_dict(self.new_discriminator().state_dict()),
        )

    def watch_spread(self, images: Tensor, pictures: Tensor, step: Step, what: str) -> None:
        """Report when generated pictures become alike (mode collapse), and when that ends."""
        if step.number % LOOK_EVERY:
            return
        generated, real = (
            losses.spread(batch.detach(), step.ranks.batch_mean).item()
            for batch in (pictures, images)
        )
        alike = generated < ALIKE * real
        if alike and not self.alike:
            step.event(
                f"mode collapse: {what} differ from each other {generated / real:.1%} as much as "
                f"training images do; if this does not pass, train longer or with other seeds"
            )
        elif self.alike and not alike:
            step.event(f"mode collapse has passed: {what} differ from each other again")
        self.alike.fill_(alike)
