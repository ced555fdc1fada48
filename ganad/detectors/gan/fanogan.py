"""f-AnoGAN (Schlegl, Seeböck, Waldstein, Langs, Schmidt-Erfurth: "f-AnoGAN: Fast Unsupervised
Anomaly Detection with Generative Adversarial Networks", Medical Image Analysis 2019).

First a WGAN-GP of normal images, then an encoder E for its frozen G and D:

    izi:    mean (x − G(E(x)))²
    izi_f:  izi + κ·mean (f(x) − f(G(E(x))))²
    ziz:    mean (z − E(G(z)))²
    A(x) = mean (x − x̂)² + κ·mean (f(x) − f(x̂))²,  x̂ = G(E(x))
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ganad import losses
from ganad.detectors import places
from ganad.detectors.base import BatchScores
from ganad.detectors.gan.config import FanoganConfig
from ganad.detectors.gan.game import LOOK_EVERY, AdversarialDetector
from ganad.detectors.gradient import Step
from ganad.errors import TrainingError
from ganad.networks.resnet import (
    SIDE,
    ResnetCritic,
    ResnetEncoder,
    ResnetGenerator,
)

CONSTANT_CODES = 1e-2
"""Codes that deviate less than this over a batch say nothing about their images."""


class Fanogan(AdversarialDetector[FanoganConfig]):
    name = "fanogan"
    summary = "GAN of normal images and an encoder into it; score = distance to G(E(x))"
    paper = "Schlegl et al., f-AnoGAN, Medical Image Analysis 2019"
    good_at = "as AnoGAN, a thousand times faster"
    bad_at = "few training images or short training; images with much variety"
    Config = FanoganConfig

    def __init__(self, config: FanoganConfig, load_weights: bool = True) -> None:
        super().__init__(config, load_weights)
        size, channels, bounded = self.shape
        shape = (size, channels, config.width)
        self.generator = ResnetGenerator(*shape, config.latent, bounded)
        self.discriminator = self.new_discriminator()
        self.encoder = ResnetEncoder(*shape, config.latent, config.latent_range)

    def new_discriminator(self) -> nn.Module:
        return ResnetCritic(self.shape.size, self.shape.channels, self.config.width)

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {
            "generator": self.adam(self.generator),
            "discriminator": self.adam(self.discriminator),
            "encoder": torch.optim.RMSprop(
                self.encoder.parameters(),
                lr=self.config.encoder_learning_rate,
                alpha=0.9,
                eps=1e-5,  # TensorFlow's 1e-10, which stands under the root
            ),
        }

    def training_step(self, images: Tensor, step: Step) -> dict[str, Tensor]:
        num_gan_steps = self._num_gan_steps(step.total)
        drawn = step.ranks.uniform(len(images), 1, 1, 1, device=images.device)
        images = torch.where(drawn < self.config.flip, images.flip(3), images)
        if step.number < num_gan_steps:
            return self.play(images, step, num_gan_steps)
        if step.number == num_gan_steps:
            step.event("the generator and discriminator are trained; now the encoder")
        return self._train_encoder(images, step)

    def _num_gan_steps(self, total: int) -> int:
        encoder_steps = self.config.encoder_steps
        if encoder_steps is None:
            return min(round(total * (1 - self.config.encoder_share)), total - 1)
        if encoder_steps >= total:
            raise TrainingError(
                f"encoder_steps={encoder_steps} leaves nothing of the {total} steps to the "
                f"generator: lower it or raise epochs"
            )
        return total - encoder_steps

    def _train_encoder(self, images: Tensor, step: Step) -> dict[str, Tensor]:
        self.generator.eval()  # with the statistics that scoring will use
        if self.config.encoder_loss == "ziz":
            z = self.noise(len(images), step)
            with torch.no_grad():
                generated = self.generator(z)
            codes = self.encoder(generated)
            loss = losses.squared_error(z, codes)
            step.update("encoder", loss)
            self._watch_codes(codes, step)
            return {"encoder": loss.detach()}
        codes = self.encoder(images)
        x_hat = self.generator(codes)
        image_loss = losses.squared_error(images, x_hat)
        report = {"image": image_loss.detach()}
        loss = image_loss
        if self.config.encoder_loss == "izi_f":
            with torch.no_grad():
                f_x = self.discriminator(images)[1]
            feature_loss = losses.squared_error(f_x, self.discriminator(x_hat)[1])
            report["feature"] = feature_loss.detach()
            loss = image_loss + self.config.kappa * feature_loss
        step.update("encoder", loss)
        self._watch_codes(codes, step)
        self.watch_spread(images, x_hat, step, "reconstructions")
        if step.number + 1 == step.total:
            self._judge(images, image_loss, step)
        return {"encoder": loss.detach(), **report}

    def _watch_codes(self, codes: Tensor, step: Step) -> None:
        if step.number % LOOK_EVERY:
            return
        if losses.spread(codes.detach(), step.ranks.batch_mean) < CONSTANT_CODES:
            step.event("the encoder gives all images nearly the same code: raise epochs")

    def _judge(self, images: Tensor, image_loss: Tensor, step: Step) -> None:
        """Report reconstructions that are worse than the mean image: scores then mean little."""
        error = step.mean(image_loss)
        baseline = step.mean((images - step.ranks.batch_mean(images)).square().mean())
        if error >= baseline:
            step.event(
                f"reconstructions are no nearer to the images (mean square {error:.3g}) than their "
                f"mean is ({baseline:.3g}), so scores will mean little: raise epochs"
            )

    def reconstruct(self, images: Tensor) -> Tensor:
        return self.generator(self.encoder(images))

    def _pass(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """z, x̂ and E(x̂)."""
        z = self.encoder(x)
        x_hat = self.generator(z)
        return z, x_hat, self.encoder(x_hat)

    def score_pixels(self, x: Tensor, ids: Sequence[str], maps: bool) -> BatchScores:
        with self.autocast():
            z, x_hat, z_hat = self._pass(x)
            f_x, f_x_hat = self.discriminator(x)[1], self.discriminator(x_hat)[1]
        image = losses.per_image((x - x_hat.float()).square())
        feature = losses.per_image((f_x.float() - f_x_hat.float()).square())
        distance = losses.per_image((z.float() - z_hat.float()).square())
        return BatchScores(
            image + self.config.kappa * feature,
            {"image": image, "feature": feature, "z_distance": distance},
            losses.absolute_map(x, x_hat) if maps else None,
        )

    def score_places(self, x: Tensor, ids: Sequence[str]) -> dict[str, Tensor]:
        with self.autocast():
            z, x_hat, z_hat = self._pass(x)
            f_x, f_x_hat = (
                self.discriminator(images)[1].unflatten(1, (-1, SIDE, SIDE))
                for images in (x, x_hat)
            )
        return {
            "residual": places.squared(x, x_hat),
            "cosine": places.cosine(x, x_hat),
            "features": places.squared(f_x, f_x_hat),
            "latent": places.squared(z[..., None, None], z_hat[..., None, None]),
        }
