"""Jobs on a Ray cluster: its job server, and what it knows of them. Run: ganad jobs, logs, stop"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from ganad.errors import ClusterError
from pipelines.console.output import check_format, write_csv, write_json, write_table
from pipelines.console.progress import say

ADDRESS = "http://localhost:8265"
"""Where `ray dashboard cluster.yaml` and `kubectl port-forward` bring a cluster's job server."""
CONNECT_S = 10.0
LOST_S = 60.0
"""How long a log is waited for whose cluster does not answer any more."""
DETACHED = 130
LISTED = ("job", "status", "began", "minutes", "command")


def connect(address: str) -> JobSubmissionClient:
    """The job server at an address; raises ClusterError where there is none or it refuses."""
    place = urlsplit(address)
    if place.scheme not in ("http", "https") or not place.hostname:
        raise ClusterError(
            f"--address {address} is not the address of a job server: give http://HOST:8265"
        )
    for talker in ("dashboard.modules.dashboard_sdk", "dashboard.modules.job.sdk"):
        logging.getLogger(f"ray.{talker}").setLevel(logging.ERROR)
    logging.getLogger("ray._private.runtime_env.packaging").setLevel(logging.ERROR)
    with in_words(address):
        # Ray's own requests would wait minutes for a machine behind a closed firewall.
        port = place.port or (443 if place.scheme == "https" else 80)
        socket.create_connection((place.hostname, port), CONNECT_S).close()
        with _instead_of_the_environment(address):
            return JobSubmissionClient(address)


@contextmanager
def in_words(address: str) -> Iterator[None]:
    """Turn what requests to a job server raise into a ClusterError."""
    try:
        yield
    except AuthenticationError as error:
        why = "asks for a token" if "required" in str(error) else "does not know this token"
        raise ClusterError(
            f"--address {address} {why}: set RAY_AUTH_TOKEN_PATH to a file with the one that "
            f"`ray get-auth-token` prints on the cluster's head"
        ) from None
    except (OSError, aiohttp.ClientError) as error:  # those of requests are OSErrors
        if isinstance(error, requests.JSONDecodeError | requests.HTTPError):
            raise ClusterError(
                f"--address {address} answers, but is not Ray's job server: give that of the "
                f"dashboard, http://HOST:8265"
            ) from None
        raise ClusterError(
            f"--address {address} does not answer: start the cluster, or the tunnel to it "
            f"(ray dashboard cluster.yaml)"
        ) from None


@contextmanager
def _instead_of_the_environment(address: str) -> Iterator[None]:
    """Ray lets RAY_ADDRESS override what was typed, except where this variable is set."""
    name = "RAY_API_SERVER_ADDRESS"
    before = os.environ.get(name)
    os.environ[name] = address
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def find(client: JobSubmissionClient, job: str, address: str) -> JobDetails:
    """What the cluster knows of a job; raises ClusterError if nothing."""
    with in_words(address):
        try:
            return client.get_job_info(job)
        except RuntimeError:
            raise ClusterError(f"{job} is no job of {address}: ganad jobs lists them") from None


# The commands


def jobs(address: str, format: str = "table") -> None:
    """List the submitted jobs, the latest last."""
    check_format(format)
    client = connect(address)
    with in_words(address):
        found = [job for job in client.list_jobs() if job.submission_id]
    rows = [_row(job) for job in sorted(found, key=lambda job: job.start_time or 0)]
    if format == "json":
        write_json(rows, sys.stdout)
    elif format == "csv":
        write_csv(LISTED, rows, sys.stdout)
    else:
        write_table(LISTED, rows, sys.stdout)


def _row(job: JobDetails) -> dict[str, Any]:
    began_s = (job.start_time or 0) / 1000
    ended_s = job.end_time / 1000 if job.end_time else time.time()
    return {
        "job": job.submission_id,
        "status": job.status.value.lower(),
        "began": datetime.fromtimestamp(began_s).astimezone(),
        "minutes": round((ended_s - began_s) / 60, 1),
        "command": (job.metadata or {}).get("ganad", job.entrypoint),
    }


def logs(job: str, address: str) -> int:
    """Print a job's log from its beginning, to its end if it still runs; returns its status."""
    client = connect(address)
    find(client, job, address)
    return follow(client, job, address)


def stop(job: str, address: str) -> None:
    """End a job that runs."""
    client = connect(address)
    found = find(client, job, address)
    if found.status.is_terminal():
        say(f"{job} has {_ended(found)} already")
        return
    with in_words(address):
        client.stop_job(job)
        while not (found := client.get_job_info(job)).status.is_terminal():
            time.sleep(0.5)
    say(f"{job} has {_ended(found)}; the same command again goes on from here")


def _ended(job: JobDetails) -> str:
    words = {JobStatus.SUCCEEDED: "finished", JobStatus.STOPPED: "been stopped"}
    return words.get(job.status, "failed")


# Following


def follow(client: JobSubmissionClient, job: str, address: str) -> int:
    """Print the log until the job ends; returns the exit status of its command.

    Ctrl-C leaves the job running and says how to come back to it.
    """
    back = f"ganad logs {job} --address {address}"
    try:
        found = asyncio.run(_until_its_end(client, job, address, back))
    except KeyboardInterrupt:
        say(f"{job} goes on without this terminal. To come back: {back}")
        say(f"To end it: ganad stop {job} --address {address}")
        return DETACHED
    if found.status == JobStatus.SUCCEEDED:
        return 0
    # A command that failed has said why in the log; what Ray says matters where none has run.
    why = "" if found.driver_exit_code else f" ({_first_line(found.message)})"
    say(f"{job} has {_ended(found)}{why}; once that is mended the same command goes on from there")
    return found.driver_exit_code or 1


def _first_line(message: str | None) -> str:
    return next((line for line in (message or "").splitlines() if line.strip()), "no reason given")


async def _until_its_end(
    client: JobSubmissionClient, job: str, address: str, back: str
) -> JobDetails:
    printed, heard = 0, time.monotonic()
    while True:
        try:
            # A log is always sent from its beginning: after a break, leave out what was printed.
            skip = printed
            async for text in client.tail_job_logs(job):
                sys.stdout.write(text[skip:])
                sys.stdout.flush()
                printed += len(text[skip:])
                skip = max(0, skip - len(text))
                heard = time.monotonic()
            found = client.get_job_info(job)
            heard = time.monotonic()
            if found.status.is_terminal():
                return found
        # RuntimeError is how the client tells of a broken connection.
        except (OSError, aiohttp.ClientError, RuntimeError) as error:
            if time.monotonic() - heard > LOST_S:
                raise ClusterError(
                    f"--address {address} does not answer any more; the job {job} may still run: "
                    f"come back with {back}"
                ) from error
        await asyncio.sleep(0.5)
