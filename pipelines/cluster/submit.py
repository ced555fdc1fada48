"""Run a command as a job on a Ray cluster. Run: ganad submit --address URL -- train ..."""

from __future__ import annotations

import json
import secrets

from ray.job_submission import JobDetails, JobSubmissionClient

from ganad.errors import ClusterError
from pipelines.cluster.jobs import connect, follow, in_words
from pipelines.cluster.package import Parcel, staged
from pipelines.console.progress import say

_ENVIRONMENT = {"RAY_JOB_STOP_SIGNAL": "SIGINT"}
"""Of every job: one that is stopped ends as after Ctrl-C, with a sentence and not a trace."""


def submit(parcel: Parcel, address: str, *, detach: bool = False, dry_run: bool = False) -> int:
    """Submit the job, or find it running already; follow its log; return its exit status.

    A cluster that lost its head has lost its jobs, but not what they had written: the same call
    again is a new job that goes on from there.
    """
    if dry_run:
        print(json.dumps(_plan(parcel, address), indent=2))
        return 0
    client = connect(address)
    job = _running(client, parcel, address)
    if job is not None:
        say(f"{job} does this already; following its log")
    else:
        job = _send(client, parcel, address)
        say(f"submitted {job} to {address}")
    if detach:
        say(f"To see its log: ganad logs {job} --address {address}")
        return 0
    return follow(client, job, address)


def _plan(parcel: Parcel, address: str) -> dict[str, object]:
    return {
        "address": address,
        "entrypoint": parcel.entrypoint,
        "driver_cpus": parcel.driver_cpus,
        "files": {sent: str(file) for sent, file in parcel.files.items()},
    }


def _running(client: JobSubmissionClient, parcel: Parcel, address: str) -> str | None:
    """The job that runs this very command now, if one does.

    Raises ClusterError if one with another command writes to the same place.
    """
    if parcel.out is None:
        return None
    with in_words(address):
        found: list[JobDetails] = client.list_jobs()
    for job in found:
        metadata = job.metadata or {}
        if job.status.is_terminal() or metadata.get("ganad_out") != parcel.out:
            continue
        if metadata.get("ganad") == parcel.command:
            return str(job.submission_id)
        raise ClusterError(
            f"--out {parcel.out} is being written by the job {job.submission_id} "
            f"({metadata.get('ganad')}): give a fresh --out, or end that job with ganad stop"
        )
    return None


def _send(client: JobSubmissionClient, parcel: Parcel, address: str) -> str:
    metadata = {"ganad": parcel.command}
    if parcel.out is not None:
        metadata["ganad_out"] = parcel.out
    with staged(parcel) as folder, in_words(address):
        # Nothing of this machine's environment goes along: what a job needs to know of secrets
        # (the keys of an S3 store) its machines know, and the cluster shows a job's runtime_env
        # to whoever asks.
        return client.submit_job(
            entrypoint=parcel.entrypoint,
            submission_id=f"ganad-{parcel.name}-{secrets.token_hex(4)}",
            runtime_env={"working_dir": str(folder), "env_vars": _ENVIRONMENT},
            metadata=metadata,
            entrypoint_num_cpus=parcel.driver_cpus,
        )
