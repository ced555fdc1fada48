"""Skip-GANomaly (Akçay, Atapour-Abarghouei, Breckon: "Skip-GANomaly: Skip Connected and
Adversarially Trained Encoder-Decoder Anomaly Detection", IJCNN 2019), in the form of the authors'
code where it runs.

    x̂ = G(x), f = penultimate features of D
    L_G = w_adv·BCE(D(x̂), 1) + w_con·mean |x − x̂| + w_lat·mean (f(x) − f(x̂))²
    L_D = BCE(D(x), 1) + BCE(D(x̂), 0)  [± mean (f(x) − f(x̂))²]
    A(x) = λ·mean (x − x̂)² + (1 − λ)·mean (f(x) − f(x̂))²
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganad import losses
from ganad.detectors import places
from ganad.detectors.base import BatchScores
from ganad.detectors.collapse import reset_if_collapsed
from ganad.detectors.gan.base import GanDetector
from ganad.detectors.gan.config import SkipGanomalyConfig
from ganad.detectors.gradient import Step
from ganad.networks.dcgan import LEAK, dcgan_init, encoder


class UNet(nn.Module):
    """The U-Net of pix2pix (Isola et al. 2017) with 4×4 kernels.

    Images n×channels×S×S -> the same shape, in [-1, 1] if bounded; S is a power of two.

    Level i halves the side to S/2^(i+1) and has width·min(2^i, 8) channels; the last one is 1×1.
    Every level but the last sends its output across to the way up, except the outermost
    `dropped_skips` of them.
    """

    def __init__(
        self,
        image_size: int,
        channels: int,
        width: int,
        dropped_skips: int = 0,
        bounded: bool = True,
    ) -> None:
        super().__init__()
        self.bounded = bounded
        last = image_size.bit_length() - 2
        assert image_size == 2 ** (last + 1), "not a power of two"
        assert 0 <= dropped_skips <= last, "more skips dropped than there are"
        self.dropped_skips = dropped_skips
        down: list[nn.Module] = []
        up: list[nn.Module] = []
        before = channels
        for level in range(last + 1):
            wide = width * min(2**level, 8)
            smaller = nn.Conv2d(before, wide, 4, 2, 1, bias=False)
            between = 0 < level < last
            down.append(nn.Sequential(smaller, nn.BatchNorm2d(wide)) if between else smaller)
            joined = 2 * wide if dropped_skips <= level < last else wide
            larger = nn.ConvTranspose2d(joined, before, 4, 2, 1, bias=level == 0)
            up.append(nn.Sequential(larger, nn.BatchNorm2d(before)) if level else larger)
            before = wide
        self.down, self.up = nn.ModuleList(down), nn.ModuleList(up)

    def forward(self, images: Tensor) -> Tensor:
        skips: list[Tensor] = []
        hidden = images
        for down in self.down[:-1]:
            # What crosses over is the activated tensor: in the authors' code the next level's
            # in-place LeakyReLU has changed it before it is concatenated.
            hidden = F.leaky_relu(down(hidden), LEAK)
            skips.append(hidden)
        hidden = self.down[-1](hidden)
        for level in reversed(range(len(self.up))):
            if self.dropped_skips <= level < len(skips):
                hidden = torch.cat([skips[level], hidden], 1)
            hidden = self.up[level](F.relu(hidden))
        return torch.tanh(hidden) if self.bounded else hidden


class FeatureDiscriminator(nn.Module):
    """Images -> (logit n, features n×latent×1×1, linear)."""

    def __init__(self, image_size: int, channels: int, width: int, latent: int) -> None:
        super().__init__()
        self.features = encoder(image_size, channels, width, latent)
        # 3×3 on a 1×1 map, as in the authors' code: all but the centre sees padding.
        self.classifier = nn.Conv2d(latent, 1, 3, 1, 1, bias=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(images)
        return self.classifier(features).flatten(), features


class SkipGanomaly(GanDetector[SkipGanomalyConfig]):
    name = "skip_ganomaly"
    summary = "U-Net GAN; score = 0.9 reconstruction error + 0.1 distance of D's features"
    paper = "Akçay et al., Skip-GANomaly, IJCNN 2019"
    good_at = "sharp reconstructions of aligned images; heat maps with little blur"
    bad_at = "anomalies that the skips can copy across: raise skip_depth"
    Config = SkipGanomalyConfig

    def __init__(self, config: SkipGanomalyConfig, load_weights: bool = True) -> None:
        super().__init__(config, load_weights)
        size, channels, bounded = self.shape
        self.generator = UNet(size, channels, config.width, config.skip_depth, bounded)
        self.discriminator = FeatureDiscriminator(size, channels, config.width, config.latent)
        dcgan_init(self.generator, self.discriminator)

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {
            "generator": self.adam(self.generator),
            "discriminator": self.adam(self.discriminator),
        }

    def training_step(self, images: Tensor, step: Step) -> dict[str, Tensor]:
        given = images
        if self.config.input_noise > 0:
            noise = step.ranks.normal(*images.shape, device=images.device)
            given = images + self.config.input_noise * noise
        x_hat = self.generator(given)
        real_logit, real_features = self.discriminator(images)
        fake_logit, fake_features = self.discriminator(x_hat)

        adversarial = losses.called_real(fake_logit)
        con = losses.absolute_error(images, x_hat)
        latent = losses.squared_error(real_features, fake_features)
        generator_loss = losses.total(
            [
                (self.config.w_adv, adversarial),
                (self.config.w_con, con),
                (self.config.w_lat, latent),
            ]
        )
        source = losses.discriminator_bce(real_logit, fake_logit)
        discriminator_loss = source
        if self.config.d_latent != "0":
            sign = 1.0 if self.config.d_latent == "+" else -1.0
            discriminator_loss = losses.total([(1.0, source), (sign, latent)])
        step.update("generator", generator_loss)
        step.update("discriminator", discriminator_loss)
        reset_if_collapsed(self, self.discriminator, source, step, dcgan_init)
        return {
            "generator": generator_loss.detach(),
            "adversarial": adversarial.detach(),
            "contextual": con.detach(),
            "latent": latent.detach(),
            "discriminator": discriminator_loss.detach(),
        }

    def reconstruct(self, images: Tensor) -> Tensor:
        return self.generator(images)

    def _pass(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x̂, f(x) and f(x̂)."""
        x_hat = self.generator(x)
        return x_hat, self.discriminator(x)[1], self.discriminator(x_hat)[1]

    def score_pixels(self, x: Tensor, ids: Sequence[str], maps: bool) -> BatchScores:
        with self.autocast():
            x_hat, features, features_hat = self._pass(x)
        error = x - x_hat.float()
        error = error.abs() if self.config.score_norm == "l1" else error.square()
        residual = losses.per_image(error)
        distance = (features.float() - features_hat.float()).square()
        latent = losses.per_image(distance)
        weight = self.config.score_weight
        return BatchScores(
            weight * residual + (1 - weight) * latent,
            {"residual": residual, "latent": latent},
            losses.absolute_map(x, x_hat) if maps else None,
        )

    def score_places(self, x: Tensor, ids: Sequence[str]) -> dict[str, Tensor]:
        with self.autocast():
            x_hat, features, features_hat = self._pass(x)
        return {
            "residual": places.squared(x, x_hat),
            "cosine": places.cosine(x, x_hat),
            "features": places.squared(features, features_hat),
        }
