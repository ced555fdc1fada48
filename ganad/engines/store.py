"""Compiled networks: made once on a machine, kept in a cache, loaded by every process.

GANAD_CACHE/engines or ~/.cache/ganad/engines holds a folder for each network, engine and version of
it. The first process that needs one compiles it under a lock; the others wait and load it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor, nn

from ganad import __version__
from ganad.engines.known import module
from ganad.errors import EngineError

FACTS = "layout.json"
Run = Callable[[Tensor], list[Tensor]]
"""The compiled network: a batch of one shape -> its outputs."""


@dataclass(frozen=True)
class Source:
    """A network to compile, and what tells it from others."""

    label: str
    """Begins the name of its folder, and is what messages call it."""
    identity: Any
    """As JSON: all that the compiled network depends on beside its weights and this machine."""
    weights: nn.Module
    """Whose state it depends on."""
    make: Callable[[], tuple[nn.Module, Tensor, dict[str, Any]]]
    """The network in eval mode, an example of its batches, and facts to keep beside. Called only
    if the network was not compiled before."""


def compiled(source: Source, engine: str) -> tuple[dict[str, Any], Run]:
    """The facts of a source, and its network as an engine runs it, on as many threads as torch
    has in this process.

    Compiles on the first use on this machine, which takes 10 to 60 seconds. Raises EngineError if
    the engine cannot take it.
    """
    made = module(engine)
    folder = cache_folder() / f"{source.label}-{_key(source, made.version())}"
    if not (folder / FACTS).exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not (folder / FACTS).exists():
                _build(source, made, folder)
    return json.loads((folder / FACTS).read_text()), made.load(folder, torch.get_num_threads())


def _build(source: Source, made: Any, folder: Path) -> None:
    """Compile into a folder beside, and rename it into place when it is whole."""
    fresh = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".new-"))
    try:
        network, example, facts = source.make()
        made.build(network, example, fresh)
        (fresh / FACTS).write_text(json.dumps(facts))
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(fresh, folder)
    except EngineError:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    except Exception as error:  # compilers raise whatever they like
        shutil.rmtree(fresh, ignore_errors=True)
        line = next((text for text in str(error).splitlines() if text.strip()), "no message")
        raise EngineError(
            f"{source.label} cannot be compiled by {made.version()} ({line[:200]}): "
            f"use --engine eager"
        ) from error


def cache_folder() -> Path:
    """Where compiled networks are kept: on a disk of this machine, also if GANAD_CACHE is S3."""
    typed = os.environ.get("GANAD_CACHE", "")
    if typed and "://" not in typed:
        return Path(typed) / "engines"
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "ganad" / "engines"


def machine() -> list[str]:
    """What compiled code, and its speed, depend on beside the engine: code for one processor may
    not run on another."""
    return [__version__, torch.__version__, torch.backends.cpu.get_cpu_capability(), _processor()]


def _key(source: Source, version: str) -> str:
    """16 hex characters over all that the compiled network depends on."""
    digest = hashlib.blake2b(digest_size=8)
    identity = [source.label, source.identity, version, *machine()]
    digest.update(json.dumps(identity, sort_keys=True).encode())
    for name, tensor in source.weights.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _processor() -> str:
    """The name of this processor's model."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return ""
