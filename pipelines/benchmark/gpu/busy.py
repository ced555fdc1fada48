"""The share of the time in which a GPU works."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import mean
from threading import Event, Thread

import torch
from torch.profiler import ProfilerActivity, profile

from pipelines.benchmark.gpu.bench import Bench, in_one_line

SAMPLE_S = 0.1
SETTLE_S = 0.5
"""NVML looks back over some of a second: what it says at first is of before."""
PROFILED = 20
"""Calls under the profiler."""


def busy_share(bench: Bench, work: Callable[[], object]) -> tuple[float | None, str]:
    """In 0..1, and how it was found: by NVML where its Python package is there, else as the time
    of all kernels in torch's profile of some calls of work. None, and why, where neither can."""
    if not bench.on_gpu:
        return None, "no GPU"
    ways = {
        "NVML": lambda: _sampled(work, bench.seconds),
        "torch.profiler": lambda: _profiled(work),
    }
    for name, way in ways.items():
        try:
            return way(), name
        except Exception as error:  # no package, or a driver that refuses: each has its own kind
            why = in_one_line(error)
    return None, why


def _sampled(work: Callable[[], object], seconds: float) -> float:
    torch.cuda.utilization()  # raises here what it would raise in the thread
    samples: list[int] = []
    over = Event()

    def sample() -> None:
        over.wait(SETTLE_S)
        while not over.wait(SAMPLE_S):
            samples.append(torch.cuda.utilization())

    thread = Thread(target=sample, daemon=True)
    thread.start()
    began = time.perf_counter()
    while time.perf_counter() - began < SETTLE_S + seconds:
        work()
    over.set()
    thread.join()
    torch.cuda.synchronize()
    return mean(samples) / 100


def _profiled(work: Callable[[], object]) -> float:
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        began = time.perf_counter()
        for _ in range(PROFILED):
            work()
        torch.cuda.synchronize()
        seconds = time.perf_counter() - began
    spent_us = sum(one.self_device_time_total for one in profiled.key_averages())
    if spent_us == 0:
        raise RuntimeError("the profile has no kernels")
    return spent_us / 1e6 / seconds
