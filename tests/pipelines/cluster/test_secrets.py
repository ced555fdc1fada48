"""No secret leaves: jobs that hold the S3 key and the cluster's token write neither anywhere."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from ray.job_submission import JobSubmissionClient

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

SETTINGS = ("image_size=16", "channels=1", "width=8", "epochs=2")


@pytest.fixture(scope="module")
def secrets(cluster: Any) -> dict[str, bytes]:
    """What no file and no answer may hold. The nodes of the cluster hold them all."""
    names = ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID")
    planted = {name: cluster.environment[name].encode() for name in names}
    return {**planted, "RAY_AUTH_TOKEN": cluster.token.encode()}


@pytest.fixture(scope="module")
def said(cluster: Any, s3: Any) -> list[str]:
    """Everything that a user sees of a training, a scoring, a report, and jobs that fail."""
    rng = np.random.default_rng(0)
    for folder, num in (("train/good", 60), ("test/good", 8), ("test/crack", 8)):
        for number in range(num):
            png = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (24, 24)).astype(np.uint8)).save(png, "PNG")
            s3.put(f"secret/{folder}/{number:02d}.png", png.getvalue())
    s3.put("secret/test/good/broken.png", b"no image")
    place = "s3://secret"
    sets = [word for setting in SETTINGS for word in ("--set", setting)]
    model, table = f"{place}/model", f"{place}/table"
    jobs = [
        (0, ["train", "ganomaly", f"{place}/train", "--out", model, *sets, "--debug", "--no-gpu"]),
        (0, ["score", model, f"{place}/test", "--out", table, "--debug", "--no-gpu"]),
        (0, ["report", table, "--out", f"{place}/report.html"]),
        # Errors are what libraries like to fill with all they know.
        (1, ["score", model, "s3://no-such-bucket/x", "--out", f"{place}/none", "--debug"]),
        (1, ["score", f"{place}/train", f"{place}/test", "--out", f"{place}/none", "--debug"]),
    ]
    heard = []
    node = cluster.add()
    try:
        for status, job in jobs:
            done = cluster.ganad("submit", "--", *job)
            assert done.returncode == status, done.stdout + done.stderr
            heard += [done.stdout, done.stderr]
        heard.append(cluster.ganad("jobs", "--format", "json").stdout)
    finally:
        cluster.lose(node)
    return heard


def test_a_user_sees_none(said: list[str], secrets: dict[str, bytes]) -> None:
    for text in said:
        assert not held(text.encode(), secrets)


def test_no_result_holds_one(said: list[str], s3: Any, secrets: dict[str, bytes]) -> None:
    """Models, manifests, tables, their records, events, the report."""
    files = [path for path in (s3.root / "secret").rglob("*") if path.is_file()]
    names = {path.name for path in files}
    assert {"model.json", "job.json", "_job.json", "report.html", "manifest.json"} <= names
    for path in files:
        assert not held(path.read_bytes(), secrets), path


def test_the_cluster_tells_none_of_its_jobs(
    said: list[str], cluster: Any, secrets: dict[str, bytes]
) -> None:
    client = JobSubmissionClient(
        cluster.address, headers={"Authorization": f"Bearer {cluster.token}"}
    )
    infos = [job for job in client.list_jobs() if job.submission_id]
    assert len(infos) >= 5
    for info in infos:
        assert not held(info.model_dump_json().encode(), secrets), info.submission_id
        # The signal that stops a job is all that is said of its environment.
        said_of_it = (info.runtime_env or {}).get("env_vars", {})
        assert set(said_of_it) <= {"RAY_JOB_STOP_SIGNAL"}


def test_the_logs_of_the_cluster_hold_none(
    said: list[str], cluster: Any, secrets: dict[str, bytes]
) -> None:
    logs = list(log_files(cluster.folder))
    assert any(path.name.startswith("job-driver-") for path in logs)
    for path in logs:
        assert not held(path.read_bytes(), secrets), path


def log_files(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if path.is_file() and ("logs" in path.parts or path.suffix == ".log"):
            yield path


def held(data: bytes, secrets: dict[str, bytes]) -> list[str]:
    """Names of the secrets that the data holds."""
    return [name for name, value in secrets.items() if value in data]


def test_a_secret_would_be_found(secrets: dict[str, bytes]) -> None:
    text = json.dumps({"env": {name: value.decode() for name, value in secrets.items()}})
    assert held(text.encode(), secrets) == list(secrets)
