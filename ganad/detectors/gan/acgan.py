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
from torch import Tensor

from ganad import losses, losses_conditional
from ganad.detectors.base import GradientDetector, Scores, Step
from ganad.detectors.collapse import redraw_if_collapsed
from ganad.detectors.gan.conditional_networks import (
    ConditionalDiscriminator,
    ConditionalGenerator,
    discriminator_init,
)
from ganad.detectors.gan.config import AcganConfig
from ganad.errors import TrainingError


class Acgan(GradientDetector[AcganConfig]):
    name = "acgan"
    summary = "class-conditional GAN; score = how unlike any of the normal types D finds an image"
    paper = "Odena et al., ACGAN, ICML 2017; Miyato and Koyama, projection discriminator, ICLR 2018"
    good_at = "several labelled types of normal image in one model"
    bad_at = "a single type, where only D's judgement is left; small defects; it has no maps"
    Config = AcganConfig
    num_resets: Tensor
    """How often the discriminator was drawn anew; a buffer, so that it survives a resume."""

    def __init__(self, config: AcganConfig) -> None:
        super().__init__(config)
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
        self.register_buffer("num_resets", torch.zeros((), dtype=torch.long))

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        rate, betas = self.config.learning_rate, (self.config.beta1, 0.999)
        return {
            "generator": torch.optim.Adam(self.generator.parameters(), lr=rate, betas=betas),
            "discriminator": torch.optim.Adam(
                self.discriminator.parameters(), lr=rate, betas=betas
            ),
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
        real, fake = losses_conditional.of_class(source_logits, twice).chunk(2)
        real_classes, fake_classes = class_logits.chunk(2)

        adversarial = losses.generator_bce(fake)
        source = losses.discriminator_bce(real, fake)
        generator_loss, discriminator_loss = adversarial, source
        report = {"adversarial": adversarial, "source": source}
        if self.config.head == "acgan":
            weight = self.config.w_class
            report["class"] = losses_conditional.classification(real_classes, fake_classes, labels)
            generator_loss = losses.total([(1.0, adversarial), (weight, report["class"])])
            discriminator_loss = losses.total([(1.0, source), (weight, report["class"])])
        step.update("generator", generator_loss)
        step.update("discriminator", discriminator_loss)
        redraw_if_collapsed(self, self.discriminator, source, step, discriminator_init)
        report |= {"generator": generator_loss, "discriminator": discriminator_loss}
        return {name: loss.detach() for name, loss in report.items()}

    def reconstruct(self, images: Tensor) -> Tensor:
        """Nothing is rebuilt: samples of the class that D takes each image for, to look at."""
        labels = self.discriminator(images)[1].argmax(1)
        generator = torch.Generator().manual_seed(self.config.seed)
        noise = torch.randn(len(images), self.config.latent, 1, 1, generator=generator)
        return self.generator(noise.to(images.device), labels)

    def score_batch(self, images: Tensor, ids: Sequence[str], maps: bool) -> Scores:
        x = self.prepare(images)
        with self.autocast():
            real, classes = self.discriminator(x)
        values = {
            "source": losses_conditional.source_surprise(real),
            "class": losses_conditional.class_surprise(classes),
            "combined": losses_conditional.joint_surprise(real, classes),
        }
        terms = {name: value.double().cpu().numpy() for name, value in values.items()}
        return Scores(terms[self.config.score], terms)
