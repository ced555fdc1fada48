"""Scoring as ganad does it, beside the bare forward pass of the same networks."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ganad.detectors import configure, create
from ganad.detectors.base import Detector, has_fast_bfloat16
from ganad.detectors.gan.ganomaly import Ganomaly
from ganad.detectors.maps.mapped import MapDetector
from ganad.detectors.maps.patchcore import Patchcore
from ganad.detectors.statistics.pooled import PooledDetector
from pipelines.benchmark.gpu.bench import Bench, Line, Rate, pictures, word

COMPILED = "bare, compiled"
"""How the way begins that the others are compared with."""
COMPILE_S = 60.0
"""What a compilation may take; it is not begun later than so long before the end."""
BATCHES = 8
"""Batches of a call on a GPU: a job gives a unit of thousands of images, so that one batch can be
sent to the GPU while it works on the one before."""
LARGE = 256
"""Images of a large batch."""


@dataclass(frozen=True)
class Scoring:
    """A detector with its first weights, on whose values its speed does not depend."""

    table: ClassVar[str] = "scoring"
    detector: str
    values: Mapping[str, Any]

    def lines(self, name: str, bench: Bench) -> Iterator[Line]:
        detector = _ready(create(self.detector, configure(self.detector, self.values)), bench)
        half = torch.bfloat16 if has_fast_bfloat16(bench.device) else torch.float32
        for kind in dict.fromkeys((detector.data_type, half)):
            detector.config = detector.config.model_copy(update={"precision": word(kind)})
            num = detector.scoring_batch * (BATCHES if bench.on_gpu else 1)
            way = f"ganad score, {word(kind)}"
            yield self._line(name, bench, way, _scorer(detector, num), num)
        num = detector.scoring_batch
        way = f"ganad score_batch, {word(half)}, images on the device"
        yield self._line(name, bench, way, _batch_scorer(detector, num), num)
        network = bare(detector)
        shape = (detector.config.channels, *[detector.config.image_size] * 2)
        sizes = (num, LARGE) if bench.on_gpu else (num,)
        del detector
        first = _forward(network, (num, *shape), torch.contiguous_format)
        yield self._line(name, bench, "bare, float32", first, num)
        network = network.to(half).to(memory_format=torch.channels_last)
        for size in sizes:
            way = f"bare, channels_last, {word(half)}" + (f", batch {size}" * (size != num))
            yield self._line(name, bench, way, _forward(network, (size, *shape)), size)
        way = f"{COMPILED}, channels_last, {word(half)}"

        def measure(facts: dict[str, Any]) -> Rate:
            began = time.perf_counter()
            compiled = torch.compile(network, mode="reduce-overhead")
            work = _forward(compiled, (num, *shape))()
            work()
            bench.wait()
            facts["compile_s"] = round(time.perf_counter() - began, 1)
            return bench.measure(work, num)

        line = bench.line(name, way, measure, spare_s=COMPILE_S)
        line.facts |= self._facts(num)
        torch.compiler.reset()  # its graphs hold memory of the GPU
        yield line

    def _line(
        self, name: str, bench: Bench, way: str, make: Callable[[], Callable[[], object]], num: int
    ) -> Line:
        line = bench.line(name, way, lambda facts: bench.measure(make(), num))
        line.facts |= self._facts(num)
        return line

    def _facts(self, num: int) -> dict[str, Any]:
        backbone = self.values.get("backbone", {}).get("name", "")
        facts = {"detector": self.detector, "network": backbone or self.detector}
        return {**facts, "image_size": self.values["image_size"], "images": num}


def _ready(detector: Detector[Any], bench: Bench) -> Detector[Any]:
    """Where a job has it, with something in the memory of a detector that compares with one."""
    if isinstance(detector, Patchcore):
        generator = torch.Generator().manual_seed(0)
        size = (detector.config.entries, detector.maps.channels)
        detector.memory = torch.randn(size, generator=generator)
        detector.maps.mean.zero_()
        detector.maps.scale.fill_(1)
    return detector.to(bench.device).to(memory_format=torch.channels_last)


def _images(detector: Detector[Any], num: int) -> Tensor:
    some = pictures(8, detector.config.image_size, detector.config.channels)
    return torch.from_numpy(some).repeat(-(-num // 8), 1, 1, 1)[:num]


def _scorer(detector: Detector[Any], num: int) -> Callable[[], Callable[[], object]]:
    """The path of a job: decoded images in the memory of the machine -> scores there."""

    def make() -> Callable[[], object]:
        images, ids = _images(detector, num), [str(number) for number in range(num)]
        return lambda: detector.score(images, ids)

    return make


def _batch_scorer(detector: Detector[Any], num: int) -> Callable[[], Callable[[], object]]:
    """The same without copies to and from the device."""

    def make() -> Callable[[], object]:
        images = _images(detector, num).to(detector.device)
        ids = [str(number) for number in range(num)]

        def work() -> None:
            with detector.scoring():
                detector.score_batch(images, ids, False)

        return work

    return make


def _forward(
    network: Any, shape: tuple[int, ...], memory_format: torch.memory_format = torch.channels_last
) -> Callable[[], Callable[[], object]]:
    """The pass of a network over normalised images that lie on its device in its own type."""

    def make() -> Callable[[], object]:
        drawn = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        images = drawn.to(next(network.parameters())).contiguous(memory_format=memory_format)

        def work() -> None:
            with torch.no_grad():
                network(images)

        return work

    return make


class Passes(nn.Module):
    """The three networks that score in GANomaly."""

    def __init__(self, detector: Ganomaly) -> None:
        super().__init__()
        self.encoder1, self.decoder = detector.encoder1, detector.decoder
        self.encoder2 = detector.encoder2

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(n, c, s, s) in [-1, 1] -> z, x̂ and ẑ."""
        z = self.encoder1(x)
        x_hat = self.decoder(z)
        return z, x_hat, self.encoder2(x_hat)


def bare(detector: Detector[Any]) -> nn.Module:
    """A copy of the networks alone, as timm or the paper has them, channels first and in float32.
    An EfficientNet is cut off behind the last stage that the detector uses."""
    if isinstance(detector, Ganomaly):
        found: nn.Module = Passes(detector)
    else:
        assert isinstance(detector, MapDetector | PooledDetector)
        held = detector.maps if isinstance(detector, MapDetector) else detector
        network, last = held.extractor.network, list(held.extractor.dimensions)[-1]
        num = len(network.blocks) if last == "head" else int(last.rpartition(".")[2]) + 1
        head = (network.conv_head, network.bn2) if last == "head" else ()
        found = nn.Sequential(network.conv_stem, network.bn1, *network.blocks[:num], *head)
    copied = copy.deepcopy(found).eval().requires_grad_(False)
    return copied.to(memory_format=torch.contiguous_format)
