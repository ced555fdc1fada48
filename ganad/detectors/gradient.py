"""The protocol of the detectors that are trained by gradient, on pixels or on maps."""

from __future__ import annotations

import math
import os
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self, TypeVar

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ganad.batch import patches
from ganad.batch.fixed import fixed
from ganad.batch.ranks import Ranks
from ganad.detectors.base import BatchScores, Detector
from ganad.detectors.config import GradientConfig, RepresentationConfig
from ganad.detectors.places import TermScale
from ganad.errors import ConfigError

if TYPE_CHECKING:
    from ganad.features.maps import FeatureMaps

MAPS_BATCH = 16
"""Images per forward pass of the frozen network."""
LARGEST_HALF = 65504.0
"""The largest float16; maps are kept in it."""
SPLIT = 2.0**13 + 1
"""Multiplied by it, a float32 loses the 13 bits that float16 does not have."""

GradientConfigT = TypeVar("GradientConfigT", bound=GradientConfig)
Update = Callable[[str, Tensor], None]
"""update(optimiser name, loss): one backward pass into that optimiser's parameters alone (every
one of them must take part), gradients averaged over workers, one step. The graph is kept, so that
one forward pass can serve several updates. The loss is the mean over this worker's images, or a
value that is the same on all workers."""


@dataclass
class Step:
    """The training loop's side of one training step."""

    update: Update
    number: int
    """Steps done before this one."""
    total: int
    mean: Callable[[Tensor], float]
    """The mean of a scalar over all workers, for decisions that they must take together."""
    reset_optimizer: Callable[[str], None]
    """Forget an optimiser's moments (after its network is reinitialized)."""
    event: Callable[[str], None]
    """Report something the user should know; stored with the step in the training history."""
    ranks: Ranks = field(default_factory=Ranks)
    """The workers that share the batch. They draw all noise and take every mean over the batch that
    is not a loss through it, so that N workers make the steps of one."""
    labels: Tensor | None = None
    """The label numbers of the images (see label_numbers), int64 (n,), or None."""


class Inputs(NamedTuple):
    """The shape and range of what networks see, n×channels×size×size."""

    size: int
    channels: int
    bounded: bool
    """Values lie in [-1, 1], where a generator ends in tanh; else its end is linear."""


