"""Commands that need no network load none of the libraries that take seconds to import."""

import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ganad.detectors import configure, create
from ganad.model import Model
from ganad.scores.table import SCHEMA

ROOT = Path(__file__).parents[3]
HEAVY = {"ray", "timm", "torch"}
DATA = {"duckdb", "numpy", "pyarrow"}
PROGRAM = """
import sys
from pipelines.cli.app import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    print(end.code, *{name.partition(".")[0] for name in sys.modules}, file=sys.stderr)
"""
NO_CLUSTER = "--address http://127.0.0.1:9"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a score table and images."""
    folder = tmp_path_factory.mktemp("startup")
    config = configure("ganomaly", {"image_size": 16, "channels": 1, "width": 4, "latent": 4})
    Model(create("ganomaly", config), None).save(str(folder / "model"))
    (folder / "scores" / "model=ganomaly-1").mkdir(parents=True)
    row = {"image_id": "a", "uri": "a.png", "name": "a.png", "score": 1.0, "abnormal": True}
    table = pa.Table.from_pylist([row], schema=SCHEMA)
    pq.write_table(table, folder / "scores" / "model=ganomaly-1" / "part-000000.parquet")
    (folder / "parts").mkdir()
    Image.new("L", (16, 16)).save(folder / "parts" / "a.png")
    return folder


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("--help", 0),
        ("detectors", 0),
        ("show model", 0),
        ("show scores", 0),
        ("query scores --top 3", 0),
        ("evaluate scores", 0),
        (f"jobs {NO_CLUSTER}", 1),
        (f"logs job {NO_CLUSTER}", 1),
        (f"stop job {NO_CLUSTER}", 1),
        ("index parts --out manifest --dry-run", 0),
        ("train ganomaly parts --out new --dry-run --set epochs=3", 0),
        ("train knn parts --out new --dry-run", 0),
        ("train pixelcnn parts --out new --dry-run --config paper", 0),
        ("score model parts --out new --dry-run", 0),
        ("submit --dry-run -- train vae s3://b/good --out s3://b/model", 0),
        ("submit --print-rayjob --image i:1 -- score s3://b/m s3://b/a --out s3://b/t", 0),
    ],
)
def test_a_command_without_a_network_starts_without(line: str, status: int, place: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, *line.split()]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=place, env=environment, capture_output=True, text=True, check=True
    )
    end, *names = done.stderr.splitlines()[-1].split()
    assert int(end) == status, done.stderr
    assert not HEAVY & set(names)
    if line in ("--help", "detectors"):
        assert not DATA & set(names)
