"""Lists, follows and stops the jobs of a Ray cluster. Run: ganad jobs, logs, stop"""

from __future__ import annotations

import asyncio
import sys
import time
from datetime import datetime
from typing import Any

from ganad.errors import ClusterError
from pipelines.cluster.server import Job, JobServer
from pipelines.console.output import check_format, write_csv, write_json, write_table
from pipelines.console.progress import say

LOST_S = 60.0
"""Following a log ends after this many seconds without an answer."""
DETACHED = 130
"""Exit status after Ctrl-C."""
COLUMNS = ("job", "status", "began", "minutes", "command")


def jobs(address: str, format: str = "table") -> None:
    """Print the submitted jobs, the latest last."""
    check_format(format)
    rows = [_row(job) for job in JobServer(address).jobs()]
    if format == "json":
        write_json(rows, sys.stdout)
    elif format == "csv":
        write_csv(COLUMNS, rows, sys.stdout)
    else:
        write_table(COLUMNS, rows, sys.stdout)


def _row(job: Job) -> dict[str, Any]:
    began_s = (job.start_time or 0) / 1000
    ended_s = job.end_time / 1000 if job.end_time else time.time()
    return {
        "job": job.submission_id,
        "status": job.status.lower(),
        "began": datetime.fromtimestamp(began_s).astimezone(),
        "minutes": round((ended_s - began_s) / 60, 1),
        "command": (job.metadata or {}).get("ganad", job.entrypoint),
    }


def logs(job: str, address: str) -> int:
    """Print a job's log from its beginning until the job ends; returns the job's exit status."""
    server = JobServer(address)
    server.job(job)  # raises for an unknown job
    return follow(server, job)


def stop(job: str, address: str) -> None:
    """Stop a running job."""
    server = JobServer(address)
    details = server.job(job)
    if details.has_ended:
        say(f"{job} has already {_outcome(details)}")
        return
    server.stop(job)
    while not (details := server.job(job)).has_ended:
        time.sleep(0.5)
    say(f"{job} has {_outcome(details)}; submit the same command again to continue")


def _outcome(job: Job) -> str:
    words = {"SUCCEEDED": "finished", "STOPPED": "been stopped"}
    return words.get(job.status, "failed")


def follow(server: JobServer, job: str) -> int:
    """Print a job's log until the job ends; returns the exit status of its command.

    Ctrl-C leaves the job running and prints how to follow it again.
    """
    come_back = f"ganad logs {job} --address {server.address}"
    try:
        details = asyncio.run(_print_log(server, job, come_back))
    except KeyboardInterrupt:
        say(f"{job} keeps running. To follow it again: {come_back}")
        say(f"To stop it: ganad stop {job} --address {server.address}")
        return DETACHED
    if details.status == "SUCCEEDED":
        return 0
    # A failed command has printed the reason. Ray's reason matters only if no command ran.
    reason = "" if details.driver_exit_code else f" ({_first_line(details.message)})"
    say(f"{job} has {_outcome(details)}{reason}; submit the same command again to continue")
    return details.driver_exit_code or 1


def _first_line(message: str | None) -> str:
    return next((line for line in (message or "").splitlines() if line.strip()), "no reason given")


async def _print_log(server: JobServer, job: str, come_back: str) -> Job:
    """Print the log until the job has ended, reconnecting if a connection breaks."""
    import aiohttp

    num_printed, last_answer = 0, time.monotonic()
    while True:
        try:
            # Each connection sends the log from the start: skip the part already printed.
            skip = num_printed
            async for text in server.log(job):
                sys.stdout.write(text[skip:])
                sys.stdout.flush()
                num_printed += len(text[skip:])
                skip = max(0, skip - len(text))
                last_answer = time.monotonic()
            details = server.job(job)
            last_answer = time.monotonic()
            if details.has_ended:
                return details
        except (OSError, aiohttp.ClientError, ClusterError) as error:
            if time.monotonic() - last_answer > LOST_S:
                raise ClusterError(
                    f"--address {server.address} no longer answers; the job {job} may still be "
                    f"running: try {come_back}"
                ) from error
        await asyncio.sleep(0.5)
