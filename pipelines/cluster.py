"""The connection to a Ray cluster: quiet, and with clear words when it cannot do what is asked."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import ray

from ganad.errors import CapacityError


@dataclass(frozen=True)
class Resources:
    """What one worker of a job gets."""

    num_workers: int
    gpus: float
    """Per worker: 0 or 1."""
    cpus: float
    """Per worker."""


@contextmanager
def connected(debug: bool = False) -> Iterator[None]:
    """Join the cluster that RAY_ADDRESS names, or start one on this machine for the while."""
    if ray.is_initialized():
        yield
        return
    # Read by Ray's own modules, some of them on import in the worker processes.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS", "0")
    if not debug:
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    level = logging.INFO if debug else logging.ERROR
    ray.init(
        logging_level=level,
        log_to_driver=debug,
        configure_logging=True,
        namespace="ganad",
        include_dashboard=None if os.environ.get("RAY_ADDRESS") else False,
    )
    for name in ("ray", "ray.data", "ray.train"):
        logging.getLogger(name).setLevel(level)
    try:
        yield
    finally:
        ray.shutdown()


def share(
    workers: int | None, gpu: bool | None, workers_without_gpu: int | None = None
) -> Resources:
    """Resources for each worker; raises CapacityError for what the cluster can never give.

    workers None: one per GPU; without GPUs workers_without_gpu, or one per processor core.
    gpu None: GPUs where the cluster has them.
    """
    total = ray.cluster_resources()
    num_cpus, num_gpus = int(total.get("CPU", 0)), int(total.get("GPU", 0))
    autoscaling = bool(os.environ.get("RAY_ADDRESS"))  # nodes may come that are not there yet
    if gpu and not num_gpus and not autoscaling:
        raise CapacityError("--gpu needs a GPU and the cluster has none: use --no-gpu")
    use_gpu = bool(num_gpus) if gpu is None else gpu
    available = num_gpus if use_gpu else num_cpus
    default = available if use_gpu else workers_without_gpu or available
    num = workers or max(1, default)
    if num > available and not autoscaling:
        unit = "GPUs" if use_gpu else "processor cores"
        raise CapacityError(
            f"--workers {num} needs {num} {unit} and the cluster has {available}: "
            f"use --workers {max(1, available)} or fewer"
        )
    if use_gpu:
        return Resources(num, 1, 1)
    return Resources(num, 0, max(1, num_cpus // num) if num_cpus else 1)
