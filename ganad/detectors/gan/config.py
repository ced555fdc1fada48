"""The config keys of the GANs."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from ganad.detectors.config import GradientConfig, RepresentationConfig
from ganad.errors import ConfigError
from ganad.networks.options import LatentRange, check_bigan_size, check_size
from ganad.storage import files as storage

PairAxis = Literal["channels", "height"]


class GanConfig(GradientConfig):
    """Keys of every GAN."""

    beta1: float = Field(default=0.5, ge=0, lt=1)
    """Adam's β₁; β₂ is 0.999 where no key beta2 says otherwise."""

    @property
    def betas(self) -> tuple[float, float]:
        """Adam's β₁ and β₂."""
        return self.beta1, 0.999


class AdversarialConfig(GanConfig, RepresentationConfig):
    """Keys of the methods that train a GAN first."""

    known_terms: ClassVar[tuple[str, ...]] = ("residual", "cosine", "features")

    adversarial: Literal["bce", "wgan-gp"] = "bce"
    """The game: cross-entropy (Goodfellow et al. 2014), or the Wasserstein distance with gradient
    penalty (Gulrajani et al. 2017)."""
    n_critic: int = Field(default=1, ge=1)
    """Steps of D for each step of G; every step takes a batch of its own."""
    gradient_penalty: float = Field(default=10.0, ge=0)
    """λ of wgan-gp."""
    w_fm: float = Field(default=0.0, ge=0)
    """Weight of feature matching (Salimans et al. 2016) in G's loss."""
    latent: int = Field(default=100, ge=1)
    """Width of a code z ~ N(0, I)."""
    width: int = Field(default=64, ge=1)
    """Channels next to the image, in every network."""
    beta2: float = Field(default=0.999, ge=0, lt=1)
    """Adam's β₂."""

    @property
    def betas(self) -> tuple[float, float]:
        return self.beta1, self.beta2


class AnoganConfig(AdversarialConfig):
    """The authors published no code. Defaults: DCGAN's training (Radford et al. 2016, there with
    width 128 and batches of 128), and the search of EGBAD's authors, who repeated AnoGAN."""

    terms: tuple[str, ...] = ("residual", "features")
    """On maps, by place: residual |x − G(z)|, features |f(x) − f(G(z))|, both in the paper's score;
    cosine 1 − cos(x, G(z))."""
    epochs: int = Field(default=20, ge=1)
    """Passes over the training images: the paper's, over a million patches. Fewer need more."""
    search_steps: int = Field(default=500, ge=1)
    """Γ, steps of the search."""
    search_rate: float = Field(default=1e-2, gt=0)
    """Adam's step size of the search: a tenth of it from 40 % of the steps on, a twentieth from
    60 % on."""
    feature_share: float = Field(default=0.1, ge=0, le=1)
    """λ, the share of the feature term."""
    reduction: Literal["sum", "mean"] = "sum"
    """Reduction of |differences| over pixels and features (paper: sum)."""
    restarts: int = Field(default=1, ge=1)
    """Searches for each image, each from its own start; the lowest score counts."""
    tolerance: float = Field(default=0.0, ge=0, lt=1)
    """A search ends when 50 steps have lowered its loss by less than this share; 0 = never."""
    keep: Literal["last", "best"] = "last"
    """The z that is scored: that of the last step (paper), or that of the lowest loss."""
    prior: float = Field(default=0.0, ge=0)
    """ρ: adds ρ‖z‖² to the loss of the search, not to the score."""
    search_batch: int = Field(default=32, ge=1)
    """Images searched at once. Fixed, because the last bits of a score depend on it."""
    warm_start: str | None = None
    """Folder of a saved f-AnoGAN, whose G, D and E are used instead of training; the search starts
    at E(x). The keys of its inputs, latent, width and latent_range must equal its."""
    latent_range: LatentRange = "tanh"
    """The range of the codes of the warm start's E."""

    @field_validator("warm_start")
    @classmethod
    def _make_absolute(cls, folder: str | None) -> str | None:
        # Workers have other working directories.
        return None if folder is None else storage.absolute(folder)

    @model_validator(mode="after")
    def _check_size(self) -> AnoganConfig:
        smallest = 32 if self.warm_start is not None and self.representation == "pixels" else 16
        check_size(self.network_size, self.network_key, smallest)
        return self


