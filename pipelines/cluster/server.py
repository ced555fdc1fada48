"""HTTP client of a Ray cluster's job server.

Ray's own client loads Ray first, which takes longer than most of the requests.
"""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import requests
from pydantic import BaseModel

from ganad.errors import ClusterError

CONNECT_S = 10.0
ANSWER_S = 60.0
BROKEN = 1006
"""Close code of a websocket whose connection broke."""


class Job(BaseModel):
    """A submitted job: the fields of Ray's JobDetails that ganad uses."""

    submission_id: str | None = None
    status: str
    entrypoint: str
    message: str | None = None
    start_time: int | None = None
    """Milliseconds since 1970."""
    end_time: int | None = None
    metadata: dict[str, str] | None = None
    driver_exit_code: int | None = None

    @property
    def has_ended(self) -> bool:
        return self.status in ("SUCCEEDED", "STOPPED", "FAILED")


class JobServer:
    """The job server at an address; raises ClusterError if it does not answer or refuses."""

    def __init__(self, address: str) -> None:
        place = urlsplit(address)
        if place.scheme not in ("http", "https") or not place.hostname:
            raise ClusterError(
                f"--address {address} is not the address of a job server: give http://HOST:8265"
            )
        self.address = address.rstrip("/")
        token = find_token(os.environ)
        self.headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        with self._translated():
            # An HTTP request would wait for minutes behind a closed firewall.
            port = place.port or (443 if place.scheme == "https" else 80)
            socket.create_connection((place.hostname, port), CONNECT_S).close()
        if "ray_version" not in self._request("GET", "/api/version").json():
            raise self._not_a_job_server()

    def jobs(self) -> list[Job]:
        """All submitted jobs, the latest last."""
        jobs = [Job.model_validate(job) for job in self._request("GET", "/api/jobs/").json()]
        submitted = [job for job in jobs if job.submission_id]
        return sorted(submitted, key=lambda job: job.start_time or 0)

    def job(self, job: str) -> Job:
        """One job; raises ClusterError if the cluster does not know it."""
        answer = self._request("GET", f"/api/jobs/{job}")
        if answer.status_code == requests.codes.not_found:
            raise ClusterError(f"{job} is not a job of {self.address}: see ganad jobs")
        return Job.model_validate(answer.json())

    def stop(self, job: str) -> None:
        """Ask a job to stop."""
        self._request("POST", f"/api/jobs/{job}/stop")

    async def log(self, job: str) -> AsyncIterator[str]:
        """Yield the job's log from the start until the job ends. Raises OSError or aiohttp's
        ClientError if the connection breaks."""
        import aiohttp

        async with (
            aiohttp.ClientSession(headers=self.headers) as session,
            session.ws_connect(f"{self.address}/api/jobs/{job}/logs/tail") as socket,
        ):
            async for message in socket:
                if message.type == aiohttp.WSMsgType.ERROR:
                    raise ConnectionError(f"the log of {job} broke off: {socket.exception()}")
                yield message.data
            if socket.close_code == BROKEN:
                raise ConnectionError(f"the log of {job} broke off")

    def _request(self, method: str, path: str) -> requests.Response:
        with self._translated():
            answer = requests.request(
                method, self.address + path, headers=self.headers, timeout=ANSWER_S
            )
            if answer.status_code in (401, 403):
                asks = answer.status_code == 401
                raise ClusterError(
                    f"--address {self.address} "
                    f"{'needs a token' if asks else 'rejects this token'}: set RAY_AUTH_TOKEN_PATH "
                    f"to a file with the output of `ray get-auth-token` on the cluster's head"
                )
            if answer.status_code != requests.codes.not_found:
                answer.raise_for_status()
                answer.json()
        return answer

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Translate errors of requests, which are OSErrors, into ClusterErrors."""
        try:
            yield
        except (requests.JSONDecodeError, requests.HTTPError):
            raise self._not_a_job_server() from None
        except OSError:
            raise ClusterError(
                f"--address {self.address} does not answer: start the cluster, or the tunnel to it "
                f"(ray dashboard cluster.yaml)"
            ) from None

    def _not_a_job_server(self) -> ClusterError:
        return ClusterError(
            f"--address {self.address} answers, but is not a Ray job server: give the address of "
            f"the dashboard, http://HOST:8265"
        )


def find_token(environment: Mapping[str, str]) -> str | None:
    """The cluster's token, from the same places as Ray's; None if the cluster needs none."""
    if environment.get("RAY_AUTH_MODE", "").lower() != "token":
        return None
    if token := environment.get("RAY_AUTH_TOKEN"):
        return token
    file = Path(environment.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser()
    try:
        return file.read_text().strip()
    except FileNotFoundError:
        return None
