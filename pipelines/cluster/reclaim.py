"""Tells Ray that this machine is about to be reclaimed. Runs next to Ray on every worker machine:

python -m pipelines.cluster.reclaim          waits for AWS's spot interruption notice or SIGTERM
python -m pipelines.cluster.reclaim --now    does not wait: for the preStop hook of a pod

Ray then sends no new work to the machine, and training saves a checkpoint in time.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from typing import Annotated

import typer

from pipelines.console.progress import say

NOTICE_S = 120
"""Seconds from AWS's notice to the end of the machine."""
POLL_S = 5.0
METADATA = "http://169.254.169.254"


def main(
    now: Annotated[bool, typer.Option("--now", help="Do not wait for a notice.")] = False,
    node: Annotated[str | None, typer.Option(help="Ray's node id. Default: this machine.")] = None,
    seconds: Annotated[int, typer.Option(min=1, help="Time left after SIGTERM or --now.")] = 30,
) -> None:
    """Tell Ray that this machine is about to be reclaimed."""
    terminated = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: terminated.set())
    while not now and not terminated.is_set() and not noticed():
        terminated.wait(POLL_S)
    left = seconds if now or terminated.is_set() else NOTICE_S
    say(f"this machine will be reclaimed in {left} s; draining it")
    drain(left, node)
    # The machine is kept while a preStop hook, or a process that got SIGTERM, still runs.
    threading.Event().wait(left)


def noticed() -> bool:
    """True if AWS has announced that it will reclaim this spot machine."""
    endpoint = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", METADATA).rstrip("/")
    ttl = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    try:
        token = _answer(
            urllib.request.Request(f"{endpoint}/latest/api/token", None, ttl, method="PUT")
        )
        notice = f"{endpoint}/latest/meta-data/spot/instance-action"
        _answer(urllib.request.Request(notice, headers={"X-aws-ec2-metadata-token": token}))
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return False  # 404: no notice; other errors: not an AWS machine
    return True


def _answer(request: urllib.request.Request) -> str:
    with urllib.request.urlopen(request, timeout=2) as answer:
        return str(answer.read().decode())


def drain(seconds: int, node: str | None) -> None:
    """Ask Ray to drain a node that will stop in `seconds`. node: Ray's id; None for this node."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "drain-node"]
    command += ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "reclaimed"]
    command += ["--deadline-remaining-seconds", str(seconds)]
    if node is not None:
        command += ["--node-id", node]
    if address := os.environ.get("RAY_ADDRESS"):
        command += ["--address", address]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        line = next(reversed(done.stderr.strip().splitlines()), "no message")
        say(f"Ray did not drain this machine: {line}")


if __name__ == "__main__":
    typer.run(main)
