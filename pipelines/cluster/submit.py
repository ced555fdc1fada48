"""Submits a command as a job to a Ray cluster. Run: ganad submit --address URL -- train ..."""

from __future__ import annotations

import json
import logging
import os
import secrets

from ganad.errors import ClusterError
from pipelines.cluster.jobs import follow
from pipelines.cluster.package import JobPackage, working_dir
from pipelines.cluster.server import JobServer
from pipelines.console.progress import say

_ENVIRONMENT = {"RAY_JOB_STOP_SIGNAL": "SIGINT"}
"""With this a stopped job ends as after Ctrl-C, with a sentence instead of a traceback."""


def submit(package: JobPackage, address: str, *, detach: bool, dry_run: bool) -> int:
    """Submit the job unless it is already running, follow its log and return its exit status.

    A cluster that lost its head has lost its jobs but not their output: the same call starts a new
    job that continues.
    """
    if dry_run:
        print(json.dumps(_plan(package, address), indent=2))
        return 0
    server = JobServer(address)
    job = _running(server, package)
    if job is not None:
        say(f"{job} already runs this command; following its log")
    else:
        job = _send(server, package)
        say(f"submitted {job} to {address}")
    if detach:
        say(f"To see its log: ganad logs {job} --address {address}")
        return 0
    return follow(server, job)


def _plan(package: JobPackage, address: str) -> dict[str, object]:
    return {
        "address": address,
        "entrypoint": package.entrypoint,
        "driver_cpus": package.driver_cpus,
        "files": {name: str(file) for name, file in package.files.items()},
    }


def _running(server: JobServer, package: JobPackage) -> str | None:
    """The job that is running the same command, or None.

    Raises ClusterError if a job with another command writes to the same output.
    """
    if package.out is None:
        return None
    for job in server.jobs():
        metadata = job.metadata or {}
        if job.has_ended or metadata.get("ganad_out") != package.out:
            continue
        if metadata.get("ganad") == package.command:
            return job.submission_id
        raise ClusterError(
            f"--out {package.out} is being written by the job {job.submission_id} "
            f"({metadata.get('ganad')}): give a new --out, or stop that job with ganad stop"
        )
    return None


def _send(server: JobServer, package: JobPackage) -> str:
    """Upload the package and start the job with Ray's client; returns the job's name."""
    from ray.job_submission import JobSubmissionClient

    for module in ("dashboard.modules.dashboard_sdk", "dashboard.modules.job.sdk"):
        logging.getLogger(f"ray.{module}").setLevel(logging.ERROR)
    logging.getLogger("ray._private.runtime_env.packaging").setLevel(logging.ERROR)
    # Without this variable, RAY_ADDRESS would override the address given.
    os.environ["RAY_API_SERVER_ADDRESS"] = server.address
    metadata = {"ganad": package.command}
    if package.out is not None:
        metadata["ganad_out"] = package.out
    with working_dir(package) as folder:
        # Nothing of this machine's environment is sent: a job's runtime_env is visible to everybody
        # on the cluster, and its machines have their own keys of the object store.
        client = JobSubmissionClient(server.address, headers=dict(server.headers))
        try:
            return client.submit_job(
                entrypoint=package.entrypoint,
                submission_id=f"ganad-{package.name}-{secrets.token_hex(4)}",
                runtime_env={"working_dir": str(folder), "env_vars": _ENVIRONMENT},
                metadata=metadata,
                entrypoint_num_cpus=package.driver_cpus,
            )
        except (OSError, RuntimeError) as error:  # RuntimeError for a refusal
            raise ClusterError(
                f"--address {server.address} rejected the job ({str(error).splitlines()[0]}): "
                f"try again, or see the cluster's dashboard"
            ) from error
