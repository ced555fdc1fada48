"""Prints a command as a KubeRay RayJob, which creates a cluster and removes it at the end.

Run: ganad submit --print-rayjob --image IMAGE -- train ... | kubectl create -f -"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import yaml

from ganad.errors import ConfigError
from pipelines.cluster.package import JobPackage

MOST_WORKERS = 4
"""Maximum number of pods per group if --workers is not given."""
IDLE_S = 600
"""An idle pod is stopped after this many seconds. A shorter time would stop pods between stages."""
RETRIES = 3
"""Number of new clusters if the head is lost; the command resumes on each."""
HEAD = {"cpu": "2", "memory": "8Gi"}
GPU = {"cpu": "8", "memory": "32Gi", "nvidia.com/gpu": "1"}
CPU = {"cpu": "8", "memory": "16Gi"}
PRESTOP_S = 45
"""Seconds that training has to save a checkpoint before Kubernetes stops its pod."""
HEADING = """\
# kubectl create -f THIS            needs KubeRay 1.5.1 or newer in the Kubernetes cluster
# kubectl logs -f job/{name}
# The image has Ray {ray} and ganad (FROM rayproject/ray:{ray}-py311-gpu, then pip install).
# Keys of the object store: the pods' service account, or a Secret as envFrom. Put none here.
"""


def manifest(
    package: JobPackage, parameters: Mapping[str, Any], image: str, account: str | None
) -> str:
    """The YAML of a RayJob that runs the package's command in pods of the image.

    account: the Kubernetes service account of the pods, whose cloud role may read and write the
    buckets. Raises ConfigError if the command needs a local file.
    """
    if package.files:
        flag = next(iter(package.files)).removeprefix("files/").partition("/")[0]
        raise ConfigError(
            f"--{flag} names a local file, which a manifest cannot include: "
            f"{'give its keys with --set' if flag == 'config' else 'run this with --address'}"
        )
    name = f"ganad-{package.name}-{secrets.token_hex(3)}"
    spec: dict[str, Any] = {
        "entrypoint": package.command,
        "backoffLimit": RETRIES,
        "shutdownAfterJobFinishes": True,
        "rayClusterSpec": {
            "rayVersion": version("ray"),
            "authOptions": {"mode": "token"},
            "enableInTreeAutoscaling": True,
            "autoscalerOptions": {"idleTimeoutSeconds": IDLE_S},
            "headGroupSpec": {
                # No tasks on the head: if it runs out of memory, the job ends.
                "rayStartParams": {"num-cpus": "0"},
                "template": _pod("ray-head", image, HEAD, account),
            },
            "workerGroupSpecs": _groups(parameters, image, account),
        },
    }
    if package.driver_cpus:
        spec["entrypointNumCpus"] = package.driver_cpus
    job = {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {"name": name}, "spec": spec}
    heading = HEADING.format(name=name, ray=version("ray"))
    return heading + yaml.safe_dump(job, sort_keys=False, width=1000)


def _groups(parameters: Mapping[str, Any], image: str, account: str | None) -> list[dict[str, Any]]:
    """Worker groups that scale from zero: one without GPUs, and one with GPUs unless --no-gpu."""
    workers = parameters.get("workers") or MOST_WORKERS
    most = workers[1] if isinstance(workers, tuple) else workers
    sizes = {"gpu": GPU, "decode": CPU}
    if parameters.get("gpu") is False:
        sizes = {"cpu": CPU}
    return [
        {
            "groupName": name,
            "replicas": 0,
            "minReplicas": 0,
            "maxReplicas": most,
            "rayStartParams": {},
            "template": _worker_pod(image, size, account),
        }
        for name, size in sizes.items()
    ]


def _worker_pod(image: str, size: Mapping[str, str], account: str | None) -> dict[str, Any]:
    pod = _pod("ray-worker", image, size, account)
    # KubeRay's own hook is only `ray stop`.
    prestop = f"python -m pipelines.cluster.reclaim --now --seconds {PRESTOP_S}; ray stop"
    hook = {"preStop": {"exec": {"command": ["sh", "-c", prestop]}}}
    pod["spec"]["containers"][0]["lifecycle"] = hook
    pod["spec"]["terminationGracePeriodSeconds"] = 2 * PRESTOP_S
    return pod


def _pod(name: str, image: str, size: Mapping[str, str], account: str | None) -> dict[str, Any]:
    # Ray plans with the limits and Kubernetes reserves the requests: keep them equal.
    resources = {"requests": dict(size), "limits": dict(size)}
    spec: dict[str, Any] = {"containers": [{"name": name, "image": image, "resources": resources}]}
    if account is not None:
        spec["serviceAccountName"] = account
    return {"spec": spec}
