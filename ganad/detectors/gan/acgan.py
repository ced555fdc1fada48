"""Class-conditional normality: one model for several types of normal image, told apart by labels of
the types and never by labels of anomalies.

    cGAN with a projection discriminator (Miyato, Koyama, ICLR 2018), or ACGAN (Odena, Olah, Shlens:
    "Conditional Image Synthesis with Auxiliary Classifier GANs", ICML 2017)
    L_D = ½[BCE(D(x, y), 1) + BCE(D(G(z, y), y), 0)] [− L_C]
    L_G = BCE(D(G(z, y), y), 1) [− L_C],  L_C the log-likelihood of the classes (ACGAN alone)
    A(x) = −log D_src(x), −log max_c P(c|x), or −log max_c of their product
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganad import losses
from ganad.detectors.base import BatchScores
from ganad.detectors.collapse import reset_if_collapsed
from ganad.detectors.gan.base import GanDetector
from ganad.detectors.gan.config import AcganConfig
from ganad.detectors.gradient import Step
from ganad.errors import TrainingError
from ganad.networks.dcgan import LEAK, dcgan_init


class Acgan(GanDetector[AcganConfig]):
    name = "acgan"
    summary = "class-conditional GAN; score = how unlike any of the normal types D finds an image"
    paper = "Odena et al., ACGAN, ICML 2017; Miyato and Koyama, projection discriminator, ICLR 2018"
    good_at = "several labelled types of normal image in one model"
    bad_at = "a single type, where only D's judgement is left; small defects; it has no maps"
    rebuilds = False
    Config = AcganConfig

    def __init__(self, config: AcganConfig, load_weights: bool = True) -> None:
        super().__init__(config, load_weights)
        size, channels, num_classes = config.input_size, config.channels, len(config.classes)
        self.generator = ConditionalGenerator(
            size, channels, config.generator_width, config.latent, num_classes
        )
        self.discriminator = ConditionalDiscriminator(
            size,
            channels,
            config.discriminator_width,
            num_classes,
            config.dropout,
            batch_norm=config.discriminator_norm == "batch",
            auxiliary=config.head == "acgan",
        )
        discriminator_init(self.discriminator)

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {
            "generator": self.adam(self.generator),
            "discriminator": self.adam(self.discriminator),
        }

    def label_numbers(self, labels: Sequence[str | None]) -> Tensor:
        """Labels of training images -> their places in config.classes, int64 (n,).

        With a single class every label is that class. Raises TrainingError for an unknown one.
        """
        classes = self.config.classes
        if len(classes) == 1:
            return torch.zeros(len(labels), dtype=torch.long)
        numbers = {name: number for number, name in enumerate(classes)}
        for label in labels:
            if label not in numbers:
                raise TrainingError(
                    f"classes={list(classes)} does not name the label {label!r} of a training "
                    f"image: add it, or leave such images out"
                )
        return torch.tensor([numbers[label] for label in labels if label is not None])

    def training_step(self, images: Tensor, step: Step) -> dict[str, Tensor]:
        labels = step.labels
        if labels is None and len(self.config.classes) > 1:
            raise TrainingError(
                f"classes={list(self.config.classes)} needs a label for every training image: "
                f"train from images with labels, or set a single class"
            )
        if labels is None:
            labels = torch.zeros(len(images), dtype=torch.long, device=images.device)
        return self.training_step_labelled(images, labels, step)

    def training_step_labelled(
        self, images: Tensor, labels: Tensor, step: Step
    ) -> dict[str, Tensor]:
        """training_step with the images' types: labels int64 (n,), places in config.classes."""
        noise = step.ranks.normal(len(images), self.config.latent, 1, 1, device=images.device)
        # The fakes take the batch's own labels: as frequent as the real ones, whatever those are.
        fakes = self.generator(noise, labels)
        # One batch of both: apart, a batch-norm in D would tell them by statistics of each batch,
        # which a score must not know, and D in eval mode would rate fakes above real images.
        source_logits, class_logits = self.discriminator(torch.cat([images, fakes]))
        twice = torch.cat([labels, labels])
        real, fake = losses.of_class(source_logits, twice).chunk(2)
        real_classes, fake_classes = class_logits.chunk(2)

        adversarial = losses.called_real(fake)
        source = 0.5 * losses.discriminator_bce(real, fake)
        generator_loss, discriminator_loss = adversarial, source
        report = {"adversarial": adversarial, "source": source}
        if self.config.head == "acgan":
            weight = self.config.w_class
            report["class"] = losses.classification(real_classes, fake_classes, labels)
            generator_loss = losses.total([(1.0, adversarial), (weight, report["class"])])
            discriminator_loss = losses.total([(1.0, source), (weight, report["class"])])
        step.update("generator", generator_loss)
        step.update("discriminator", discriminator_loss)
        reset_if_collapsed(self, self.discriminator, source, step, discriminator_init)
        report |= {"generator": generator_loss, "discriminator": discriminator_loss}
        return {name: loss.detach() for name, loss in report.items()}

    def reconstruct(self, images: Tensor) -> Tensor:
        """Nothing is rebuilt: samples of the class that D takes each image for, to look at."""
        labels = self.discriminator(images)[1].argmax(1)
        generator = torch.Generator().manual_seed(self.config.seed)
        noise = torch.randn(len(images), self.config.latent, 1, 1, generator=generator)
        return self.generator(noise.to(images.device), labels)

    def score_pixels(self, x: Tensor, ids: Sequence[str], maps: bool) -> BatchScores:
        with self.autocast():
            real, classes = self.discriminator(x)
        terms = {
            "source": losses.source_surprise(real),
            "class": losses.class_surprise(classes),
            "combined": losses.joint_surprise(real, classes),
        }
        return BatchScores(terms[self.config.score], terms)


