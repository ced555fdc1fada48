"""Chooses the rows, measures them one after the other and writes what is there so far.

Run: ganad benchmark gpu --out FOLDER
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import PIL
import timm
import torch
import torchvision

from ganad import __version__
from ganad.errors import ConfigError
from pipelines.benchmark.gpu.bench import Bench, Line, in_one_line
from pipelines.benchmark.gpu.decoding import Decoding
from pipelines.benchmark.gpu.scoring import Scoring
from pipelines.benchmark.gpu.searches import Search
from pipelines.benchmark.gpu.steps import Steps
from pipelines.benchmark.gpu.table import as_markdown

LIMIT_S = 570.0
"""No way is begun later, so that all is done within ten minutes."""
V2_B0 = {"name": "tf_efficientnetv2_b0", "weights": "random"}


class Row(Protocol):
    """Something to measure in one or several ways. table: the one that its lines stand in."""

    @property
    def table(self) -> str: ...

    def lines(self, name: str, bench: Bench) -> Iterator[Line]: ...


ROWS: Mapping[str, Row] = {
    "decode": Decoding(),
    "train_ganomaly": Steps("ganomaly", {"image_size": 64}),
    "train_fanogan": Steps("fanogan", {"image_size": 64}),
    "train_skip_ganomaly": Steps("skip_ganomaly", {"image_size": 64}),
    "search": Search({"image_size": 64}),
    "ganomaly_64": Scoring("ganomaly", {"image_size": 64}),
    "ganomaly_256": Scoring("ganomaly", {"image_size": 256}),
    "gaussian_b0": Scoring(
        "gaussian",
        {"image_size": 224, "backbone": {"name": "tf_efficientnet_b0", "weights": "random"}},
    ),
    "padim": Scoring("padim", {"image_size": 224, "backbone": V2_B0}),
    "patchcore": Scoring("patchcore", {"image_size": 224, "backbone": V2_B0}),
    "gaussian_b4": Scoring(
        "gaussian",
        {"image_size": 380, "backbone": {"name": "tf_efficientnet_b4", "weights": "random"}},
    ),
}
"""In the order in which they are measured: what may take long, if anything does, comes last."""


def gpu(
    out: str,
    rows: Sequence[str] = (),
    *,
    seconds: float = 3.0,
    device: str = "auto",
    known: Mapping[str, Row] = ROWS,
    tell: Callable[[str], object] = lambda _: None,
) -> str:
    """Measure rows (none = all that are known) and write OUT/gpu.md and OUT/gpu.json after each
    way; returns the text of the former.

    seconds: of a measurement. device: "cuda", "cpu", or "auto", a GPU where there is one. tell is
    given a sentence for each way. Raises ConfigError for a row or device that is not known.
    """
    for name in rows:
        if name not in known:
            raise ConfigError(f"--rows {name} is no row: give some of {','.join(known)}")
    if device not in ("auto", "cuda", "cpu"):
        raise ConfigError(f"--device {device} is not known: give auto, cuda or cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "--device cuda: torch sees no GPU: give --device cpu to measure the processor"
        )
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    bench = Bench(device, seconds, began + LIMIT_S)
    chosen = {name: row for name, row in known.items() if not rows or name in rows}
    words = [f"--seconds {seconds:g}", f"--device {device}"]
    if rows:
        words.insert(0, f"--rows {','.join(chosen)}")
    figures: dict[str, Any] = {
        "command": f"ganad benchmark gpu {' '.join(words)} --out {out}",
        "machine": machine(device),
        "seconds": 0.0,
        "lines": [],
    }
    text = ""
    for name, row in chosen.items():
        for line in _lines(name, row, bench):
            figures["lines"].append({"table": row.table, **asdict(line)})
            figures["seconds"] = round(time.monotonic() - began, 1)
            text = as_markdown(figures)
            (folder / "gpu.md").write_text(text)
            (folder / "gpu.json").write_text(json.dumps(figures, indent=1) + "\n")
            said = line.why if line.rate is None else f"{line.rate.per_s:,.4g} images/s"
            tell(f"{name}, {line.way}: {said}")
    return text


def _lines(name: str, row: Row, bench: Bench) -> Iterator[Line]:
    try:
        yield from row.lines(name, bench)
    except Exception as error:  # before its first way: what it needs cannot be made
        yield Line(name, "all ways", why=in_one_line(error))


def machine(device: str) -> dict[str, Any]:
    """What the figures depend on beside the code."""
    facts: dict[str, Any] = {
        "device": "no GPU",
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "ganad": __version__,
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "timm": timm.__version__,
        "pillow": PIL.__version__,
    }
    if device == "cuda":
        found = torch.cuda.get_device_properties(0)
        facts |= {
            "device": found.name,
            "memory_gib": round(found.total_memory / 2**30, 1),
            "capability": f"{found.major}.{found.minor}",
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "convolutions_in_tf32": torch.backends.cudnn.allow_tf32,
            "products_in_tf32": torch.backends.cuda.matmul.allow_tf32,
        }
    return facts
