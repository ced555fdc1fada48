"""A worker node dies in the middle of a submitted job: the job ends with the undisturbed result.

Data, models and tables lie on the S3 server. The nodes are processes of their own, and the cluster
asks for a token.
"""

import io
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ganad.scores.records import read_runs
from tests.pipelines.cluster.cluster_jobs import finished, nodes, running, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

NUM_TRAIN, NUM_IMAGES = 200, 1500


@pytest.fixture(scope="module")
def bucket(s3: Any) -> str:
    """Grey noise in s3://loss: train/good for training, archive for scoring."""
    rng = np.random.default_rng(0)
    for folder, num in (("train/good", NUM_TRAIN), ("archive", NUM_IMAGES)):
        for number in range(num):
            png = io.BytesIO()
            pixels = rng.integers(0, 256, (24, 24)).astype(np.uint8)
            Image.fromarray(pixels).save(png, "PNG")
            s3.put(f"loss/{folder}/{number:05d}.png", png.getvalue())
    return "s3://loss"


def test_a_training_that_loses_a_node_ends_with_the_undisturbed_weights(
    cluster: Any, s3: Any, bucket: str
) -> None:
    settings = ["image_size=16", "channels=1", "width=8", "batch_size=16", "precision=float32"]
    settings += ["epochs=80"]

    def arguments(out: str) -> list[str]:
        sets = [word for setting in settings for word in ("--set", setting)]
        source = f"{bucket}/train"
        return ["train", "ganomaly", source, "--out", out, *sets, "--workers", "2", "--no-gpu"]

    checkpoints = s3.root / "loss" / "lossy" / "training" / "checkpoints" / "run"
    with nodes(cluster, 2) as there:
        with running(cluster, *arguments(f"{bucket}/lossy")) as job:
            wait_for(lambda: bool(list(checkpoints.glob("step_*/*"))), job)
            cluster.lose(there[0])
            there.append(cluster.add())  # as an autoscaler does, or a person
            log = finished(job)
        assert "going on from step" in log
        with running(cluster, *arguments(f"{bucket}/whole")) as job:
            assert "going on from step" not in finished(job)
    infos = [
        json.loads((s3.root / "loss" / name / "model.json").read_text())
        for name in ("lossy", "whole")
    ]
    assert infos[0]["training"]["num_workers"] == 2
    assert infos[0]["id"] == infos[1]["id"]


def scores(s3: Any, name: str) -> dict[str, float]:
    """image_id -> score of a table; fails on an image that is there twice."""
    parts = (s3.root / "loss" / name).glob("model=*/*.parquet")
    rows = pa.concat_tables(
        pq.read_table(path, columns=["image_id", "score"], partitioning=None) for path in parts
    )
    ids = rows["image_id"].to_pylist()
    assert len(ids) == len(set(ids))
    return dict(zip(ids, rows["score"].to_pylist(), strict=True))


def test_a_scoring_that_loses_a_node_ends_with_the_undisturbed_table(
    cluster: Any, s3: Any, bucket: str
) -> None:
    """Nothing comes in place of the node: those that are left do its work. The networks are large,
    so that the job is at work for a while after its first part."""
    settings = ["image_size=64", "channels=1", "width=48", "epochs=1", "precision=float32"]
    sets = [word for setting in settings for word in ("--set", setting)]
    model = f"{bucket}/model"

    def arguments(out: str) -> list[str]:
        return ["score", model, f"{bucket}/archive", "--out", f"{bucket}/{out}", "--no-gpu"]

    with nodes(cluster, 2) as there:
        train = ["train", "ganomaly", f"{bucket}/train", "--out", model, *sets, "--no-gpu"]
        with running(cluster, *train) as job:
            finished(job)
        with running(cluster, *arguments("whole-table")) as job:
            finished(job)
        parts = s3.root / "loss" / "lossy-table"
        with running(cluster, *arguments("lossy-table")) as job:
            wait_for(lambda: bool(list(parts.glob("model=*/*.parquet"))), job)
            assert not any(run.finished for run in read_runs(str(parts)).values())
            cluster.lose(there[0])
            finished(job)
    (run,) = read_runs(str(parts)).values()
    assert run.counts["scored"] == NUM_IMAGES
    assert scores(s3, "lossy-table") == scores(s3, "whole-table")
