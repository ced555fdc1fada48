"""The config keys of the detectors that rebuild images."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from ganad.detectors.config import RepresentationConfig
from ganad.networks.options import check_size

Error = Literal["l1", "l2", "ssim"]


class AutoencoderConfig(RepresentationConfig):
    """Defaults: GANomaly's where the two share a key. The paper has no anomaly detection."""

    known_terms: ClassVar[tuple[str, ...]] = ("residual", "cosine")

    terms: tuple[str, ...] = ("residual",)
    """On maps, by place: residual (x − x̂)²; cosine 1 − cos(x, x̂)."""
    latent: int = Field(default=100, ge=1)
    """Width of the code. Too wide a code also reconstructs anomalies."""
    code_side: Literal[1, 4] = 1
    """Places per side of a code: 1 = one vector; 4 = a grid, which keeps places apart."""
    width: int = Field(default=64, ge=1)
    """Channels after the first convolution."""
    extra_layers: int = Field(default=0, ge=0, le=1000)
    """3×3 convolutions after the first block."""
    loss: Error = "l1"
    """mean |x − x̂|, mean (x − x̂)², or 1 − SSIM."""
    score: Error = "l2"
    """The error that is the score and, by pixel, the map."""
    map_blur: float = Field(default=0.0, ge=0)
    """σ in pixels of a Gaussian over the map; 4 suits 256-pixel images, 0 = none."""
    beta1: float = Field(default=0.9, ge=0, lt=1)
    """Adam's β₁, at its usual value: there is no adversary to keep up with. β₂ is 0.999."""

    @model_validator(mode="after")
    def _check_size(self) -> AutoencoderConfig:
        check_size(self.network_size, self.network_key)
        return self


class VaeConfig(RepresentationConfig):
    """Defaults: beta is the paper's bound. The rest is ours, as many steps as GANomaly at twice its
    batch: the paper trains networks of one hidden layer, and detects no anomalies."""

    known_terms: ClassVar[tuple[str, ...]] = ("residual", "cosine", "kl")

    terms: tuple[str, ...] = ("residual",)
    """On maps, by place: residual (x − x̂)² at z = μ; cosine 1 − cos(x, x̂); kl, of z."""
    epochs: int = Field(default=30, ge=1)
    """Passes over the training images."""
    batch_size: int = Field(default=128, ge=1)
    """Images per step over all workers together."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Adam's learning rate at the start; it falls to 0 as a half cosine."""
    latent: int = Field(default=100, ge=1)
    """Width of the code z."""
    code_side: Literal[1, 4] = 1
    """Places per side of a code: 1 = one vector; 4 = a grid, which keeps places apart."""
    width: int = Field(default=64, ge=1)
    """Channels after the first convolution."""
    extra_layers: int = Field(default=0, ge=0, le=1000)
    """3×3 convolutions after the first block."""
    beta: float = Field(default=1.0, ge=0)
    """Weight of KL; both terms are sums, so 1 is the paper's bound."""
    warm_up: float = Field(default=0.1, ge=0, le=1)
    """Fraction of the steps over which the weight of KL rises from 0 to beta."""
    score: Literal["recon", "elbo", "recon_prob"] = "recon"
    """½ Σ (x − x̂)² at z = μ; that plus KL; or its mean over draws of z (An & Cho 2015)."""
    num_draws: int = Field(default=10, ge=1)
    """Draws of z per image for recon_prob."""

    @model_validator(mode="after")
    def _check_size(self) -> VaeConfig:
        check_size(self.network_size, self.network_key)
        return self
