"""AnoGAN (Schlegl, Seeböck, Waldstein, Schmidt-Erfurth, Langs: "Unsupervised Anomaly Detection with
Generative Adversarial Networks to Guide Marker Discovery", IPMI 2017).

A DCGAN learns normal images; scoring searches the z whose image is nearest to x.

    R(z) = Σ |x − G(z)|,  Df(z) = Σ |f(x) − f(G(z))|,  A(x) = (1 − λ)·R(z*) + λ·Df(z*)
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from ganad import losses
from ganad.batch.fixed import fixed
from ganad.detectors import places
from ganad.detectors.base import BatchScores, Scores, data_type
from ganad.detectors.gan.config import AnoganConfig, FanoganConfig
from ganad.detectors.gan.game import AdversarialDetector
from ganad.detectors.gan.latent_search import Found, LatentSearch, SearchOptions
from ganad.detectors.gradient import Step
from ganad.errors import ConfigError
from ganad.networks.dcgan import Generator, opponent
from ganad.networks.resnet import (
    SIDE,
    ResnetCritic,
    ResnetEncoder,
    ResnetGenerator,
)
from ganad.storage import files as storage

SHARED = ("channels", "latent", "width", "latent_range")
"""Keys that a warm start and its f-AnoGAN have in common, beside the inputs'."""
QUEUE = 8
"""Images per score_batch, in units of search_batch: enough to keep the slots full."""


