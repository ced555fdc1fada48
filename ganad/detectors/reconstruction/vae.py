"""Variational autoencoder (Kingma & Welling: "Auto-Encoding Variational Bayes", ICLR 2014), with
GANomaly's encoder and decoder and a Gaussian likelihood of unit variance.

    (μ, log σ²) = E(x),  z = μ + σ⊙ε,  x̂ = Dec(z)
    L = mean over images of ½ Σ (x − x̂)² + β·KL(N(μ, σ²) ‖ N(0, I))
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ganad import losses
from ganad.detectors import places
from ganad.detectors.base import BatchScores
from ganad.detectors.gradient import GradientDetector, Step
from ganad.detectors.reconstruction.config import VaeConfig
from ganad.networks.dcgan import dcgan_init, decoder, encoder

COLLAPSED_NATS = 0.1
"""A code that carries less than this says nothing about the image."""


class Vae(GradientDetector[VaeConfig]):
    name = "vae"
    summary = "variational autoencoder; score = error of the rebuilt image, or the evidence bound"
    paper = "Kingma & Welling, Auto-Encoding Variational Bayes, ICLR 2014"
    good_at = "as the autoencoder, with a code that cannot simply copy the image"
    bad_at = "fine detail: its blur leaves errors at every edge"
    Config = VaeConfig

    def __init__(self, config: VaeConfig, load_weights: bool = True) -> None:
        super().__init__(config, load_weights)
        size, channels, bounded = self.shape
        width, extra, side = config.width, config.extra_layers, config.code_side
        self.encoder = encoder(size, channels, width, 2 * config.latent, extra, side)
        self.decoder = decoder(size, channels, width, config.latent, extra, side, bounded)
        dcgan_init(self.encoder, self.decoder)
        self._adam: torch.optim.Adam | None = None

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        parameters = [*self.encoder.parameters(), *self.decoder.parameters()]
        self._adam = torch.optim.Adam(parameters, lr=self.config.learning_rate)
        return {"vae": self._adam}

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Prepared images -> (μ, log σ²), each float32 n×latent×k×k."""
        mu, log_variance = self.encoder(images).float().chunk(2, dim=1)
        return mu, losses.clamp_log_variance(log_variance)

    def training_step(self, images: Tensor, step: Step) -> dict[str, Tensor]:
        if self._adam is not None:
            # A function of the step, so that a resumed run needs no further state.
            rate = (
                0.5 * self.config.learning_rate * (1 + math.cos(math.pi * step.number / step.total))
            )
            for group in self._adam.param_groups:
                group["lr"] = rate
        mu, log_variance = self.encode(images)
        epsilon = step.ranks.normal(*mu.shape, device=mu.device)
        z = mu + torch.exp(0.5 * log_variance) * epsilon
        reconstruction = losses.gaussian_nll(images, self.decoder(z)).mean()
        kl = losses.kl_to_standard_normal(mu, log_variance).mean()
        weight = self.config.beta * losses.warm_up(step.number, step.total, self.config.warm_up)
        loss = reconstruction + weight * kl
        step.update("vae", loss)
        if step.number + 1 == step.total:
            self._check_use(kl, step)
        return {
            "elbo": loss.detach(),
            "reconstruction": reconstruction.detach(),
            "kl": kl.detach(),
        }

    def _check_use(self, kl: Tensor, step: Step) -> None:
        """Report a posterior that has collapsed onto the prior."""
        nats = step.mean(kl)
        if nats < COLLAPSED_NATS:
            step.event(
                f"the code carries only {nats:.3g} nats per image, so all images are reconstructed "
                f"alike: lower beta or train for more epochs"
            )

    def reconstruct(self, images: Tensor) -> Tensor:
        return self.decoder(self.encode(images)[0])

    def score_pixels(self, x: Tensor, ids: Sequence[str], maps: bool) -> BatchScores:
        with self.autocast():
            mu, log_variance = self.encode(x)
            x_hat = self.decoder(mu)
        error = (x - x_hat.float()).square()
        terms = {
            "recon": losses.gaussian_nll(x, x_hat).double(),
            "kl": losses.kl_to_standard_normal(mu, log_variance).double(),
        }
        if self.config.score == "recon_prob":
            terms["recon_prob"], error = self._mean_over_draws(x, mu, log_variance, ids)
        elbo = self.config.score == "elbo"
        score = terms["recon"] + terms["kl"] if elbo else terms[self.config.score]
        return BatchScores(score, terms, error.mean(1) if maps else None)

    def score_places(self, x: Tensor, ids: Sequence[str]) -> dict[str, Tensor]:
        with self.autocast():
            mu, log_variance = self.encode(x)
            x_hat = self.decoder(mu)
        return {
            "residual": places.squared(x, x_hat),
            "cosine": places.cosine(x, x_hat),
            "kl": losses.kl_by_value(mu, log_variance).sum(1),
        }

    def _mean_over_draws(
        self, x: Tensor, mu: Tensor, log_variance: Tensor, ids: Sequence[str]
    ) -> tuple[Tensor, Tensor]:
        """−mean_l log p(x|z_l) without its constant, (n,), and the mean squared error n×c×h×w."""
        nll, error = torch.zeros(len(x), device=x.device), torch.zeros_like(x)
        for epsilon in self._noise(ids):
            z = mu + torch.exp(0.5 * log_variance) * epsilon.to(x.device)
            with self.autocast():
                x_hat = self.decoder(z)
            nll += losses.gaussian_nll(x, x_hat) / self.config.num_draws
            error += (x - x_hat.float()).square() / self.config.num_draws
        return nll, error

    def _noise(self, ids: Sequence[str]) -> Tensor:
        """Standard normal draws×n×latent×k×k, a function of the seed and each image's id."""
        side = self.config.code_side
        shape = (self.config.num_draws, self.config.latent, side, side)
        drawn = [
            np.random.default_rng(_seed(self.config.seed, name)).standard_normal(shape, np.float32)
            for name in ids
        ]
        return torch.from_numpy(np.stack(drawn, axis=1))


def _seed(seed: int, name: str) -> int:
    words = f"{seed}/{name}".encode(errors="surrogateescape")
    return int.from_bytes(hashlib.blake2b(words, digest_size=16).digest(), "big")
