"""A training on as many workers as there are, and machines that are taken back."""

import io
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.cluster.reclaim import noticed
from tests.pipelines.cluster.cluster_jobs import nodes, running, wait_for

ROOT = Path(__file__).parents[3]
SETTINGS = ("image_size=16", "channels=1", "width=8", "batch_size=16", "epochs=1000000")


class Metadata(ThreadingHTTPServer):
    """What an AWS machine asks about itself; announced: whether it is about to be taken back."""

    announced = False
    asked = 0


class Answers(BaseHTTPRequestHandler):
    server: Metadata

    def do_PUT(self) -> None:
        seconds = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds")
        self._answer(200 if self.path == "/latest/api/token" and seconds else 400, b"a-token")

    def do_GET(self) -> None:
        self.server.asked += 1
        if self.headers.get("X-aws-ec2-metadata-token") != "a-token":
            self._answer(401, b"")
        elif self.path == "/latest/meta-data/spot/instance-action" and self.server.announced:
            self._answer(200, b'{"action": "terminate", "time": "2030-01-01T00:00:00Z"}')
        else:
            self._answer(404, b"")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch) -> Iterator[Metadata]:
    with Metadata(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", endpoint)
        yield server
        server.shutdown()


def test_a_notice_is_seen_when_it_comes(metadata: Metadata) -> None:
    assert not noticed()
    assert metadata.asked == 1
    metadata.announced = True
    assert noticed()


def test_a_machine_elsewhere_has_no_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:9")
    assert not noticed()


# A real cluster


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("elastic") / "good"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(200):
        png = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (24, 24)).astype(np.uint8)).save(png, "PNG")
        (folder / f"{number:03d}.png").write_bytes(png.getvalue())
    return str(folder)


@contextmanager
def training(cluster: Any, images: str, model: Path) -> Iterator[subprocess.Popen[str]]:
    """A training that is far longer than any test, until it is stopped."""
    sets = [word for setting in SETTINGS for word in ("--set", setting)]
    command = ["train", "ganomaly", images, "--out", str(model), *sets, "--workers", "1:2"]
    with running(cluster, *command, "--no-gpu") as job:
        try:
            checkpoints = model / "training" / "checkpoints" / "run"
            wait_for(lambda: bool(list(checkpoints.glob("step_*/state.pt"))), job)
            yield job
        finally:
            listed = json.loads(cluster.ganad("jobs", "--format", "json").stdout)
            for name in [row["job"] for row in listed if row["status"] == "running"]:
                cluster.ganad("stop", name)


def said(job: subprocess.Popen[str], sentence: str) -> int:
    """The number in a sentence that the log must say before it ends."""
    assert job.stdout is not None
    matches = (re.search(sentence, line) for line in job.stdout)
    match = next((match for match in matches if match), None)
    assert match, f"the log has ended without: {sentence}"
    return int(match[1])


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_machine_that_is_taken_back_leaves_a_checkpoint_and_a_smaller_training(
    cluster: Any, images: str, metadata: Metadata, tmp_path: Path
) -> None:
    """Its notice comes in the middle of a training on two. No other machine comes."""
    endpoint = os.environ["AWS_EC2_METADATA_SERVICE_ENDPOINT"]
    with nodes(cluster, 2) as there, training(cluster, images, tmp_path / "model") as job:
        watch = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "pipelines.cluster.reclaim",
                "--node",
                cluster.ids[there[0].pid],
            ],
            env={
                **cluster.environment,
                "PYTHONPATH": str(ROOT),
                "RAY_ADDRESS": cluster.gcs,
                "AWS_EC2_METADATA_SERVICE_ENDPOINT": endpoint,
            },
        )
        try:
            metadata.announced = True
            saved = said(job, r"about to be taken away: saved step (\d+)")
        finally:
            watch.kill()
            watch.wait()
        cluster.lose(there[0])
        # As large as the last regular checkpoint at least, and no step of it is done again.
        assert said(job, r"going on from step (\d+) with 1 worker\b") >= saved >= 200


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_training_grows_when_a_machine_comes(cluster: Any, images: str, tmp_path: Path) -> None:
    """Ray looks for more machines once a minute."""
    with nodes(cluster, 1) as there, training(cluster, images, tmp_path / "model") as job:
        there.append(cluster.add())
        assert said(job, r"going on from step (\d+) with 2 workers") >= 200