class Anogan(AdversarialDetector[AnoganConfig]):
    name = "anogan"
    summary = "GAN of normal images; score = distance to the nearest image that it can generate"
    paper = "Schlegl et al., AnoGAN, IPMI 2017"
    good_at = "small aligned patches, where normal images vary in few ways; clear residual maps"
    bad_at = "speed: hundreds of steps for each image; plain or blank images score low"
    Config = AnoganConfig
    num_validated = 8  # each is a whole search

    def __init__(self, config: AnoganConfig, load_weights: bool = True) -> None:
        super().__init__(config, load_weights)
        size, channels, bounded = self.shape
        code = (config.width, config.latent)
        self.encoder: nn.Module | None = None
        if config.warm_start is None:
            self.generator = Generator(size, channels, *code, bounded)
        else:
            self.generator = ResnetGenerator(size, channels, *code, bounded)
            self.encoder = ResnetEncoder(size, channels, *code, config.latent_range)
        self.discriminator = self.new_discriminator()
        if config.warm_start is not None and load_weights:
            self._load_fanogan(config.warm_start)

    def new_discriminator(self) -> nn.Module:
        config = self.config
        shape = (self.shape.size, self.shape.channels, config.width)
        if config.warm_start is not None:
            return ResnetCritic(*shape)
        return opponent(*shape, layer_norm=config.adversarial == "wgan-gp")

    def _load_fanogan(self, folder: str) -> None:
        """Load the networks of a saved f-AnoGAN; raises ConfigError if they do not fit."""
        card = storage.join(folder, "model.json")
        info = storage.read_json(card) if storage.exists(card) else {}
        if info.get("detector") != "fanogan":
            raise ConfigError(
                f"warm_start={folder} is not a saved fanogan: give the folder of a model that "
                f"ganad train fanogan wrote"
            )
        saved = FanoganConfig.model_validate(info["config"])
        maps = self.maps is not None
        for key in ("representation", "input_size", *SHARED, *(["backbone"] if maps else [])):
            value, needed = getattr(self.config, key), getattr(saved, key)
            name = self.config.input_key if key == "input_size" else key
            if value != needed:
                raise ConfigError(f"{name}={value} differs from warm_start: set {name} to {needed}")
        weights = load_tensors(storage.read_bytes(storage.join(folder, "model.safetensors")))
        # The mean and spread of its terms are not ours.
        weights = {key: one for key, one in weights.items() if not key.startswith("scale.")}
        missing, _ = self.load_state_dict(weights, strict=False)
        assert not {key for key in missing if "." in key and not key.startswith("scale.")}, missing

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        if self.encoder is not None:
            return {}
        return {
            "generator": self.adam(self.generator),
            "discriminator": self.adam(self.discriminator),
        }

    def training_step(self, images: Tensor, step: Step) -> dict[str, Tensor]:
        if self.encoder is None:
            return self.play(images, step, step.total)
        if step.number == 0:
            step.event("nothing is trained: the networks come from warm_start; use epochs=1")
        return {}

    def search(self, images: Tensor, ids: Sequence[str]) -> Found:
        """The nearest G(z) to each prepared image; ids seed the starts."""
        return self.searcher().run(images, self.starts_of(images, ids))

    def searcher(self) -> LatentSearch:
        """A search with the networks as they are now."""
        config = self.config
        options = SearchOptions(
            steps=config.search_steps,
            rate=config.search_rate,
            feature_share=config.feature_share,
            reduction=config.reduction,
            prior=config.prior,
            tolerance=config.tolerance,
            keep=config.keep,
            slots=config.search_batch,
            dtype=data_type(config.precision, self.device),
        )
        features = self.discriminator.features
        assert isinstance(features, nn.Module)
        return LatentSearch(self.generator, features, options)

    def starts_of(self, images: Tensor, ids: Sequence[str]) -> Tensor:
        """Where the searches begin, (n, restarts, latent): with a warm start, the first of an image
        at its code."""
        starts = self.starts(ids).to(self.device)
        if self.encoder is not None:
            starts[:, 0] = self._encode(images)
        return starts

    def starts(self, ids: Sequence[str]) -> Tensor:
        """z₀ ~ N(0, I) for each restart, (n, restarts, latent), a function of (seed, id)."""
        shape = (self.config.restarts, self.config.latent)
        drawn = []
        for name in ids:
            digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
            generator = np.random.default_rng([self.config.seed, int.from_bytes(digest)])
            drawn.append(generator.standard_normal(shape, dtype=np.float32))
        return torch.from_numpy(np.stack(drawn))

    def _encode(self, images: Tensor) -> Tensor:
        """E(x), computed in batches of one shape."""
        assert self.encoder is not None
        size, codes = self.config.search_batch, []
        for some in images.split(size):
            batch, num = fixed(some, size)
            codes.append(self.encoder(batch)[:num])
        return torch.cat(codes)

    def reconstruct(self, images: Tensor) -> Tensor:
        return self.search(images, [""] * len(images)).images

    def score_inputs(
        self,
        images: Tensor,
        ids: Sequence[str] | None = None,
        maps: bool = False,
        pad: bool = True,
    ) -> Scores:
        names = list(ids) if ids is not None else [""] * len(images)
        size = QUEUE * self.config.search_batch  # the search itself keeps its batches' shape
        parts = []
        with self.scoring():
            for start in range(0, len(images), size):
                batch = images[start : start + size]
                part = self.score_batch(batch, names[start : start + size], maps)
                parts.append(part.head(len(batch)))
        return Scores.concatenate(parts)

    def score_pixels(self, x: Tensor, ids: Sequence[str], maps: bool) -> BatchScores:
        found = self.search(x, ids)
        return BatchScores(
            found.loss,
            {"residual": found.residual, "discrimination": found.discrimination},
            losses.absolute_map(x, found.images) if maps else None,
        )

    def score_places(self, x: Tensor, ids: Sequence[str]) -> dict[str, Tensor]:
        found = self.search(x, ids).images
        features = self.discriminator.features
        assert isinstance(features, nn.Module)
        f_x, f_found = (features(images) for images in (x, found))
        if f_x.ndim == 2:  # a critic's, flattened
            f_x, f_found = (one.unflatten(1, (-1, SIDE, SIDE)) for one in (f_x, f_found))
        return {
            "residual": losses.absolute_map(x, found),
            "cosine": places.cosine(x, found),
            "features": losses.absolute_map(f_x, f_found),
        }
