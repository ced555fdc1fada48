"""Compiled detectors: made once on a machine, kept in a cache, loaded by every process.

GANAD_CACHE/engines or ~/.cache/ganad/engines holds a folder for each detector, engine and version
of it. The first process that needs one compiles it under a lock; the others wait and load it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor

from ganad.detectors.base import BatchScores, Detector
from ganad.engines import inductor, openvino
from ganad.engines.forward import Forward, Layout, example, in_float32, layout_of
from ganad.errors import ConfigError, EngineError

NAMES = ("eager", "openvino", "inductor")
_MODULES: dict[str, ModuleType] = {"inductor": inductor, "openvino": openvino}
LAYOUT = "layout.json"


def check(name: str) -> None:
    """Raises ConfigError unless this machine has the engine of that name."""
    if name not in NAMES:
        raise ConfigError(f"--engine {name}: use one of auto, {', '.join(NAMES)}")
    if name != "eager" and (remedy := _MODULES[name].available()) is not None:
        raise ConfigError(
            f"--engine {name} is not on this machine: {remedy}, or score eager into a fresh --out"
        )


def available() -> list[str]:
    """The engines of this machine, eager first."""
    return [name for name in NAMES if name == "eager" or _MODULES[name].available() is None]


def attach(detector: Detector[Any], name: str, maps: bool = False) -> None:
    """Let an engine run the detector's forward pass from now on; eager takes it away again.

    The engine gives scores and terms; with maps, a second compiled pass gives the maps as well.
    Without, images whose maps are asked for take the eager pass. Compiles on the first use on this
    machine, which takes 10 to 60 seconds. Raises ConfigError if the engine is not there, and
    EngineError if it cannot take this detector.
    """
    check(name)
    detector.engine = None
    if name == "eager":
        return
    if detector.device.type != "cpu":
        raise ConfigError(f"--engine {name} runs on processors only: use eager, or --no-gpu")
    passes = {one: _ready(detector, name, one) for one in ((False, True) if maps else (False,))}

    def run(images: Tensor, ids: Sequence[str], maps: bool) -> BatchScores:
        if maps not in passes:
            return detector.score_batch(images, ids, maps)
        layout, forward = passes[maps]
        return layout.scores(forward(images))

    detector.engine = run


def _ready(
    detector: Detector[Any], name: str, maps: bool
) -> tuple[Layout, Callable[[Tensor], list[Tensor]]]:
    module = _MODULES[name]
    folder = cache_folder() / f"{detector.name}-{_key(detector, module.version(), maps)}"
    if not (folder / LAYOUT).exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not (folder / LAYOUT).exists():
                _build(detector, module, maps, folder)
    known = json.loads((folder / LAYOUT).read_text())
    layout = Layout(tuple(known["terms"]), known["maps"])
    return layout, module.load(folder, torch.get_num_threads())


def _build(detector: Detector[Any], module: ModuleType, maps: bool, folder: Path) -> None:
    """Compile into a folder beside, and rename it into place when it is whole."""
    with in_float32(detector):
        layout = layout_of(detector, maps)
        fresh = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".new-"))
        try:
            with detector.scoring():
                module.build(Forward(detector, maps).eval(), example(detector), fresh)
            facts = {"terms": list(layout.terms), "maps": layout.maps}
            (fresh / LAYOUT).write_text(json.dumps(facts))
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(fresh, folder)
        except Exception as error:  # compilers raise whatever they like
            shutil.rmtree(fresh, ignore_errors=True)
            line = next((text for text in str(error).splitlines() if text.strip()), "no message")
            raise EngineError(
                f"{detector.name} cannot be compiled by {module.version()} ({line[:200]}): "
                f"use --engine eager"
            ) from error


def cache_folder() -> Path:
    """Where compiled detectors are kept: on a disk of this machine, also if GANAD_CACHE is S3."""
    typed = os.environ.get("GANAD_CACHE", "")
    if typed and "://" not in typed:
        return Path(typed) / "engines"
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "ganad" / "engines"


def _key(detector: Detector[Any], version: str, maps: bool) -> str:
    """16 hex characters over all that the compiled pass depends on, the processor included."""
    digest = hashlib.blake2b(digest_size=8)
    config = detector.config.model_dump(mode="json")
    identity = [detector.name, config, version, torch.__version__, maps, detector.scoring_batch]
    identity += [torch.backends.cpu.get_cpu_capability(), _processor()]
    digest.update(json.dumps(identity, sort_keys=True).encode())
    for name, tensor in detector.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _processor() -> str:
    """The name of this processor's model: code for one may not run on another."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return ""
