"""Speed of training. Run: ganad benchmark training SOURCE

Loops take turns of a few steps each, so that whatever else the machine does falls on all alike; a
ratio is the median over rounds. Then the same training as a job on Ray, with one worker and two.
"""

from __future__ import annotations

import contextlib
import math
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from ganad.archive.listing import list_images
from ganad.archive.rows import SCHEMA
from ganad.archive.splits import normal_rows
from ganad.detectors import configure, create
from ganad.detectors.config import GradientConfig
from ganad.detectors.gan.ganomaly import Ganomaly
from ganad.engines import inductor
from ganad.errors import ConfigError
from ganad.images.decode import Preprocessing
from ganad.images.inputs import from_rows
from ganad.images.shards import Shards
from ganad.training.trainer import Trainer
from pipelines.benchmark.gpu.plain_loop import plain_loop
from pipelines.cluster.connection import connected
from pipelines.console.progress import say
from pipelines.train.gradient import CHECKPOINT_STEPS
from pipelines.train.request import TrainRequest
from pipelines.train.run import train

Turn = Callable[[int], tuple[float, float]]
"""Makes so many steps; returns their seconds, and those of processors: on a busy machine, where the
former are anything, the latter with --cores 1 still tell."""
PLAIN = "plain float32 loop"
FOREVER = 10_000
"""Epochs: a loop is stopped, it does not end."""


