"""ganad submit --print-rayjob: the manifest has KubeRay's fields, and the command in it."""

import re
import shlex
from typing import Any, Literal

import pytest
import ray
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipelines.cli.app import main


class Strict(BaseModel):
    """A part of the manifest: no other fields, none of another type."""

    model_config = ConfigDict(extra="forbid", strict=True)


# The fields of KubeRay's own types (ray-operator/apis/ray/v1), of pods those that are used here.
# Quantities and start parameters are strings: KubeRay refuses numbers.


class Resources(Strict):
    requests: dict[str, str]
    limits: dict[str, str]


class Container(Strict):
    name: str
    image: str
    resources: Resources
    lifecycle: dict[Literal["preStop", "postStart"], dict[str, Any]] | None = None
    env: list[dict[str, Any]] = []
    envFrom: list[dict[str, Any]] = []
    volumeMounts: list[dict[str, Any]] = []


class PodSpec(Strict):
    containers: list[Container] = Field(min_length=1)
    serviceAccountName: str | None = None
    terminationGracePeriodSeconds: int | None = None
    nodeSelector: dict[str, str] = {}
    tolerations: list[dict[str, Any]] = []
    volumes: list[dict[str, Any]] = []


class Pod(Strict):
    metadata: dict[str, Any] = {}
    spec: PodSpec


class HeadGroup(Strict):
    rayStartParams: dict[str, str]
    template: Pod
    serviceType: str | None = None
    enableIngress: bool | None = None
    headService: dict[str, Any] | None = None


class WorkerGroup(Strict):
    groupName: str
    minReplicas: int = Field(ge=0)
    maxReplicas: int = Field(ge=1)
    rayStartParams: dict[str, str]
    template: Pod
    replicas: int | None = None
    idleTimeoutSeconds: int | None = None
    numOfHosts: int | None = None
    suspend: bool | None = None
    scaleStrategy: dict[str, Any] | None = None


class AutoscalerOptions(Strict):
    idleTimeoutSeconds: int | None = None
    upscalingMode: Literal["Default", "Aggressive", "Conservative"] | None = None
    image: str | None = None
    imagePullPolicy: str | None = None
    resources: Resources | None = None
    env: list[dict[str, Any]] = []
    envFrom: list[dict[str, Any]] = []


class AuthOptions(Strict):
    mode: Literal["disabled", "token"]
    secretName: str | None = None
    enableK8sTokenAuth: bool | None = None


class ClusterSpec(Strict):
    headGroupSpec: HeadGroup
    workerGroupSpecs: list[WorkerGroup]
    rayVersion: str
    authOptions: AuthOptions
    enableInTreeAutoscaling: bool
    autoscalerOptions: AutoscalerOptions
    suspend: bool | None = None
    managedBy: str | None = None
    headServiceAnnotations: dict[str, str] | None = None
    gcsFaultToleranceOptions: dict[str, Any] | None = None


class JobSpec(Strict):
    entrypoint: str
    rayClusterSpec: ClusterSpec
    backoffLimit: int = Field(ge=0)
    shutdownAfterJobFinishes: bool
    ttlSecondsAfterFinished: int | None = None
    activeDeadlineSeconds: int | None = Field(None, gt=0)
    runtimeEnvYAML: str | None = None
    entrypointNumCpus: float | None = Field(None, strict=False)
    entrypointNumGpus: float | None = Field(None, strict=False)
    entrypointResources: str | None = None
    jobId: str | None = None
    metadata: dict[str, str] | None = None
    submissionMode: Literal["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"] | None = (
        None
    )
    submitterPodTemplate: Pod | None = None
    submitterConfig: dict[str, Any] | None = None
    clusterSelector: dict[str, str] | None = None
    suspend: bool | None = None


