"""Connects to a Ray cluster and allocates its cores and GPUs to the workers of a job."""

from __future__ import annotations

import logging
import os
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import ray

from ganad.errors import CapacityError, ClusterError
from ganad.storage.private import PrivateFolder
from pipelines.console.progress import STOPPED, say
from pipelines.console.signals import kept_handlers

CONNECT_S = 10.0
"""Seconds that a machine may take to accept a connection."""
MAX_SOCKET_FOLDER = 20
"""Maximum length of the folder for temporary files; /tmp replaces a longer one. The path of a
socket has at most 107 characters, of which Ray and the session's name need the rest."""


@dataclass(frozen=True)
class Resources:
    """The workers of a job, and the resources of each."""

    num_workers: int
    gpus: float
    """GPUs per worker, 0 or 1."""
    cpus: float
    """Cores per worker."""
    elastic: tuple[int, int] | None = None
    """Minimum and maximum number of workers of elastic training; num_workers is then the number
    that fits at present."""

    @property
    def threads(self) -> int:
        """Threads per worker, at least 1."""
        return max(1, int(self.cpus))


@contextmanager
def connected(debug: bool = False) -> Iterator[None]:
    """Join the cluster at RAY_ADDRESS, or start one on this machine and stop it afterwards.

    Does nothing if this process is already connected. Raises ClusterError if it cannot join.
    """
    if ray.is_initialized():
        yield
        return
    # Ray reads these variables, some of them on import in the worker processes.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS", "0")
    if not debug:
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    level = logging.INFO if debug else logging.ERROR
    address = os.environ.get("RAY_ADDRESS")
    settings: dict[str, Any] = {
        "logging_level": level,
        "log_to_driver": debug,
        "configure_logging": True,
        "namespace": "ganad",
    }
    folder: PrivateFolder | None = None
    with kept_handlers():
        if address:
            _join(address, settings, debug)
        else:
            folder = _session_folder()
            with nullcontext() if debug else _mute():
                ray.init(include_dashboard=False, _temp_dir=folder.place or None, **settings)
    for name in ("ray", "ray.data", "ray.train"):
        logging.getLogger(name).setLevel(level)
    try:
        yield
    except KeyboardInterrupt:
        # Print now: leaving the cluster may take longer than a stopped job has left.
        say(STOPPED)
        raise KeyboardInterrupt(STOPPED) from None
    finally:
        ray.shutdown()
        if folder is not None:
            folder.remove()


def _session_folder() -> PrivateFolder:
    """A folder for Ray's files, which is removed however the command ends."""
    is_short = len(tempfile.gettempdir()) <= MAX_SOCKET_FOLDER
    return PrivateFolder("ganad-ray-", None if is_short else "/tmp")


def jobs_at_once(num_jobs: int, workers: int, gpu: bool | None) -> tuple[int, int]:
    """(number of jobs that fit at once, at least one; cores per worker). workers: per job."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    have = [int(node.get("CPU", 0)) for node in nodes]
    num_gpus = int(sum(node.get("GPU", 0) for node in nodes))
    units = num_gpus if (bool(num_gpus) if gpu is None else gpu) else sum(have)
    together = max(1, min(num_jobs, units // workers))
    return together, cores_each(have, together * workers)


def _join(address: str, settings: dict[str, Any], debug: bool) -> None:
    """Connect to a running cluster; raises ClusterError if it does not answer or refuses."""
    typed = f"RAY_ADDRESS={address}"
    if address.startswith(("http://", "https://")):
        raise ClusterError(
            f"{typed} is a job server: type ganad submit --address {address} -- COMMAND"
        )
    host, _, port = address.rpartition(":")
    if host and port.isdecimal() and "://" not in address:
        try:  # Ray itself would wait for a minute
            socket.create_connection((host, int(port)), CONNECT_S).close()
        except OSError as error:
            raise ClusterError(
                f"{typed} does not answer ({error.strerror or error}): start the cluster there, "
                f"or unset RAY_ADDRESS to use only this machine"
            ) from None
    try:
        with nullcontext() if debug else _mute():
            ray.init(**settings)
    except (ray.exceptions.AuthenticationError, ConnectionError, RuntimeError, ValueError) as error:
        raise ClusterError(
            f"{typed} cannot be joined ({_first_sentence(error)}): if it needs a token, set "
            f"RAY_AUTH_TOKEN_PATH to a file with the output of `ray get-auth-token` on its head"
        ) from error


def _first_sentence(error: Exception) -> str:
    return str(error).strip().splitlines()[0].split(". ")[0] if str(error).strip() else repr(error)


@contextmanager
def _mute() -> Iterator[None]:
    """Discard standard error, to which Ray's C++ code writes directly."""
    sys.stderr.flush()
    stderr, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(null)


def allocate(
    workers: int | tuple[int, int] | None,
    gpu: bool | None,
    workers_without_gpu: int | None = None,
    cores: int | None = None,
) -> Resources:
    """Allocate resources for each worker; raises CapacityError if the cluster cannot provide them.

    workers: None = one per GPU; without GPUs workers_without_gpu, or one per core. Two numbers =
    minimum and maximum of elastic training. gpu: None = GPUs if the cluster has any. cores: per
    worker without a GPU; None = as many as fit.
    """
    least, most = workers if isinstance(workers, tuple) else (workers, workers)
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    have = [int(node.get("CPU", 0)) for node in nodes]
    num_cpus, num_gpus = sum(have), int(sum(node.get("GPU", 0) for node in nodes))
    autoscaling = bool(os.environ.get("RAY_ADDRESS"))  # more nodes may come
    if autoscaling and gpu is None and not num_cpus and not num_gpus:
        raise CapacityError(
            "--gpu or --no-gpu is needed: the cluster has no worker yet, so ganad cannot know what "
            "its workers will have: give one of the two, and --workers N for more than one worker"
        )
    if gpu and not num_gpus and not autoscaling:
        raise CapacityError("--gpu needs a GPU and the cluster has none: use --no-gpu")
    use_gpu = bool(num_gpus) if gpu is None else gpu
    available = num_gpus if use_gpu else num_cpus
    default = available if use_gpu else workers_without_gpu or available
    num = most or max(1, default)
    needed = least or num
    if needed > available and not autoscaling:
        unit = "GPUs" if use_gpu else "processor cores"
        raise CapacityError(
            f"--workers {needed} needs {needed} {unit} and the cluster has {available}: "
            f"use --workers {max(1, available)} or fewer"
        )
    if not isinstance(workers, tuple):
        each = cores or cores_each(have, num)
        return Resources(num, 1, 1) if use_gpu else Resources(num, 0, each)
    if use_gpu:
        return Resources(max(workers[0], min(num, num_gpus)), 1, 1, workers)
    # All workers get the same size, even if they start later: one worker per existing node.
    each = cores_each(have, max(workers[0], min(num, sum(map(bool, have)))))
    here = max(workers[0], min(num, sum(node // each for node in have)))
    return Resources(here, 0, each, workers)


def cores_each(nodes: Sequence[int], num_workers: int) -> int:
    """The maximum number of cores per worker if no worker spans two nodes; at least 1.

    nodes: cores per node. A worker with more cores would wait forever for a larger node.
    """
    for cores in range(sum(nodes) // num_workers, 1, -1):
        if sum(node // cores for node in nodes) >= num_workers:
            return cores
    return 1
