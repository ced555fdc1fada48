"""The protocol that every detector keeps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from itertools import chain
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from ganad.batch import patches
from ganad.batch.config import PatchConfig, corners
from ganad.batch.fixed import fixed
from ganad.detectors.config import DetectorConfig, Precision


@cache
def has_fast_bfloat16(device_type: str) -> bool:
    """True if the hardware computes in bfloat16; emulated, it takes 10 to 80 times float32."""
    if device_type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    instructions = torch.cpu.get_capabilities()
    return bool(instructions.get("avx512_bf16") or instructions.get("amx_bf16"))


def data_type(precision: Precision, device: torch.device) -> torch.dtype:
    """The type that forward passes compute in on the device."""
    if precision == "auto":
        return torch.bfloat16 if has_fast_bfloat16(device.type) else torch.float32
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


ConfigT = TypeVar("ConfigT", bound=DetectorConfig)
GROUP_PATCHES, GROUP_PIXELS = 1024, 2**24
"""Most windows, and most pixels of whole images, that are scored together: enough to fill batches
with the windows of many images, and little enough for the memory."""


@dataclass
class Scores:
    """The scores of n images.

    score: float64 (n,), larger = more anomalous.
    terms: the named parts of the score, each float64 (n,).
    maps: float32 (n, h, w), larger = more anomalous, or None.
    """

    score: np.ndarray
    terms: dict[str, np.ndarray] = field(default_factory=dict)
    maps: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.score)

    @staticmethod
    def concatenate(parts: Sequence[Scores]) -> Scores:
        """Join the scores of consecutive batches."""
        maps = [part.maps for part in parts if part.maps is not None]
        return Scores(
            np.concatenate([part.score for part in parts]),
            {name: np.concatenate([part.terms[name] for part in parts]) for name in parts[0].terms},
            np.concatenate(maps) if len(maps) == len(parts) else None,
        )

    def head(self, num: int) -> Scores:
        """The first num images."""
        return Scores(
            self.score[:num],
            {name: term[:num] for name, term in self.terms.items()},
            None if self.maps is None else self.maps[:num],
        )


@dataclass
class BatchScores:
    """The scores of one batch, as the networks give them: tensors of any precision and device.

    Fields as in Scores.
    """

    score: Tensor
    terms: dict[str, Tensor] = field(default_factory=dict)
    maps: Tensor | None = None

    def head(self, num: int) -> Scores:
        """The first num images, as arrays."""
        return self.sent(num)()

    def sent(self, num: int) -> Callable[[], Scores]:
        """Send the first num images' scores on their way to arrays, which the result waits for.
        Work given to a GPU in between does not delay them."""
        score = _sent(self.score[:num].double())
        terms = {name: _sent(term[:num].double()) for name, term in self.terms.items()}
        maps = None if self.maps is None else _sent(self.maps[:num].float())
        arrived = None
        if self.score.is_cuda:
            arrived = torch.cuda.Event()
            arrived.record(torch.cuda.current_stream(self.score.device))

        def scores() -> Scores:
            if arrived is not None:
                arrived.synchronize()
            return Scores(
                score.numpy(),
                {name: term.numpy() for name, term in terms.items()},
                None if maps is None else maps.numpy(),
            )

        return scores


def _sent(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", non_blocking=tensor.is_cuda)


Engine = Callable[[Tensor, Sequence[str], bool], BatchScores]
"""Takes what Detector.score_batch takes, and gives what it gives."""


class Detector(nn.Module, Generic[ConfigT]):
    """A config plus networks, and a score that depends on the model and one image alone.

    Subclasses set the class variables and build their networks in __init__, with
    torch.manual_seed(config.seed) already called by initialized.
    """

    name: ClassVar[str]
    """As typed on the command line."""
    summary: ClassVar[str]
    """One line: what it does."""
    paper: ClassVar[str]
    """Authors, title, year."""
    good_at: ClassVar[str]
    bad_at: ClassVar[str]
    Config: ClassVar[type[DetectorConfig]]
    scoring_batch: ClassVar[int] = 32
    """Images per forward pass when scoring. Fixed, the last batch padded: processors choose kernels
    by the batch's size, and the last bits of a score depend on the kernel."""

    def __init__(self, config: ConfigT) -> None:
        super().__init__()
        self.config = config
        self.engine: Engine | None = None
        """Runs score_batch in a compiled form; see ganad.engines."""

    @classmethod
    def initialized(cls, config: ConfigT) -> Self:
        """A detector with its first weights drawn from config.seed, in eval mode."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            return cls(config).eval()

    @classmethod
    def num_bytes(cls, config: ConfigT) -> float | None:
        """The size of a detector's state, found without allocating it: infinity for more than a
        tensor can hold, None where it does not follow from the config alone."""
        return None

    @classmethod
    def from_saved(cls, config: ConfigT) -> Self:
        """A detector whose state dict is about to be loaded; it reads no other file."""
        return cls(config)

    @property
    def device(self) -> torch.device:
        # Not by the state dict: to make that of a deep network takes milliseconds.
        return next(chain(self.parameters(), self.buffers())).device

    def prepare(self, images: Tensor) -> Tensor:
        """uint8 (n, c, h, w) in 0..255 -> float32 in [-1, 1], the range of a tanh generator.

        Raises ValueError unless images are uint8 of the configured channels and size.
        """
        expected = (self.config.channels, self.config.input_size, self.config.input_size)
        if images.dtype != torch.uint8 or images.ndim != 4 or tuple(images.shape[1:]) != expected:
            raise ValueError(
                f"{self.name} takes uint8 images of shape (n, {', '.join(map(str, expected))}), "
                f"got {images.dtype} {tuple(images.shape)}: decode them with ganad.images.decode"
            )
        device = self.device
        if device.type == "cuda" and images.device.type == "cpu":
            # From pinned memory the GPU copies by itself, and this thread goes on.
            images = images.pin_memory().to(device, non_blocking=True)
        images = images.to(device).contiguous(memory_format=torch.channels_last)
        return images.float().div_(127.5).sub_(1.0)

    @property
    def data_type(self) -> torch.dtype:
        """The type that forward passes compute in where the networks are."""
        return data_type(self.config.precision, self.device)

    def autocast(self) -> torch.autocast:
        """The configured precision, on the device where the networks are."""
        half = self.data_type == torch.bfloat16
        return torch.autocast(self.device.type, torch.bfloat16, enabled=half)

    @contextmanager
    def scoring(self) -> Iterator[None]:
        """Eval mode without gradients; the mode before is restored."""
        was_training = self.training
        self.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.train(was_training)

    def facts(self) -> dict[str, Any]:
        """Facts that a saved model records beside its config, such as the digest of a backbone."""
        return {}

    @abstractmethod
    def score_batch(self, images: Tensor, ids: Sequence[str], maps: bool) -> BatchScores:
        """Score uint8 images (n, c, h, w); called in eval mode, without gradients.

        ids name the images: a method that draws noise seeds it by (config.seed, id).
        """

    def patches(self, images: Tensor) -> Tensor:
        """The inputs of the networks: the windows of the images, those of an image one after
        another, or without patches the images themselves."""
        return images if self.config.patch is None else patches.cut(images, self.config.patch)

    def score(
        self,
        images: Tensor,
        ids: Sequence[str] | None = None,
        maps: bool = False,
        *,
        pad: bool = True,
    ) -> Scores:
        """Score uint8 images (n, c, h, w), n >= 1, any n; with patches, each by its windows.

        pad: fill the last batch up to scoring_batch. Without it few images are scored sooner, and
        their scores may differ in the last bits. An engine always fills up.
        """
        patch, size = self.config.patch, self.config.image_size
        if patch is None:
            return self.score_inputs(images, ids, maps, pad)
        names = list(ids) if ids is not None else [""] * len(images)
        num = len(corners(size, patch))
        together = max(1, min(GROUP_PATCHES // num, GROUP_PIXELS // size**2))
        parts = []
        for start in range(0, len(images), together):
            group = patches.cut(images[start : start + together], patch)
            windows = [
                f"{name}#{k}" for name in names[start : start + together] for k in range(num)
            ]
            parts.append(self._pool(self.score_inputs(group, windows, maps, pad), patch, num))
        return Scores.concatenate(parts)

    def _pool(self, windows: Scores, patch: PatchConfig, num: int) -> Scores:
        """Scores of windows, num to an image, -> scores of the images."""
        by_image = windows.score.reshape(-1, num)
        shares = patches.weights(by_image, patch)
        terms = {
            name: (term.reshape(-1, num) * shares).sum(1) for name, term in windows.terms.items()
        }
        maps = None
        if windows.maps is not None:
            by_window = torch.from_numpy(windows.maps)[:, None]
            maps = patches.stitch(by_window, self.config.image_size, patch)[:, 0].numpy()
        return Scores((by_image * shares).sum(1), terms, maps)

    def score_inputs(
        self,
        images: Tensor,
        ids: Sequence[str] | None = None,
        maps: bool = False,
        pad: bool = True,
    ) -> Scores:
        """Score uint8 images of the size that the networks see (n, c, s, s), n >= 1, any n."""
        names = list(ids) if ids is not None else [""] * len(images)
        run = self.engine or self.score_batch
        parts: list[Scores] = []
        before: Callable[[], Scores] | None = None
        with self.scoring():
            for start in range(0, len(images), self.scoring_batch):
                end = start + self.scoring_batch
                batch, batch_names = images[start:end], names[start:end]
                num = len(batch)
                if pad or self.engine is not None:
                    batch, num = fixed(batch, self.scoring_batch)
                batch_names += batch_names[-1:] * (len(batch) - num)
                sent = run(batch, batch_names, maps).sent(num)
                # One batch late: a GPU that has the next batch never waits for this thread.
                if before is not None:
                    parts.append(before())
                before = sent
            if before is not None:
                parts.append(before())
        return Scores.concatenate(parts)


StatisticsT = TypeVar("StatisticsT")


class StatisticsDetector(Detector[ConfigT], Generic[ConfigT, StatisticsT]):
    """A detector fitted by one pass that gathers mergeable statistics."""

    @abstractmethod
    def begin(self, images: Tensor) -> StatisticsT:
        """Empty statistics, made from the first uint8 images (for shifts and shapes)."""

    @abstractmethod
    def observe(self, statistics: StatisticsT, images: Tensor) -> StatisticsT:
        """The statistics with uint8 images (n, c, h, w), whole ones, added."""

    @abstractmethod
    def merge(self, parts: Iterable[StatisticsT]) -> StatisticsT:
        """The statistics of all parts together, in any order."""

    @abstractmethod
    def finish(self, statistics: StatisticsT) -> dict[str, Any]:
        """Fit the detector to the statistics; returns facts for the training history."""


class Extendable(ABC, Generic[StatisticsT]):
    """Mixed into a StatisticsDetector that images can be added to after the fit, without those it
    was fitted on: it keeps its statistics, and scores held-out images from what is kept of them."""

    @property
    @abstractmethod
    def statistics(self) -> StatisticsT:
        """The statistics that the detector was fitted to."""

    @abstractmethod
    def vectors(self, images: Tensor) -> dict[str, np.ndarray]:
        """uint8 images (n, c, h, w) -> what score_vectors scores, by level: float32 (n, d), or
        (n, windows, d) with patches. They do not depend on the fit."""

    @abstractmethod
    def score_vectors(self, vectors: Mapping[str, np.ndarray]) -> np.ndarray:
        """The scores of the images that vectors() was given, float64 (n,)."""
