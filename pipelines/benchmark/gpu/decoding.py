"""Decoding of JPEGs: ganad's, in one process as a decode worker is, and torchvision's on a GPU."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image

from ganad.images.decode import Preprocessing, decode
from pipelines.benchmark.gpu.bench import Bench, Line, Rate, clock

QUALITY = 90
GRAIN = 6
"""Noise of a pixel, either way: without any a JPEG is small and quick as no photograph is."""
AT_ONCE = 2**26
"""Pixels that torchvision decodes on a GPU in a call."""
MOST = 64
"""JPEGs of a call at the most."""


@dataclass(frozen=True)
class Decoding:
    """sources: width and height of JPEGs. sides: of what detectors see of them."""

    table: ClassVar[str] = "decoding"
    sources: Sequence[tuple[int, int]] = ((256, 256), (4000, 3000))
    sides: Sequence[int] = (64, 224, 256, 380)

    def lines(self, name: str, bench: Bench) -> Iterator[Line]:
        for width, height in self.sources:
            data = jpeg(width, height)
            known = {"width": width, "height": height, "bytes": len(data)}
            for side in self.sides:
                preprocessing = Preprocessing(image_size=side)

                def here(
                    _: Any, data: bytes = data, preprocessing: Preprocessing = preprocessing
                ) -> Rate:
                    found = decode(data, preprocessing)
                    if found.error is not None:
                        raise ValueError(found.error)
                    return clock(lambda: decode(data, preprocessing), 1, min(bench.seconds, 1))

                line = bench.line(name, f"one process, to {side} px", here)
                line.facts |= {**known, "side": side}
                yield line
            way = "torchvision.io.decode_jpeg on the GPU, whole"
            if bench.on_gpu:
                num = max(1, min(MOST, AT_ONCE // (width * height)))
                line = bench.line(name, way, lambda _: _on_gpu(bench, data, num))  # noqa: B023
            else:
                line = Line(name, way, why="not available: no GPU is measured")
            line.facts |= known
            yield line


def jpeg(width: int, height: int) -> bytes:
    """A smooth picture with some grain."""
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8))
    smooth = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
    grain = rng.integers(-GRAIN, GRAIN + 1, smooth.shape, np.int16)
    sink = io.BytesIO()
    pixels = (smooth + grain).clip(0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(sink, "JPEG", quality=QUALITY)
    return sink.getvalue()


def _on_gpu(bench: Bench, data: bytes, num: int) -> Rate:
    from torchvision.io import decode_jpeg

    encoded = [torch.frombuffer(bytearray(data), dtype=torch.uint8)] * num
    return bench.measure(lambda: decode_jpeg(encoded, device="cuda"), num)
