"""AnoGAN's search with untrained networks, one image after the other and many at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ganad.detectors import configure, create
from ganad.detectors.gan.anogan import Anogan
from pipelines.benchmark.gpu.bench import Bench, Line, Rate, pictures
from pipelines.benchmark.search import alone

FEW_STEPS = 20
"""Steps of a search on a processor, where all of them would take minutes."""


@dataclass(frozen=True)
class Search:
    """slots: images searched at once; the first number is ganad's default."""

    table: ClassVar[str] = "search"
    values: Mapping[str, Any]
    slots: Sequence[int] = (32, 256)

    def lines(self, name: str, bench: Bench) -> Iterator[Line]:
        config = configure("anogan", self.values)
        detector = create("anogan", config)
        assert isinstance(detector, Anogan)
        detector.to(bench.device).to(memory_format=torch.channels_last)
        steps = detector.config.search_steps if bench.on_gpu else FEW_STEPS
        detector.config = detector.config.model_copy(update={"search_steps": steps})
        for way, is_frozen in (("one by one", False), ("one by one, frozen", True)):

            def single(_: Any, is_frozen: bool = is_frozen) -> Rate:
                detector.requires_grad_(not is_frozen)
                images, ids = _some(detector, 1)
                start = detector.starts(ids)[:, 0].to(images.device)
                return bench.measure(lambda: alone(detector, images, start), 1, warm_up=1)

            yield self._with_facts(bench.line(name, way, single), steps, 1)
        detector.requires_grad_(False)
        for num in self.slots if bench.on_gpu else self.slots[:1]:

            def many(_: Any, num: int = num) -> Rate:
                update = {"search_batch": num}
                detector.config = detector.config.model_copy(update=update)
                images, ids = _some(detector, num)
                return bench.measure(lambda: detector.search(images, ids), num, warm_up=1)

            way = f"together, {num} at once"
            yield self._with_facts(bench.line(name, way, many), steps, num)

    def _with_facts(self, line: Line, steps: int, num: int) -> Line:
        line.facts |= {"steps": steps, "images": num, "image_size": self.values["image_size"]}
        return line


def _some(detector: Anogan, num: int) -> tuple[Tensor, list[str]]:
    config = detector.config
    pixels = torch.from_numpy(pictures(num, config.image_size, config.channels))
    return detector.prepare(pixels), [str(number) for number in range(num)]
