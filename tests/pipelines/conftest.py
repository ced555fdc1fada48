"""What tests of jobs share: a small model, and Ray clusters of several nodes in processes of their
own, for tests that submit jobs to them."""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

from pipelines.train.request import TrainRequest
from pipelines.train.run import train
from tests.pipelines.small_model import SMALL

START_S = 120
COMMANDS = [f"{whose}setup_commands" for whose in ("", "head_", "worker_")]
COMMANDS += ["initialization_commands", "head_start_ray_commands", "worker_start_ray_commands"]


@pytest.fixture(scope="session")
def model(ray_cluster: None, image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small GANomaly; a module that wants another one has a fixture of its own."""
    out = str(tmp_path_factory.mktemp("models") / "ganomaly")
    train(
        TrainRequest(
            "ganomaly", (str(image_folder / "train"),), out, values=SMALL, workers=1, gpu=False
        )
    )
    return out


@dataclass
class Cluster:
    """A head without processor cores, and workers that come and go. It asks for a token."""

    folder: Path
    environment: dict[str, str]
    token: str
    gcs_port: int = field(default_factory=lambda: free_port())
    gcs: str = ""
    address: str = ""
    """Of the job server."""
    nodes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    ids: dict[int, str] = field(default_factory=dict)
    """Process of a worker node -> Ray's id of the node."""

    def start_head(self, *more: str) -> None:
        gcs, dashboard, client = self.gcs_port, free_port(), free_port()
        self.gcs, self.address = f"127.0.0.1:{gcs}", f"http://127.0.0.1:{dashboard}"
        self._start(
            "--head",
            "--num-cpus=0",
            f"--port={gcs}",
            f"--temp-dir={self.folder}",
            f"--dashboard-port={dashboard}",
            f"--ray-client-server-port={client}",
            *more,
        )
        self._wait_for_another(set())

    def add(self, num_cpus: int = 1) -> subprocess.Popen[bytes]:
        """Start a worker node and wait until the cluster knows it."""
        before = self.alive()
        node = self._start(f"--address={self.gcs}", f"--num-cpus={num_cpus}")
        self.ids[node.pid] = self._wait_for_another(before)
        return node

    def lose(self, node: subprocess.Popen[bytes]) -> None:
        """All of a node's processes die at once, as when its machine does."""
        os.killpg(node.pid, signal.SIGKILL)
        node.wait()

    def alive(self) -> set[str]:
        """Ids of the nodes that the cluster believes to be alive."""
        request = urllib.request.Request(
            f"{self.address}/nodes?view=summary", headers={"Authorization": f"Bearer {self.token}"}
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            nodes = json.load(answer)["data"]["summary"]
        return {
            node["raylet"]["nodeId"] for node in nodes if node["raylet"].get("state") == "ALIVE"
        }

    def shutdown(self) -> None:
        for node in reversed(self.nodes):
            if node.poll() is None:
                self.lose(node)

    def ganad(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """A ganad command on the machine of a user, who has the token."""
        return subprocess.run(
            self.command(*arguments),
            env={**self.user(), **environment},
            capture_output=True,
            text=True,
            timeout=600,
        )

    def command(self, *arguments: str) -> list[str]:
        name, *rest = arguments
        return [sys.executable, "-m", "pipelines", name, "--address", self.address, *rest]

    def user(self) -> dict[str, str]:
        """The environment of a user: no way to the cluster, nor to the data, but the token."""
        theirs = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "RAY_"))}
        return {**theirs, "RAY_AUTH_TOKEN_PATH": self.environment["RAY_AUTH_TOKEN_PATH"]}

    def _start(self, *options: str) -> subprocess.Popen[bytes]:
        # Nodes of one machine share its ports: none may be the default one.
        own = f"--dashboard-agent-listen-port={free_port()}"
        sizes = ["--object-store-memory=100000000", "--num-gpus=0"]
        workers = ["--min-worker-port=0", "--max-worker-port=0"]
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", own]
        with (self.folder / f"node-{len(self.nodes)}.log").open("wb") as log:
            node = subprocess.Popen(
                [*command, *sizes, *workers, *options],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=self.folder,
            )
        self.nodes.append(node)
        return node

    def _wait_for_another(self, before: set[str]) -> str:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            try:
                if new := self.alive() - before:
                    return new.pop()
            except OSError:
                pass
            if self.nodes[-1].poll() is not None:
                break
            time.sleep(0.3)
        log = (self.folder / f"node-{len(self.nodes) - 1}.log").read_text()
        pytest.fail(f"the node does not start: {log[-2000:]}")


@contextmanager
def unstarted() -> Iterator[Cluster]:
    """A cluster that is not started yet; whatever it has started ends with it.

    The nodes know the S3 server and its key, as machines know them from their instance profile.
    """
    # Short, as the paths of Ray's sockets are limited; and no parent of pytest's own folders.
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    token = secrets.token_hex(16)
    (folder / "token").write_text(token)
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("RAY_") and name != "PYTHONPATH"
    }
    environment |= {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
        "OMP_NUM_THREADS": "1",
        # Jobs say `python`, and mean that of the cluster.
        "PATH": os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]]),
    }
    made = Cluster(folder, environment, token)
    try:
        yield made
    finally:
        made.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def cluster(s3: object) -> Iterator[Cluster]:
    """A head alone; a test adds the workers that it needs, and takes them away."""
    with unstarted() as made:
        made.start_head()
        yield made


@pytest.fixture
def scaling_cluster(s3: object) -> Iterator[Cluster]:
    """A head whose autoscaler brings up to two workers of one core when work waits for them, and
    takes them away when they are idle: Ray's own, with machines that are processes here."""
    with unstarted() as made:
        config = {
            "cluster_name": "scaling",
            "max_workers": 2,
            "idle_timeout_minutes": 0.2,
            "upscaling_speed": 1.0,
            "provider": {
                "type": "fake_multinode",
                "use_node_id_as_ip": True,
                "gcs_address": f"127.0.0.1:{made.gcs_port}",
                "disable_node_updaters": True,  # its machines need no setting up
                "disable_launch_config_check": True,
            },
            "available_node_types": {
                "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
                "cpu": {"resources": {"CPU": 1}, "node_config": {}, "max_workers": 2},
            },
            "head_node_type": "ray.head.default",
            **{key: {} for key in ("file_mounts", "auth", "docker")},
            **{key: [] for key in ("cluster_synced_files", *COMMANDS)},
        }
        file = made.folder / "autoscaling.yaml"
        file.write_text(json.dumps(config))  # which is YAML as well
        made.environment |= {
            "RAY_FAKE_CLUSTER": "1",
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
        }
        made.start_head(f"--autoscaling-config={file}")
        yield made


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
