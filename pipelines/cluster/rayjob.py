"""A command as a KubeRay RayJob: a cluster made for it, and unmade when it has ended.
Run: ganad submit --print-rayjob --image IMAGE -- train ... | kubectl create -f -"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

import ray
import yaml

from ganad.errors import ConfigError
from pipelines.cluster.package import Parcel

MOST_WORKERS = 4
"""Pods of a group, where --workers says nothing."""
IDLE_S = 600
"""A pod without work for so long is ended. Shorter, and pods come and go between two stages."""
RETRIES = 3
"""Fresh clusters after one that was lost with its head: the command goes on where it was."""
HEAD = {"cpu": "2", "memory": "8Gi"}
GPU = {"cpu": "8", "memory": "32Gi", "nvidia.com/gpu": "1"}
CPU = {"cpu": "8", "memory": "16Gi"}
LEAVING_S = 45
"""Time for a training to save a checkpoint, when Kubernetes ends a pod or its machine goes."""
HEADING = """\
# kubectl create -f THIS            needs KubeRay 1.5.1 or newer in the Kubernetes cluster
# kubectl logs -f job/{name}
# The image has Ray {ray} and ganad (FROM rayproject/ray:{ray}-py311-gpu, then pip install).
# Keys of the object store: the pods' service account, or a Secret as envFrom. None belongs in here.
"""


def manifest(parcel: Parcel, parameters: Mapping[str, Any], image: str, account: str | None) -> str:
    """The YAML of a RayJob that runs the parcel's command in pods of the image.

    account: the Kubernetes service account of the pods, whose cloud role opens the buckets.
    """
    if parcel.files:
        flag = next(iter(parcel.files)).removeprefix("files/").partition("-")[0]
        raise ConfigError(
            f"--{flag} names a file of this machine, which a manifest cannot take along: "
            f"{'give its keys with --set' if flag == 'config' else 'run this with --address'}"
        )
    name = f"ganad-{parcel.name}-{secrets.token_hex(3)}"
    spec: dict[str, Any] = {
        "entrypoint": parcel.command,
        "backoffLimit": RETRIES,
        "shutdownAfterJobFinishes": True,
        "rayClusterSpec": {
            "rayVersion": ray.__version__,
            "authOptions": {"mode": "token"},
            "enableInTreeAutoscaling": True,
            "autoscalerOptions": {"idleTimeoutSeconds": IDLE_S},
            "headGroupSpec": {
                # No task on the head: one that is out of memory ends the job.
                "rayStartParams": {"num-cpus": "0"},
                "template": _pod("ray-head", image, HEAD, account),
            },
            "workerGroupSpecs": _groups(parameters, image, account),
        },
    }
    if parcel.driver_cpus:
        spec["entrypointNumCpus"] = parcel.driver_cpus
    job = {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {"name": name}, "spec": spec}
    heading = HEADING.format(name=name, ray=ray.__version__)
    return heading + yaml.safe_dump(job, sort_keys=False, width=1000)


def _groups(parameters: Mapping[str, Any], image: str, account: str | None) -> list[dict[str, Any]]:
    """Pods that come by need, from none: with a GPU unless it was refused, and without."""
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
    # Without a hook of ours, KubeRay's is `ray stop` alone.
    leave = f"python -m pipelines.cluster.reclaim --now --seconds {LEAVING_S}; ray stop"
    hook = {"preStop": {"exec": {"command": ["sh", "-c", leave]}}}
    pod["spec"]["containers"][0]["lifecycle"] = hook
    pod["spec"]["terminationGracePeriodSeconds"] = 2 * LEAVING_S
    return pod


def _pod(name: str, image: str, size: Mapping[str, str], account: str | None) -> dict[str, Any]:
    # Requests that equal limits: Ray believes the limits, and Kubernetes keeps the requests free.
    resources = {"requests": dict(size), "limits": dict(size)}
    spec: dict[str, Any] = {"containers": [{"name": name, "image": image, "resources": resources}]}
    if account is not None:
        spec["serviceAccountName"] = account
    return {"spec": spec}
