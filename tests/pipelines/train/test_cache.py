"""Decoded images that runs share, and those that are streamed because no disk would hold them."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ganad.archive.listing import list_images
from ganad.archive.rows import SCHEMA
from ganad.archive.splits import normal_rows, with_subsets
from ganad.detectors import configure
from ganad.errors import ArchiveError, ConfigError
from ganad.images.decode import Preprocessing
from ganad.storage import files as storage
from pipelines.cluster.connection import Resources
from pipelines.train.cache import Cache, cache_environment
from pipelines.train.job import TrainingJob
from pipelines.train.predecode import predecode
from pipelines.train.request import TrainRequest
from pipelines.train.run import train
from tests.pipelines.small_model import SMALL

TWO = Resources(2, 0, 1)

Trained = Callable[..., dict[str, Any]]
Prepared = Callable[..., TrainingJob]


@pytest.fixture(scope="module")
def archive(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Normal images, a bad one among them; to be read only."""
    folder = tmp_path_factory.mktemp("archive") / "images"
    shutil.copytree(image_folder / "train", folder)
    (folder / "good" / "020.png").write_bytes(b"not an image")
    return folder


@pytest.fixture
def source(archive: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    return Path(shutil.copytree(archive, tmp_path / "images"))


@pytest.fixture
def prepared(source: Path, tmp_path: Path) -> Prepared:
    """The job of a training on the source, which need not be run."""

    def make(image_size: int = 16, seed: int = 0) -> TrainingJob:
        table = pa.Table.from_pylist(list(list_images([str(source)])), schema=SCHEMA)
        rows = with_subsets(normal_rows(table, "images"), seed)
        uri = str(tmp_path / f"rows-{seed}.parquet")
        storage.write_table(uri, rows)
        return TrainingJob(
            "ganomaly",
            configure("ganomaly", SMALL),
            Preprocessing(image_size=image_size, channels=1),
            str(tmp_path / "unmade"),
            uri,
            len(rows),
            {"source": "images"},
        )

    return make


def trained(source: Path, out: Path, **keys: Any) -> dict[str, Any]:
    """Train a small GANomaly with two workers; returns its model.json."""
    values = {**SMALL, "precision": "float32", **keys}
    return train(
        TrainRequest("ganomaly", (str(source),), str(out), values=values, workers=2, gpu=False)
    )


@pytest.fixture(scope="module")
def alone(ray_cluster: None, archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of a training that shares nothing."""
    out = tmp_path_factory.mktemp("alone") / "model"
    trained(archive, out)
    assert not (out / "training" / "cache").exists()
    return out


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GANAD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def weights(model: Path) -> bytes:
    return (model / "model.safetensors").read_bytes()


def files(cache: Path) -> dict[str, tuple[int, int]]:
    """What lies in the cache, and which file it is: one that is made again is another."""
    paths = [path for path in cache.rglob("*") if path.is_file()]
    return {str(p.relative_to(cache)): (p.stat().st_ino, p.stat().st_mtime_ns) for p in paths}


def poison(path: Path) -> None:
    """Other bytes under the same size and time: whoever decodes it now fails."""
    before = path.stat()
    path.write_bytes(bytes(before.st_size))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_runs_with_other_seeds_share_what_is_decoded_once_and_train_as_without(
    alone: Path, source: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(source, tmp_path / "first")
    assert f"decoded images are kept for other runs: {cache}/decoded-" in capsys.readouterr().err
    assert weights(tmp_path / "first") == weights(alone)
    made = files(cache)
    assert {Path(name).suffix for name in made} == {".npy", ".json"}
    for path in source.rglob("*.png"):
        poison(path)
    second = trained(source, tmp_path / "second", seed=1)
    assert "decoded images of another run are used" in capsys.readouterr().err
    assert second["training"]["num_unreadable"] == 1
    assert weights(tmp_path / "second") != weights(alone)
    assert files(cache) == made
    assert not (tmp_path / "second" / "training" / "cache").exists()


def test_the_place_in_the_cache_follows_from_what_decides_on_pixels(
    prepared: Prepared, source: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Cache.of(prepared())
    assert first.folder.startswith(f"{cache}/decoded-")
    assert Cache.of(prepared(seed=1)) == first
    seen = {first.folder, Cache.of(prepared(image_size=32)).folder}
    path = source / "good" / "000.png"
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    seen.add(Cache.of(prepared()).folder)
    path.unlink()
    seen.add(Cache.of(prepared()).folder)
    assert len(seen) == 4
    monkeypatch.delenv("GANAD_CACHE")
    assert Cache.of(prepared()) == Cache(prepared().place("cache"), shared=False)


@pytest.mark.usefixtures("ray_cluster")
def test_damaged_shards_are_made_again_and_no_others(prepared: Prepared, cache: Path) -> None:
    first = predecode(prepared(), TWO)
    assert list(first.bad) == [20]
    (shard,) = cache.rglob("*.npy")
    whole, errors = shard.read_bytes(), shard.with_suffix(".json")
    for damaged in (whole[:-100], whole[:-500] + bytes(400) + whole[-100:]):
        shard.write_bytes(damaged)
        assert predecode(prepared(), TWO) == first
        assert shard.read_bytes() == whole
    errors.write_text("{")
    assert predecode(prepared(), TWO) == first
    record = errors.read_text()
    assert list(json.loads(record)["errors"]) == ["20"]
    errors.write_text(record.replace('"20"', '"19"'))
    assert predecode(prepared(), TWO) == first
    assert errors.read_text() == record
    made = files(cache)
    assert predecode(prepared(), TWO) == first
    assert files(cache) == made


@pytest.mark.usefixtures("ray_cluster")
def test_an_image_that_could_not_be_fetched_is_looked_for_again_by_another_run(
    prepared: Prepared, source: Path, cache: Path
) -> None:
    job, path = prepared(), source / "good" / "003.png"
    data = path.read_bytes()
    path.unlink()
    assert list(predecode(job, TWO).bad) == [3, 20]
    (errors,) = cache.rglob("*.json")
    path.write_bytes(data)
    # As on S3, where no time says that the object is another.
    errors.parent.rename(Cache.of(job).folder)
    assert list(predecode(job, TWO).bad) == [20]


def test_streamed_images_train_the_same_model(
    alone: Path,
    source: Path,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("GANAD_CACHE_BYTES", "1")
    streamed = trained(source, tmp_path / "streamed")
    assert "each batch is decoded when it is needed" in capsys.readouterr().err
    assert weights(tmp_path / "streamed") == weights(alone)
    assert streamed["id"] == json.loads((alone / "model.json").read_text())["id"]
    assert streamed["training"]["num_unreadable"] == 1
    assert {Path(name).suffix for name in files(cache)} == {".json"}


@pytest.mark.slow
def test_images_that_vanish_while_a_training_streams_do_not_stop_it(
    alone: Path,
    prepared: Prepared,
    source: Path,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("GANAD_CACHE_BYTES", "1")
    assert predecode(prepared(), TWO).shards is None  # which the training relies on
    for number in range(5):
        poison(source / "good" / f"{number:03d}.png")
    capsys.readouterr()
    model = trained(source, tmp_path / "model")
    told = capsys.readouterr().err
    assert "can no longer be read, another image takes its place: not an image" in told
    assert model["training"]["num_unreadable"] == 1
    assert model["training"]["num_workers"] == 2
    before = json.loads((alone / "model.json").read_text())
    assert model["training"]["steps"] == before["training"]["steps"]
    assert weights(tmp_path / "model") != weights(alone)


def test_what_the_variables_say_is_checked(
    prepared: Prepared, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert 0 < Cache.of(prepared()).room() < shutil.disk_usage(cache.parent).total
    monkeypatch.setenv("GANAD_CACHE_BYTES", "10 GB")
    with pytest.raises(
        ConfigError, match="^GANAD_CACHE_BYTES=10 GB is not a number of bytes: give"
    ):
        Cache.of(prepared()).room()
    monkeypatch.setenv("GANAD_CACHE", "gs://bucket/cache")
    with pytest.raises(ArchiveError, match="^gs://bucket/cache: cannot be read; give a local"):
        Cache.of(prepared())


def test_jobs_in_tasks_are_told_of_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GANAD_CACHE", "GANAD_CACHE_BYTES"):
        monkeypatch.delenv(name, raising=False)
    assert cache_environment() == {}
    monkeypatch.setenv("GANAD_CACHE", "here")  # tasks have another working directory
    monkeypatch.setenv("GANAD_CACHE_BYTES", "10")
    assert cache_environment() == {
        "GANAD_CACHE": os.path.abspath("here"),
        "GANAD_CACHE_BYTES": "10",
    }


@pytest.mark.slow
def test_a_cache_on_s3_trains_the_same_model(
    alone: Path,
    s3: Any,
    source: Path,
    prepared: Prepared,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    s3.put("cached/mark", b"")  # which makes the bucket
    monkeypatch.setenv("GANAD_CACHE", s3.url("cached/decoded"))
    trained(source, tmp_path / "first")
    assert weights(tmp_path / "first") == weights(alone)
    made = files(s3.root / "cached" / "decoded")
    assert len(made) == 2
    assert list(predecode(prepared(), TWO).bad) == [20]
    assert files(s3.root / "cached" / "decoded") == made