class FanoganConfig(AdversarialConfig):
    """Defaults: the authors' code, which trains on grey images of 64 pixels."""

    known_terms: ClassVar[tuple[str, ...]] = ("residual", "cosine", "features", "latent")

    terms: tuple[str, ...] = ("residual", "features")
    """On maps, by place: residual (x − x̂)², features (f(x) − f(x̂))², both in the paper's score;
    cosine 1 − cos(x, x̂); latent (z − E(x̂))², of the image."""
    epochs: int = Field(default=10, ge=1)
    """Passes over the training images in both stages together."""
    learning_rate: float = Field(default=1e-4, gt=0)
    """Adam's learning rate for G and D."""
    adversarial: Literal["bce", "wgan-gp"] = "wgan-gp"
    n_critic: int = Field(default=5, ge=1)
    """Steps of D for each step of G. A fifth of the steps train G: few images need many epochs."""
    latent: int = Field(default=128, ge=1)
    beta1: float = Field(default=0.0, ge=0, lt=1)
    beta2: float = Field(default=0.9, ge=0, lt=1)
    flip: float = Field(default=0.5, ge=0, le=1)
    """Fraction of training images that are mirrored left to right; 0 where the sides differ."""
    encoder_share: float = Field(default=0.3, gt=0, lt=1)
    """Fraction of the steps that train E, after the GAN. The code trains it for 50,000 steps."""
    encoder_steps: int | None = Field(default=None, ge=1)
    """Steps that train E; overrides encoder_share."""
    encoder_loss: Literal["izi_f", "izi", "ziz"] = "izi_f"
    encoder_learning_rate: float = Field(default=5e-5, gt=0)
    """RMSProp's learning rate for E."""
    latent_range: LatentRange = "tanh"
    """The range that E(x) is limited to: G has seen z ~ N(0, I)."""
    kappa: float = Field(default=1.0, ge=0)
    """κ, weight of the features, in the loss izi_f and in the score."""

    @model_validator(mode="after")
    def _check_size(self) -> FanoganConfig:
        smallest = 32 if self.representation == "pixels" else 16
        check_size(self.network_size, self.network_key, smallest)
        return self


class EgbadConfig(GanConfig, RepresentationConfig):
    """Defaults: the authors' code for MNIST, at 64 pixels in colour (theirs are 28, grey). The rate
    is so low that it needs tens of thousands of steps: 100 epochs of 60,000 images, not of 600."""

    known_terms: ClassVar[tuple[str, ...]] = ("residual", "cosine", "features")

    terms: tuple[str, ...] = ("residual", "features")
    """On maps, by place: residual |x − x̂|; features |f(x, z) − f(x̂, z)|, of the image, both in the
    paper's score; cosine 1 − cos(x, x̂)."""
    epochs: int = Field(default=100, ge=1)
    """Passes over the training images; the code leaves them to its user."""
    batch_size: int = Field(default=100, ge=1)
    """Images per step over all workers together."""
    learning_rate: float = Field(default=1e-5, gt=0)
    """Learning rate of the three optimisers."""
    latent: int = Field(default=200, ge=1)
    """Width of the code z."""
    width: int = Field(default=32, ge=1)
    """Channels of the encoder's first convolution; the discriminator has twice as many."""
    features: int = Field(default=1024, ge=2)
    """Width of the fully connected layers: of D's features, and of G's first layer."""
    average_decay: float = Field(default=0.999, ge=0, lt=1)
    """Decay of the moving average of all weights; the averages score."""
    alpha: float = Field(default=0.9, ge=0, le=1)
    """Weight of the reconstruction in the score."""
    score: Literal["fm", "cross_entropy", "cross_entropy_code"] = "fm"
    """L_D(x) = ‖f(x, E(x)) − f(G(E(x)), E(x))‖_1 with D's features f; CE(D(x, E(x)), 1), the
    paper's; or CE(D(G(E(x)), E(x)), 1), the code's."""

    @model_validator(mode="after")
    def _check_size(self) -> EgbadConfig:
        check_bigan_size(self.network_size, self.network_key)
        return self