class _NoDraws(TorchFunctionMode):
    """Leaves weights as they are instead of drawing them. On the device "meta", which holds no
    numbers, a draw makes torch import its compiler, which takes a second."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


class GradientDetector(Detector[GradientConfigT]):
    """A detector whose networks are trained step by step.

    They see pixels in [-1, 1], or, with representation = "maps", standardised dense maps of a
    frozen network, which is part of the model (or see pixels and learn from such maps):

        raw = detector.represent(images)     # once per image; may be kept
        detector.maps.fit(moments)           # of the training images' raw maps
        ...                                  # training steps on detector.inputs(raw)
        detector.scale.fit(terms)            # of normal images that did not train
    """

    num_validated: ClassVar[int] = 256
    """Held-out images that are scored after each epoch, at most."""
    rebuilds: ClassVar[bool] = True
    """False if reconstruct() gives pictures that are not meant to be those of its inputs, or if
    there are none."""
    sees_maps: ClassVar[bool] = True
    """False if the networks see pixels even where there is a frozen network, whose maps they learn:
    these are made in each step and not kept."""

    def __init__(self, config: GradientConfigT, load_weights: bool = True) -> None:
        """load_weights: read the weights of the frozen network, if there is one."""
        super().__init__(config)
        self.maps: FeatureMaps | None = None
        self.scale: TermScale | None = None
        self.shape = Inputs(config.input_size, config.channels, bounded=True)
        if isinstance(config, RepresentationConfig) and config.representation == "maps":
            # Not above: it imports timm, which takes seconds.
            from ganad.features.maps import FeatureMaps

            backbone = config.backbone.model_copy(update={"grid": config.network_size})
            self.maps = FeatureMaps(
                backbone, config.input_size, config.seed, load_weights, config.input_key
            )
            self.scale = TermScale(config.known_terms, config.terms, config.map_terms)
            self.shape = Inputs(self.maps.grid, self.maps.channels, bounded=False)

    @classmethod
    def initialized(cls, config: GradientConfigT) -> Self:
        """As in Detector; raises ConfigError for networks that this machine cannot hold."""
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        needed = cls.num_bytes(config)
        if needed is not None and needed > memory:
            raise ConfigError(
                f"{cls.name} with these keys has networks of {needed / 1e9:,.0f} GB, more than the "
                f"{memory / 1e9:,.0f} GB of this machine: lower the keys that are sizes, such as "
                f"width and latent"
            )
        return super().initialized(config)

    @classmethod
    def num_bytes(cls, config: GradientConfigT) -> float | None:
        try:
            with torch.device("meta"), _NoDraws():
                return sum(one.nbytes for one in cls.from_saved(config).state_dict().values())
        except (OverflowError, TypeError):  # an integer of more than 64 bits
            return math.inf
        except RuntimeError as error:
            # Networks that look at their own weights cannot be built without any.
            return math.inf if "overflow" in str(error) else None

    @classmethod
    def from_saved(cls, config: GradientConfigT) -> Self:
        """Without the file or hub of a frozen network's weights: they are part of the state."""
        return cls(config, load_weights=False)

    def facts(self) -> dict[str, Any]:
        if self.maps is None:
            return {}
        extractor = self.maps.extractor
        return {"weights": extractor.source, "weights_digest": extractor.digest}

    def represent(self, images: Tensor) -> Tensor:
        """uint8 images (n, c, h, w) -> what may be kept of them for training: the images
        themselves, or raw maps, float16 (n, C, grid, grid)."""
        return self.raw_maps(self.prepare(images)) if self._maps_are_inputs else images

    def inputs(self, images: Tensor, vary: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """uint8 images, or raw maps that represent() has made of them -> what the networks see,
        float32. vary changes images in [-1, 1] first; raw maps cannot be varied."""
        if self.maps is not None and images.dtype == torch.float16:
            return self.standardised(images.to(self.device))
        prepared = self.prepare(images)
        if vary is not None:
            prepared = vary(prepared)
        return self.standardised(self.raw_maps(prepared)) if self._maps_are_inputs else prepared

    @property
    def _maps_are_inputs(self) -> bool:
        return self.maps is not None and self.sees_maps

    @torch.no_grad()
    def raw_maps(self, prepared: Tensor) -> Tensor:
        """Prepared images -> raw maps of the frozen network, float16 (n, C, grid, grid). In batches
        of one size, so that maps made again are the maps that were kept."""
        assert self.maps is not None
        parts = []
        for some in prepared.split(MAPS_BATCH):
            batch, num = fixed(some, MAPS_BATCH)
            with self.autocast():
                raw = self.maps(batch)
            parts.append(_to_half(raw[:num].float()))
        return torch.cat(parts)

    def standardised(self, raw: Tensor) -> Tensor:
        """Raw maps -> float32, each channel with mean 0 and spread 1 over the training images."""
        assert self.maps is not None
        seen = self.maps.standardise(raw.float())
        return seen.contiguous(memory_format=torch.channels_last)

    def score_batch(self, images: Tensor, ids: Sequence[str], maps: bool) -> BatchScores:
        x = self.inputs(images)
        if self.scale is None or not self.sees_maps:
            return self.score_pixels(x, ids, maps)
        assert isinstance(self.config, RepresentationConfig)
        side = self.config.input_size if maps else None
        return self.scale.score(self.score_places(x, ids), self.config.worst, side)

    @abstractmethod
    def score_pixels(self, x: Tensor, ids: Sequence[str], maps: bool) -> BatchScores:
        """The method's scores of prepared images (see prepare); ids as in score_batch."""

    def score_places(self, x: Tensor, ids: Sequence[str]) -> dict[str, Tensor]:
        """Inputs that are maps -> the config's known_terms by place, each (n, h, w) of its own
        sides, larger = more anomalous. Called where the config can say representation = "maps"."""
        raise NotImplementedError(f"{self.name} has no terms by place")

    def label_numbers(self, labels: Sequence[str | None]) -> Tensor | None:
        """Labels of the training images -> int64 (n,), for a method that learns from the types of
        normal images; None for all others."""
        return None

    @abstractmethod
    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Optimisers by name, each over its own networks' parameters."""

    @abstractmethod
    def training_step(self, images: Tensor, step: Step) -> dict[str, Tensor]:
        """One step on inputs (see inputs); calls step.update once per optimiser.

        Returns detached scalar losses by name. Runs in train mode and under the loop's autocast.
        """

    def reconstruct(self, images: Tensor) -> Tensor:
        """Inputs -> their reconstructions, same shape and range; in eval mode."""
        raise NotImplementedError(f"{self.name} rebuilds nothing")

    def rebuild(self, images: Tensor) -> Tensor | None:
        """uint8 images (n, c, h, w) -> their reconstructions in [-1, 1]; with patches, of windows
        that are then put together. None where it is maps, which cannot be looked at, or nothing
        that is reconstructed."""
        if self.maps is not None:
            return None
        with self.scoring():
            rebuilt = self.reconstruct(self.prepare(self.patches(images))).float()
        if self.config.patch is None:
            return rebuilt
        return patches.stitch(rebuilt, self.config.image_size, self.config.patch)


def _to_half(maps: Tensor) -> Tensor:
    """float32 -> float16. Rounded by arithmetic first (Dekker 1971), to the 11 bits that float16
    has: engines that compute all in float32 leave out the conversion alone."""
    bounded = maps.clamp(-LARGEST_HALF, LARGEST_HALF)
    far = bounded * SPLIT
    return (far - (far - bounded)).half()