def training(
    source: str,
    *,
    steps: int = 4,
    rounds: int = 5,
    cores: int = 2,
    workers: tuple[int, ...] = (1, 2),
    job_steps: int = CHECKPOINT_STEPS,
    values: dict[str, Any] | None = None,
    anomalib: str | None = None,
    compiled: bool = False,
    debug: bool = False,
) -> list[dict[str, Any]]:
    """GANomaly on source: ganad's loop beside others, then as a job. One row for each.

    steps: of a turn. cores: threads of all loops together. job_steps: of a job, about, in whole
    epochs; in fewer than lie between checkpoints these have more than their share. values: config
    keys. anomalib: a Python that has anomalib, to measure its GANomaly. compiled: a loop whose
    networks TorchInductor compiles stands beside the others.
    """
    torch.set_num_threads(cores)
    given = {"image_size": 64, "batch_size": 64, **(values or {})}
    config = configure("ganomaly", {**given, "epochs": FOREVER})
    assert isinstance(config, GradientConfig)
    pixels = _decoded(source, config)
    turns: dict[str, Turn] = {
        PLAIN: _turns_of_plain(pixels, config),
        "ganad": _turns_of_ganad(pixels, config),
        "ganad, float32": _turns_of_ganad(
            pixels, config.model_copy(update={"precision": "float32"})
        ),
        "ganad, Adam not fused": _turns_of_ganad(pixels, config, fused=False),
        "ganad, channels first": _turns_of_ganad(pixels, config, channels_last=False),
    }
    if compiled:
        if (remedy := inductor.available()) is not None:
            raise ConfigError(f"--compiled needs a compiler: {remedy}, or leave it out")
        turns["ganad, networks by TorchInductor"] = _turns_of_ganad(pixels, config, compiled=True)
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        if anomalib is not None:
            other = _turns_of_anomalib(anomalib, pixels, config, cores, Path(folder))
            turns["anomalib"] = stack.enter_context(other)
        rows = _take_turns(turns, steps, rounds, config.batch_size)
        if workers:
            stack.enter_context(connected(debug))
        for num in workers:
            out = str(Path(folder) / f"workers-{num}")
            epochs = math.ceil(job_steps / max(1, len(pixels) // config.batch_size))
            keys = {**given, "epochs": epochs}
            request = TrainRequest("ganomaly", (source,), out, values=keys, workers=num, gpu=False)
            info = train(request)
            rows.append(_of_job(info, num, config.batch_size))
    return rows


def _decoded(source: str, config: GradientConfig) -> np.ndarray:
    """The normal images of source, uint8 (n, c, h, w)."""
    rows = pa.Table.from_pylist(list(list_images([source])), schema=SCHEMA)
    preprocessing = Preprocessing(image_size=config.image_size, channels=config.channels)
    batches = from_rows(normal_rows(rows, source).to_pylist(), preprocessing)
    return np.stack([one.image for some, _ in batches for one in some if one.image is not None])


def _take_turns(
    turns: dict[str, Turn], steps: int, rounds: int, batch_size: int
) -> list[dict[str, Any]]:
    spent: dict[str, list[float]] = {name: [] for name in turns}
    processor: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(rounds + 1):
        for name, turn in turns.items():
            seconds, of_processors = turn(steps)
            if number:  # the first round warms up
                spent[name].append(seconds / steps)
                processor[name].append(of_processors / steps)
        say(f"round {number} of {rounds}")
    return [
        {
            "loop": name,
            "ms_per_step": round(1000 * median(seconds), 1),
            "processor_ms": round(1000 * median(processor[name]), 1),
            "images_per_s": round(batch_size / median(seconds), 1),
            "times_plain": _ratio(spent, name),
            "by_processor": _ratio(processor, name),
            "ray_share": None,
        }
        for name, seconds in spent.items()
    ]


def _ratio(seconds: dict[str, list[float]], name: str) -> float:
    """How many times as fast as the plain loop, in the middle one of the rounds."""
    rounds = zip(seconds[PLAIN], seconds[name], strict=True)
    return round(median(theirs / ours for theirs, ours in rounds), 2)


def _of_job(info: dict[str, Any], workers: int, batch_size: int) -> dict[str, Any]:
    """Ray's share of the loop's time: reports and checkpoints, beside the steps themselves."""
    seconds, num = info["training"]["seconds"], info["training"]["steps"]
    ray = seconds["ray"]
    per_step = (seconds["steps"] + ray) / num
    return {
        "loop": f"job on Ray, workers: {workers}",
        "ms_per_step": round(1000 * per_step, 1),
        "processor_ms": None,
        "images_per_s": round(batch_size / per_step, 1),
        "times_plain": None,
        "by_processor": None,
        "ray_share": round(ray / (seconds["steps"] + ray), 4),
    }


class _ChannelsFirst(Ganomaly):
    """GANomaly whose images lie in memory one channel behind the other."""

    def prepare(self, images: Tensor) -> Tensor:
        return super().prepare(images).contiguous()


def _turns_of_ganad(
    pixels: np.ndarray,
    config: GradientConfig,
    *,
    fused: bool = True,
    channels_last: bool = True,
    compiled: bool = False,
) -> Turn:
    """compiled: forward and backward pass of each network, in the first round."""
    made = create("ganomaly", config)
    if not channels_last:
        made.__class__ = _ChannelsFirst
    assert isinstance(made, Ganomaly)
    trainer = Trainer(made, Shards([pixels]))
    if not channels_last:
        made.to(memory_format=torch.contiguous_format)
    for optimizer in trainer.optimizers.values():
        for group in optimizer.param_groups:
            group["fused"] = fused
    if compiled:
        # The loss of G and that of D are differentiated through one graph.
        torch._functorch.config.donated_buffer = False
        for network in made.children():
            network.compile(dynamic=False)
    steps = trainer.run()

    def make(num: int) -> None:
        for _ in range(num):
            next(steps)

    return _timed(make)


def _timed(make: Callable[[int], None]) -> Turn:
    def turn(num: int) -> tuple[float, float]:
        began, processor = time.perf_counter(), time.process_time()
        make(num)
        return time.perf_counter() - began, time.process_time() - processor

    return turn


def _turns_of_plain(pixels: np.ndarray, config: GradientConfig) -> Turn:
    networks = create("ganomaly", config)
    assert isinstance(networks, Ganomaly)
    return _timed(plain_loop(networks, pixels, config.batch_size))


@contextmanager
def _turns_of_anomalib(
    python: str, pixels: np.ndarray, config: GradientConfig, cores: int, folder: Path
) -> Iterator[Turn]:
    """Its networks, losses and order of updates, without the time of Lightning."""
    np.save(folder / "pixels.npy", np.broadcast_to(pixels, (len(pixels), 3, *pixels.shape[2:])))
    arguments = [str(folder / "pixels.npy"), str(config.batch_size), str(cores)]
    program = (Path(__file__).parent / "anomalib_training.txt").read_text()
    process = subprocess.Popen(
        [python, "-W", "ignore", "-c", program, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    given, told = process.stdin, process.stdout
    assert given is not None
    assert told is not None

    def turn(num: int) -> tuple[float, float]:
        try:
            print(num, file=given, flush=True)
            seconds, processor = told.readline().split()
            return float(seconds), float(processor)
        except (OSError, ValueError):
            raise ConfigError(
                f"--anomalib {python} does not train anomalib's GANomaly (see its message above): "
                f"name the python of an environment in which pip install anomalib was run"
            ) from None

    try:
        yield turn
    finally:
        process.kill()
        with contextlib.suppress(OSError):  # what was not read any more
            given.close()
        told.close()
        process.wait()