class Name(Strict):
    # A DNS label that leaves room for what KubeRay appends.
    name: str = Field(pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$", max_length=47)


class RayJob(Strict):
    apiVersion: Literal["ray.io/v1"]
    kind: Literal["RayJob"]
    metadata: Name
    spec: JobSpec


IMAGE = "registry.example.org/ganad:1"
TRAIN = "train vae s3://b/good --out s3://b/model --set 'note=two words'"


def printed(line: str, *options: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    arguments = ["submit", "--print-rayjob", "--image", IMAGE, *options, "--", *shlex.split(line)]
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    captured = capsys.readouterr()
    assert not stopped.value.code, captured.err
    return yaml.safe_load(captured.out)


@pytest.mark.parametrize(
    "line", [TRAIN, TRAIN + " --no-gpu --workers 1:2", "report s3://b/t --out s3://b/r.html"]
)
def test_kuberay_knows_every_field(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    job = printed(line, "--service-account", "ganad", capsys=capsys)
    RayJob.model_validate(job)
    assert shlex.split(job["spec"]["entrypoint"]) == ["ganad", *shlex.split(line)]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "entryPoint"), "ganad"),
        (("spec", "rayClusterSpec", "workers"), 3),
        (("spec", "rayClusterSpec", "headGroupSpec", "rayStartParams"), {"num-cpus": 0}),
        (("spec", "rayClusterSpec", "authOptions", "mode"), "password"),
        (("metadata", "name"), "Ganad_Train"),
    ],
)
def test_a_field_that_kuberay_has_not_would_be_seen(
    path: tuple[str, ...], value: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    job = printed(TRAIN, capsys=capsys)
    place = job
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(ValidationError):
        RayJob.model_validate(job)


def test_the_cluster_asks_for_a_token_and_costs_nothing_when_idle(
    capsys: pytest.CaptureFixture[str],
) -> None:
    cluster = printed(TRAIN, capsys=capsys)["spec"]["rayClusterSpec"]
    assert cluster["rayVersion"] == ray.__version__
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert cluster["enableInTreeAutoscaling"]
    assert {group["minReplicas"] for group in cluster["workerGroupSpecs"]} == {0}
    gpus = [
        "nvidia.com/gpu" in group["template"]["spec"]["containers"][0]["resources"]["limits"]
        for group in cluster["workerGroupSpecs"]
    ]
    assert gpus == [True, False]


def test_flags_of_the_command_size_the_cluster(capsys: pytest.CaptureFixture[str]) -> None:
    job = printed(TRAIN + " --no-gpu --workers 7", "--service-account", "reader", capsys=capsys)
    (group,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert group["maxReplicas"] == 7
    pod = group["template"]["spec"]
    assert pod["serviceAccountName"] == "reader"
    assert pod["containers"][0]["image"] == IMAGE
    assert "nvidia.com/gpu" not in pod["containers"][0]["resources"]["limits"]


def test_a_pod_that_is_ended_tells_ray_in_time(capsys: pytest.CaptureFixture[str]) -> None:
    for group in printed(TRAIN, capsys=capsys)["spec"]["rayClusterSpec"]["workerGroupSpecs"]:
        pod = group["template"]["spec"]
        hook = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][-1]
        found = re.match(
            r"python -m pipelines\.cluster\.reclaim --now --seconds (\d+); ray stop$", hook
        )
        assert found
        assert int(found[1]) < pod["terminationGracePeriodSeconds"]


def test_two_jobs_have_two_names(capsys: pytest.CaptureFixture[str]) -> None:
    names = {printed(TRAIN, capsys=capsys)["metadata"]["name"] for _ in range(2)}
    assert len(names) == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--print-rayjob -- " + TRAIN, r"^ganad: --print-rayjob needs --image"),
        ("--image x -- " + TRAIN, r"^ganad: --image .* need --print-rayjob"),
        (
            "--print-rayjob --image x -- " + TRAIN + " --config {toml}",
            r"^ganad: --config names a local file.* --set",
        ),
    ],
)
def test_what_a_manifest_cannot_be_is_told(
    arguments: str, says: str, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.toml").write_text("epochs = 2")
    with pytest.raises(SystemExit):
        main(["submit", *shlex.split(arguments.format(toml=tmp_path / "mine.toml"))])
    assert re.search(says, capsys.readouterr().err)
