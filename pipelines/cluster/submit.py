"""Run a command as a job on a Ray cluster. Run: ganad submit --address URL -- train ..."""

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
"""A job that is stopped then ends as after Ctrl-C, with a sentence instead of a traceback."""


def submit(package: JobPackage, address: str, *, detach: bool, dry_run: bool) -> int:
    """Submit the job, or find it running already; follow its log; return its exit status.

    A cluster that lost its head has lost its jobs, but not what they had written: the same call
    again is a new job that continues.
    """
    if dry_run:
        print(json.dumps(_plan(package, address), indent=2))
        return 0
    server = JobServer(address)
    job = _running(server, package)
    if job is not None:
        say(f"{job} does this already; following its log")
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
    """The job that runs this very command now, if one does.

    Raises ClusterError if a job with another command writes to the same place.
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
            f"({metadata.get('ganad')}): give a fresh --out, or end that job with ganad stop"
        )
    return None


def _send(server: JobServer, package: JobPackage) -> str:
    """Upload the package and start the job, with Ray's own client; returns the job's name."""
    from ray.job_submission import JobSubmissionClient

    for module in ("dashboard.modules.dashboard_sdk", "dashboard.modules.job.sdk"):
        logging.getLogger(f"ray.{module}").setLevel(logging.ERROR)
    logging.getLogger("ray._private.runtime_env.packaging").setLevel(logging.ERROR)
    # Ray lets RAY_ADDRESS override the address given, unless this variable is set.
    os.environ["RAY_API_SERVER_ADDRESS"] = server.address
    metadata = {"ganad": package.command}
    if package.out is not None:
        metadata["ganad_out"] = package.out
    with working_dir(package) as folder:
        # Nothing of this machine's environment is sent: the cluster shows a job's runtime_env to
        # everybody, and its machines have the keys of the object store themselves.
        client = JobSubmissionClient(server.address, headers=dict(server.headers))
        try:
            return client.submit_job(
                entrypoint=package.entrypoint,
                submission_id=f"ganad-{package.name}-{secrets.token_hex(4)}",
                runtime_env={"working_dir": str(folder), "env_vars": _ENVIRONMENT},
                metadata=metadata,
                entrypoint_num_cpus=package.driver_cpus,
            )
        except (OSError, RuntimeError) as error:  # the client raises RuntimeError for a refusal
            raise ClusterError(
                f"--address {server.address} does not take the job ({str(error).splitlines()[0]}): "
                f"try again, or look at the cluster's dashboard"
            ) from error
