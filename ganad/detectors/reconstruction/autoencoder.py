"""A convolutional autoencoder (after Hinton & Salakhutdinov: "Reducing the Dimensionality of Data
with Neural Networks", Science 2006), with GANomaly's encoder and decoder: its ablation.

    x̂ = Dec(E(x)),  L = mean |x − x̂|,  A(x) = mean (x − x̂)²
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from ganad import losses
from ganad.detectors import places
from ganad.detectors.base import BatchScores
from ganad.detectors.collapse import report_if_useless
from ganad.detectors.gradient import GradientDetector, Step
from ganad.detectors.reconstruction.config import AutoencoderConfig
from ganad.networks.dcgan import dcgan_init, decoder, encoder

Error = Literal["l1", "l2", "ssim"]


def unit(x: Tensor) -> Tensor:
    """[-1, 1] -> [0, 1], the range of SSIM's constants."""
    return (x.float() + 1) / 2


def training_loss(x: Tensor, x_hat: Tensor, kind: Error) -> Tensor:
    """The scalar error of a batch of prepared images."""
    if kind == "l1":
        return losses.absolute_error(x, x_hat)
    if kind == "l2":
        return losses.squared_error(x, x_hat)
    return losses.ssim_loss(unit(x), unit(x_hat))


def pixel_error(x: Tensor, x_hat: Tensor, kind: Error) -> Tensor:
    """The same error at each pixel and channel: n×c×h×w."""
    if kind == "l1":
        return (x.float() - x_hat.float()).abs()
    if kind == "l2":
        return (x.float() - x_hat.float()).square()
    return 1 - losses.ssim_map(unit(x), unit(x_hat))


class Autoencoder(GradientDetector[AutoencoderConfig]):
    name = "autoencoder"
    summary = "encoder and decoder; score = error of the rebuilt image"
    paper = "after Hinton & Salakhutdinov, Reducing the Dimensionality of Data, Science 2006"
    good_at = "a first look; defects that differ from normal images in brightness or shape"
    bad_at = "anomalies simpler than the normal images, which are rebuilt with ease, such as 1"
    Config = AutoencoderConfig

    def __init__(self, config: AutoencoderConfig, load_weights: bool = True) -> None:
        super().__init__(config, load_weights)
        size, channels, bounded = self.shape
        code = (config.latent, config.extra_layers, config.code_side)
        self.encoder = encoder(size, channels, config.width, *code)
        self.decoder = decoder(size, channels, config.width, *code, bounded)
        dcgan_init(self.encoder, self.decoder)

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        rate, betas = self.config.learning_rate, (self.config.beta1, 0.999)
        parameters = [*self.encoder.parameters(), *self.decoder.parameters()]
        return {"autoencoder": torch.optim.Adam(parameters, lr=rate, betas=betas)}

    def training_step(self, images: Tensor, step: Step) -> dict[str, Tensor]:
        x_hat = self.reconstruct(images)
        loss = training_loss(images, x_hat, self.config.loss)
        step.update("autoencoder", loss)
        report_if_useless(images, x_hat, step)
        return {"reconstruction": loss.detach()}

    def reconstruct(self, images: Tensor) -> Tensor:
        return self.decoder(self.encoder(images))

    def score_pixels(self, x: Tensor, ids: Sequence[str], maps: bool) -> BatchScores:
        with self.autocast():
            x_hat = self.reconstruct(x)
        kinds: set[Error] = {"l1", "l2", self.config.score}
        errors = {kind: pixel_error(x, x_hat, kind) for kind in sorted(kinds)}
        terms: dict[str, Tensor] = {
            kind: error.double().flatten(1).mean(1) for kind, error in errors.items()
        }
        score_map = None
        if maps:
            by_pixel = errors[self.config.score].mean(1, keepdim=True)
            if self.config.map_blur:
                by_pixel = losses.gaussian_blur(by_pixel, self.config.map_blur)
            score_map = by_pixel[:, 0]
        return BatchScores(terms[self.config.score], terms, score_map)

    def score_places(self, x: Tensor, ids: Sequence[str]) -> dict[str, Tensor]:
        with self.autocast():
            x_hat = self.reconstruct(x)
        return {"residual": places.squared(x, x_hat), "cosine": places.cosine(x, x_hat)}
