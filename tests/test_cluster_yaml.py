"""cluster.yaml passes Ray's own validator, costs nothing when idle, and holds no key."""

import re
import shlex
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from packaging.version import Version
from ray.autoscaler._private.util import prepare_config, validate_config

from pipelines.cli.app import main

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "cluster.yaml").read_text()


def on_premise_text() -> str:
    """The variant at the end of the file, its comment signs taken off."""
    _, _, commented = TEXT.partition("\n# ---\n")
    assert commented, "cluster.yaml has no on-premise variant after a line '# ---'"
    lines = commented.splitlines()
    assert all(line == "#" or line.startswith("# ") for line in lines)
    return "\n".join(line[2:] for line in lines)


CLUSTERS = {"aws": yaml.safe_load(TEXT), "on-premise": yaml.safe_load(on_premise_text())}


def prepared(name: str) -> dict[str, Any]:
    """The config with Ray's defaults filled in, as `ray up` does before it starts anything."""
    return prepare_config(deepcopy(CLUSTERS[name]))


@pytest.mark.parametrize("name", CLUSTERS)
def test_ray_accepts_it(name):
    validate_config(prepared(name))


def test_the_validator_refuses_a_key_of_another_schema():
    with pytest.raises(Exception, match="target_utilization_fraction"):
        validate_config({**prepared("aws"), "target_utilization_fraction": 0.8})


def test_no_task_runs_on_the_head():
    config = CLUSTERS["aws"]
    assert config["available_node_types"][config["head_node_type"]]["resources"]["CPU"] == 0
    start = " ".join(CLUSTERS["on-premise"]["head_start_ray_commands"])
    assert "--num-cpus=0" in start


def test_workers_scale_to_zero_on_spot():
    config = prepared("aws")
    workers = {
        name: node
        for name, node in config["available_node_types"].items()
        if name != config["head_node_type"]
    }
    assert set(workers) == {"gpu", "decode"}
    for node in workers.values():
        assert node["min_workers"] == 0
        assert 0 < node["max_workers"] <= config["max_workers"]
        assert node["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
    assert 0 < config["idle_timeout_minutes"] <= 60


def test_the_head_is_not_on_spot():
    config = CLUSTERS["aws"]
    head = config["available_node_types"][config["head_node_type"]]
    assert "InstanceMarketOptions" not in head["node_config"]


def test_every_aws_node_has_an_instance_profile_and_an_image():
    for node in CLUSTERS["aws"]["available_node_types"].values():
        assert node["node_config"]["IamInstanceProfile"]["Arn"].startswith("arn:aws:iam::")
        # Ray's own default image is too old for the drivers that torch needs.
        assert node["node_config"]["ImageId"]


@pytest.mark.parametrize("name", CLUSTERS)
def test_containers_may_open_many_files(name):
    options = " ".join(CLUSTERS[name]["docker"]["run_options"])
    assert "--ulimit nofile=65536:65536" in options


def test_shared_memory_holds_the_object_store():
    docker = CLUSTERS["aws"]["docker"]
    for options, memory_gb in (
        (docker["head_run_options"], 16),
        (docker["worker_run_options"], 64),
    ):
        size = re.search(r"--shm-size=(\d+)gb", " ".join(options))
        assert size, options
        assert int(size[1]) >= 0.3 * memory_gb


@pytest.mark.parametrize("name", CLUSTERS)
def test_the_dashboard_is_not_open_to_the_network(name):
    assert "--dashboard-host=127.0.0.1" in " ".join(CLUSTERS[name]["head_start_ray_commands"])


@pytest.mark.parametrize("name", CLUSTERS)
def test_every_node_asks_for_the_token_and_has_it(name):
    config = CLUSTERS[name]
    assert config["file_mounts"]["/home/ray/.ray/auth_token"] == "~/.ray/auth_token"
    for part in ("head", "worker"):
        commands = config[f"{part}_start_ray_commands"]
        (start,) = (command for command in commands if "ray start" in command)
        assert start.index("export RAY_AUTH_MODE=token;") < start.index("ray start")


def test_every_spot_machine_waits_for_its_notice():
    commands = CLUSTERS["aws"]["worker_start_ray_commands"]
    (watch,) = (command for command in commands if "pipelines.cluster.reclaim" in command)
    assert re.search(r"nohup python -m pipelines\.cluster\.reclaim .*&$", watch)
    assert (ROOT / "pipelines" / "cluster" / "reclaim.py").is_file()


def test_the_commands_in_its_heading_are_ganads():
    for line in re.findall(r"^#   ganad (submit .*)$", TEXT, re.MULTILINE):
        with pytest.raises(SystemExit) as stopped:
            main(["submit", "--dry-run", *shlex.split(line)[1:]])
        assert stopped.value.code == 0, line


@pytest.mark.parametrize("name", CLUSTERS)
def test_every_node_gets_this_tree_and_installs_it(name):
    config = CLUSTERS[name]
    (remote,) = (key for key, local in config["file_mounts"].items() if local == ".")
    assert any(f"pip install -e {remote}" in command for command in config["setup_commands"])
    assert ".git" in config["rsync_exclude"]


@pytest.mark.parametrize("name", CLUSTERS)
def test_the_image_is_of_a_ray_that_ganad_accepts(name):
    image = CLUSTERS[name]["docker"]["image"]
    version = re.fullmatch(r"rayproject/ray:([\d.]+)-py311-gpu", image)
    assert version, image
    assert Version("2.60") <= Version(version[1]) <= Version(ray.__version__)


@pytest.mark.parametrize(
    "pattern",
    [
        r"\b(AKIA|ASIA)[0-9A-Z]{16}\b",
        r"BEGIN [A-Z ]*PRIVATE KEY",
        r"(?i)(secret|access|session)[a-z_]*(key|token)[a-z_]*\s*[:=]\s*\S",
        r"aws_credentials",
    ],
)
def test_no_key_material(pattern):
    assert not re.search(pattern, TEXT)