# Networks: ACGAN's pyramids (Odena et al. 2017, appendix A) with conditional batch-norm and a
# choice of heads.


class ConditionalBatchNorm2d(nn.Module):
    """Batch-norm whose scale and shift are looked up by class (Dumoulin et al. 2017, §2.2)."""

    def __init__(self, features: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(features, affine=False)
        self.scale = nn.Embedding(num_classes, features)
        self.shift = nn.Embedding(num_classes, features)
        nn.init.ones_(self.scale.weight)
        nn.init.zeros_(self.shift.weight)

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        scale, shift = self.scale(labels)[:, :, None, None], self.shift(labels)[:, :, None, None]
        return self.norm(features) * scale + shift


class ConditionalGenerator(nn.Module):
    """Noise n×latent×1×1 and labels n -> images n×channels×S×S in [-1, 1].

    A 4×4 map, then 5×5 transposed convolutions of stride 2. The last hidden layer has `width`
    features and each before it twice as many, up to 8·width: at 32 pixels 4·, 2· and 1·width, the
    384, 192 and 96 of the paper.
    """

    def __init__(
        self, image_size: int, channels: int, width: int, latent: int, num_classes: int
    ) -> None:
        super().__init__()
        num_hidden = image_size.bit_length() - 3  # sides 4 to S/2
        widths = [width * min(2**i, 8) for i in reversed(range(num_hidden))]
        convolutions: list[nn.Module] = [nn.ConvTranspose2d(latent, widths[0], 4, bias=False)]
        for before, after in zip(widths, widths[1:], strict=False):
            convolutions.append(nn.ConvTranspose2d(before, after, 5, 2, 2, 1, bias=False))
        self.convolutions = nn.ModuleList(convolutions)
        self.norms = nn.ModuleList(ConditionalBatchNorm2d(wide, num_classes) for wide in widths)
        self.last = nn.ConvTranspose2d(widths[-1], channels, 5, 2, 2, 1)
        for part in self.modules():
            if isinstance(part, nn.ConvTranspose2d):
                nn.init.normal_(part.weight, 0.0, 0.02)
        assert self.last.bias is not None
        nn.init.zeros_(self.last.bias)

    def forward(self, noise: Tensor, labels: Tensor) -> Tensor:
        hidden = noise
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            hidden = F.relu(norm(convolution(hidden), labels))
        return self.last(hidden).tanh()


def discriminator_features(
    image_size: int, channels: int, width: int, dropout: float, batch_norm: bool
) -> tuple[nn.Sequential, int]:
    """Images -> n×f×4×4, and f: pairs of 3×3 convolutions of stride 2 and 1.

    Each has twice the features of the one before it, `width` to 32·width: at 32 pixels the 16 to
    512 of the paper. LeakyReLU and dropout after each, batch-norm, if any, in all but the first.
    """
    modules: list[nn.Module] = []
    num_layers = 2 * (image_size.bit_length() - 3)
    before = channels
    for layer in range(num_layers):
        after = width * min(2**layer, 32)
        normed = batch_norm and layer > 0
        modules.append(nn.Conv2d(before, after, 3, 2 - layer % 2, 1, bias=not normed))
        if normed:
            modules.append(nn.BatchNorm2d(after))
        modules += [nn.LeakyReLU(LEAK, inplace=True), nn.Dropout(dropout)]
        before = after
    return nn.Sequential(*modules), before


class ProjectionHead(nn.Module):
    """Logit of "real, given class c" = ψ·φ + V_c·φ, φ the features summed over space (Miyato and
    Koyama 2018, eq. 3). Features n×f×4×4 -> (real n×classes, classes n×classes).

    V_c·φ stands for log P(c|x) up to a constant, as far as the generator is well trained (ibid.,
    eq. 2).
    """

    def __init__(self, features: int, num_classes: int) -> None:
        super().__init__()
        self.source = nn.Conv2d(features, 1, 1)
        self.classes = nn.Conv2d(features, num_classes, 1, bias=False)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        pooled = features.sum((2, 3), keepdim=True)
        classes = self.classes(pooled).flatten(1)
        return self.source(pooled).flatten(1) + classes, classes


class AuxiliaryHead(nn.Module):
    """ACGAN's two linear heads: "real" whatever the class, and log P(c|x) up to a constant.

    Features n×f×4×4 -> (real n×classes, all columns alike; classes n×classes).
    """

    def __init__(self, features: int, num_classes: int) -> None:
        super().__init__()
        self.source = nn.Conv2d(features, 1, 4)
        self.classes = nn.Conv2d(features, num_classes, 4)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        classes = self.classes(features).flatten(1)
        return self.source(features).flatten(1).expand_as(classes), classes


class ConditionalDiscriminator(nn.Module):
    """Images -> (logits of "real, given class c" n×classes, logits of the classes n×classes)."""

    def __init__(
        self,
        image_size: int,
        channels: int,
        width: int,
        num_classes: int,
        dropout: float,
        batch_norm: bool,
        auxiliary: bool,
    ) -> None:
        super().__init__()
        self.features, wide = discriminator_features(
            image_size, channels, width, dropout, batch_norm
        )
        head = AuxiliaryHead if auxiliary else ProjectionHead
        self.head: nn.Module = head(wide, num_classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.head(self.features(images))


def discriminator_init(discriminator: nn.Module) -> None:
    """dcgan_init; without batch-norm, which would rescale them, kernels of the features by fan-in.

    (He et al. 2015, eq. 15: the signal keeps its size through layers of LeakyReLU.)
    """
    dcgan_init(discriminator)
    if any(isinstance(part, nn.BatchNorm2d) for part in discriminator.modules()):
        return
    assert isinstance(discriminator.features, nn.Sequential)
    for part in discriminator.features:
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, LEAK)