class AladConfig(GanConfig, RepresentationConfig):
    """Defaults: the authors' code for CIFAR-10, at 64 pixels (theirs are 32)."""

    known_terms: ClassVar[tuple[str, ...]] = ("residual", "cosine", "features")

    terms: tuple[str, ...] = ("features",)
    """On maps, by place: features |f_xx(x, x) − f_xx(x, x̂)|, the paper's score; residual |x − x̂|;
    cosine 1 − cos(x, x̂)."""
    epochs: int = Field(default=100, ge=1)
    """Passes over the training images; the code stops by itself, on a validation set."""
    batch_size: int = Field(default=32, ge=1)
    """Images per step over all workers together."""
    learning_rate: float = Field(default=2e-4, gt=0)
    """Learning rate of all optimisers."""
    latent: int = Field(default=100, ge=1)
    """Width of the code z."""
    width: int = Field(default=128, ge=2)
    """Channels after the encoder's first convolution."""
    average_decay: float = Field(default=0.999, ge=0, lt=1)
    """Decay of the moving average of all weights; the averages score."""
    pair_axis: PairAxis = "channels"
    """How D_xx sees two images: as channels of one, or one below the other (the code)."""
    score: Literal["fm", "cross_entropy", "l1", "l2"] = "fm"
    """‖f_xx(x, x) − f_xx(x, x̂)‖_1 with x̂ = G(E(x)); CE(D_xx(x, x̂), 1); ‖x − x̂‖_1; ‖x − x̂‖_2."""

    @model_validator(mode="after")
    def _check_size(self) -> AladConfig:
        check_size(self.network_size, self.network_key)
        return self


class GanomalyConfig(GanConfig, RepresentationConfig):
    """Defaults: the authors' current code and scripts for MNIST and CIFAR-10, at 64 pixels (theirs
    are 32). The paper names learning_rate 2e-3; the code, whose results others have repeated, uses
    2e-4."""

    known_terms: ClassVar[tuple[str, ...]] = ("residual", "cosine", "latent", "features")

    terms: tuple[str, ...] = ("latent",)
    """On maps, by place: latent (z − ẑ)², the paper's score; residual (x − x̂)²; cosine
    1 − cos(x, x̂); features (f(x) − f(x̂))² of D."""
    latent: int = Field(default=100, ge=1)
    """Width of the codes z and ẑ (nz)."""
    code_side: Literal[1, 4] = 1
    """Places per side of a code: 1 = one vector (paper); 4 = a grid, which keeps places apart."""
    width: int = Field(default=64, ge=1)
    """Channels after the first convolution (ngf = ndf)."""
    extra_layers: int = Field(default=0, ge=0, le=1000)
    """3×3 convolutions after the first block."""
    adversarial: Literal["feature_matching", "bce"] = "feature_matching"
    """L_adv: paired features of D (current code), or BCE(D(x̂), 1) (the code of 2018)."""
    w_adv: float = Field(default=1.0, ge=0)
    w_con: float = Field(default=50.0, ge=0)
    w_enc: float = Field(default=1.0, ge=0)
    score_norm: Literal["l2sq", "l1"] = "l2sq"
    """A(x) = mean (z − ẑ)² (code), or mean |z − ẑ| (paper)."""

    @model_validator(mode="after")
    def _check_size(self) -> GanomalyConfig:
        check_size(self.network_size, self.network_key)
        return self


