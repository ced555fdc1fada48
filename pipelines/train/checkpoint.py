"""Checkpoints of a training by gradient: a file with its digest, which is checked before use.

torch.load() reads a file with changed bytes without a word. A damaged checkpoint is passed over for
the one before it, or for the beginning: the steps between are done again, and are the same.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow.fs
import ray.train
import torch

STATE, DIGEST = "state.pt", "state.sha256"
PREFIX = "step_"


def name_of(step: int, suffix: str) -> str:
    """A checkpoint's folder: later ones have later names."""
    return f"{PREFIX}{step:08d}{suffix}"


def write_checkpoint(folder: str, state: Mapping[str, Any]) -> ray.train.Checkpoint:
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    Path(folder, STATE).write_bytes(buffer.getbuffer())
    Path(folder, DIGEST).write_text(hashlib.sha256(buffer.getbuffer()).hexdigest())
    return ray.train.Checkpoint.from_directory(folder)


def read_checkpoint(
    latest: ray.train.Checkpoint, device: torch.device, tell: Callable[[str], None]
) -> dict[str, Any] | None:
    """The state of the latest checkpoint that is whole, of this one and those beside it; None if
    there is none. tell is called for each that is not."""
    parent, _, name = latest.path.rpartition("/")
    assert latest.filesystem is not None  # Ray finds it from the path
    beside = latest.filesystem.get_file_info(pyarrow.fs.FileSelector(parent))
    folders = [one.base_name for one in beside if one.type == pyarrow.fs.FileType.Directory]
    names = [one for one in folders if one.startswith(PREFIX) and one < name]
    for one in [name, *sorted(names, reverse=True)]:
        checkpoint = ray.train.Checkpoint(f"{parent}/{one}", latest.filesystem)
        data = _whole(checkpoint)
        if data is not None:
            state = torch.load(io.BytesIO(data), weights_only=True, map_location=device)
            return dict(state)
        tell(f"{checkpoint.path}: is damaged; continuing from the one before it")
    return None


def _whole(checkpoint: ray.train.Checkpoint) -> bytes | None:
    with checkpoint.as_directory() as folder:
        local = Path(folder)
        if not (local / STATE).is_file():
            return None
        data = (local / STATE).read_bytes()
        if not (local / DIGEST).is_file():
            return data  # of an earlier version of ganad
        digest = (local / DIGEST).read_bytes().decode(errors="replace")
    return data if hashlib.sha256(data).hexdigest() == digest else None
