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
from torch import Tensor, nn

from ganad import losses
from ganad.detectors.base import GradientDetector, Scores, Step
from ganad.detectors.collapse import redraw_if_collapsed
from ganad.detectors.gan.config import SkipGanomalyConfig
from ganad.detectors.gan.unet import UNet
from ganad.networks.dcgan import encoder
from ganad.networks.initialisation import dcgan_init


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


class SkipGanomaly(GradientDetector[SkipGanomalyConfig]):
    name = "skip_ganomaly"
    summary = "U-Net GAN; score = 0.9 reconstruction error + 0.1 distance of D's features"
    paper = "Akçay et al., Skip-GANomaly, IJCNN 2019"
    good_at = "sharp reconstructions of aligned images; heat maps with little blur"
    bad_at = "anomalies that the skips can copy across: raise skip_depth"
    Config = SkipGanomalyConfig
    num_resets: Tensor
    """How often the discriminator was drawn anew; a buffer, so that it survives a resume."""

    def __init__(self, config: SkipGanomalyConfig) -> None:
        super().__init__(config)
        size, channels, width = config.input_size, config.channels, config.width
        self.generator = UNet(size, channels, width, config.skip_depth)
        self.discriminator = FeatureDiscriminator(size, channels, width, config.latent)
        dcgan_init(self)
        self.register_buffer("num_resets", torch.zeros((), dtype=torch.long))

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        rate, betas = self.config.learning_rate, (self.config.beta1, 0.999)
        return {
            "generator": torch.optim.Adam(self.generator.parameters(), lr=rate, betas=betas),
            "discriminator": torch.optim.Adam(
                self.discriminator.parameters(), lr=rate, betas=betas
            ),
        }

    def training_step(self, images: Tensor, step: Step) -> dict[str, Tensor]:
        given = images
        if self.config.input_noise > 0:
            noise = step.ranks.normal(*images.shape, device=images.device)
            given = images + self.config.input_noise * noise
        x_hat = self.generator(given)
        real_logit, real_features = self.discriminator(images)
        fake_logit, fake_features = self.discriminator(x_hat)

        adversarial = losses.generator_bce(fake_logit)
        con = losses.contextual(images, x_hat)
        latent = losses.feature_pair(real_features, fake_features)
        generator_loss = losses.total(
            [
                (self.config.w_adv, adversarial),
                (self.config.w_con, con),
                (self.config.w_lat, latent),
            ]
        )
        # The code sums the two halves that discriminator_bce averages.
        source = 2 * losses.discriminator_bce(real_logit, fake_logit)
        discriminator_loss = source
        if self.config.d_latent != "0":
            sign = 1.0 if self.config.d_latent == "+" else -1.0
            discriminator_loss = losses.total([(1.0, source), (sign, latent)])
        step.update("generator", generator_loss)
        step.update("discriminator", discriminator_loss)
        redraw_if_collapsed(self, self.discriminator, source, step, dcgan_init)
        return {
            "generator": generator_loss.detach(),
            "adversarial": adversarial.detach(),
            "contextual": con.detach(),
            "latent": latent.detach(),
            "discriminator": discriminator_loss.detach(),
        }

    def reconstruct(self, images: Tensor) -> Tensor:
        return self.generator(images)

    def score_batch(self, images: Tensor, ids: Sequence[str], maps: bool) -> Scores:
        x = self.prepare(images)
        with self.autocast():
            x_hat = self.generator(x)
            features = self.discriminator(x)[1]
            features_hat = self.discriminator(x_hat)[1]
        error = x - x_hat.float()
        error = error.abs() if self.config.score_norm == "l1" else error.square()
        residual = losses.per_image(error).double().cpu().numpy()
        distance = (features.float() - features_hat.float()).square()
        latent = losses.per_image(distance).double().cpu().numpy()
        weight = self.config.score_weight
        return Scores(
            weight * residual + (1 - weight) * latent,
            {"residual": residual, "latent": latent},
            losses.absolute_map(x, x_hat).cpu().numpy() if maps else None,
        )