class SkipGanomalyConfig(GanConfig, RepresentationConfig):
    """Defaults: the authors' code and script for CIFAR-10. The paper names learning_rate 2e-3
    with a decay, which the code never runs."""

    known_terms: ClassVar[tuple[str, ...]] = ("residual", "cosine", "features")

    terms: tuple[str, ...] = ("residual", "features")
    """On maps, by place: residual (x − x̂)²; features (f(x) − f(x̂))² of D, of the image, both in the
    paper's score; cosine 1 − cos(x, x̂)."""
    image_size: int = Field(default=32, ge=8, le=8192)
    """Side in pixels of the square that images are resized to; a power of two, 32 at least."""
    epochs: int = Field(default=25, ge=1)
    """Passes over the training images, as in the script; the paper stops by test scores."""
    latent: int = Field(default=100, ge=1)
    """Width of the discriminator's features f (nz)."""
    width: int = Field(default=64, ge=1)
    """Channels after the first convolution of each network (ngf = ndf)."""
    skip_depth: int = Field(default=0, ge=0)
    """Outermost skips to drop: a full U-Net can copy an anomaly across."""
    w_adv: float = Field(default=1.0, ge=0)
    w_con: float = Field(default=50.0, ge=0)
    """50 in the code, 40 in the paper."""
    w_lat: float = Field(default=1.0, ge=0)
    d_latent: Literal["0", "+", "-"] = "0"
    """Sign of L_lat in L_D: the code adds it ("+"), which teaches D to agree; "-" is unbounded."""
    input_noise: float = Field(default=0.0, ge=0)
    """σ of Gaussian noise on the generator's input while training; in the code it is 0."""
    score_weight: float = Field(default=0.9, ge=0, le=1)
    """λ, the share of the residual in the score."""
    score_norm: Literal["l2sq", "l1"] = "l2sq"
    """Residual as mean (x − x̂)² (code), or mean |x − x̂| (paper); the latent term is squared."""

    @model_validator(mode="after")
    def _check(self) -> SkipGanomalyConfig:
        smallest = 32 if self.representation == "pixels" else 16
        check_size(self.network_size, self.network_key, smallest)
        num_skips = self.network_size.bit_length() - 2
        if self.skip_depth > num_skips:
            raise ConfigError(
                f"skip_depth={self.skip_depth} drops more skips than there are at "
                f"{self.network_key}={self.network_size}: use 0 to {num_skips}"
            )
        return self


class AcganConfig(GanConfig):
    """Defaults: ACGAN's networks for CIFAR-10 (Odena et al., ICML 2017, appendix A) with the heads
    and norms of today. ACGAN trains for 50,000 steps and tries learning rates of 1e-4 to 3e-4."""

    image_size: int = Field(default=32, ge=8, le=8192)
    """Side in pixels of the square that images are resized to: 4·2^m, 16 at least."""
    batch_size: int = Field(default=100, ge=1)
    """Images per step over all workers together."""
    classes: tuple[str, ...] = ("normal",)
    """The labels of the normal types, as the training images carry them; one = no labels needed."""
    head: Literal["projection", "acgan"] = "projection"
    """How D uses the class: in an inner product, or as an auxiliary classifier."""
    score: Literal["source", "class", "combined"] = "combined"
    """−log D_src(x), −log max_c P(c|x), or −log max_c of their product."""
    latent: int = Field(default=110, ge=1)
    """Width of the noise z."""
    generator_width: int = Field(default=96, ge=1)
    """Features of G's last hidden layer; up to eight times as many before it."""
    discriminator_width: int = Field(default=16, ge=1)
    """Features of D's first layer; up to 32 times as many after it."""
    dropout: float = Field(default=0.5, ge=0, lt=1)
    """Dropout in D, after every layer."""
    discriminator_norm: Literal["none", "batch"] = "none"
    """Normalisation in D. With batch-norm (paper), its judgement of single images drifts."""
    w_class: float = Field(default=1.0, ge=0)
    """Weight of the auxiliary classifier's loss (head "acgan")."""

    @model_validator(mode="after")
    def _check(self) -> AcganConfig:
        check_size(self.input_size, self.input_key)
        if not self.classes or len(set(self.classes)) < len(self.classes) or "" in self.classes:
            raise ConfigError(
                f"classes={list(self.classes)} must be different names, one at least: "
                f"name each normal type once"
            )
        return self
