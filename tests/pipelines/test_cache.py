"""Decoded images that runs share, and those that are streamed because no disk would hold them."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ganad.errors import ArchiveError, ConfigError
from pipelines.train import train
from tests.pipelines.small_model import SMALL

pytestmark = pytest.mark.usefixtures("ray_cluster")

Trained = Callable[..., dict[str, Any]]


@pytest.fixture
def source(image_folder: Path, tmp_path: Path) -> Path:
    """Normal images, a bad one among them."""
    folder = tmp_path / "images"
    shutil.copytree(image_folder / "train", folder)
    (folder / "good" / "020.png").write_bytes(b"not an image")
    return folder


@pytest.fixture
def trained(source: Path, tmp_path: Path) -> Trained:
    """Train a small GANomaly into the folder of that name; returns its model.json."""

    def make(name: str, workers: int = 1, **keys: Any) -> dict[str, Any]:
        values = {**SMALL, "precision": "float32", **keys}
        out = str(tmp_path / name)
        return train("ganomaly", [str(source)], out, values=values, workers=workers, gpu=False)

    return make


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


def test_runs_with_other_seeds_share_what_is_decoded_once(
    trained: Trained,
    source: Path,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    trained("first")
    assert f"decoded images are kept for other runs: {cache}/decoded-" in capsys.readouterr().err
    made = files(cache)
    assert {Path(name).suffix for name in made} == {".npy", ".json"}
    # Other bytes under the same size and time: whoever decoded now would fail.
    for path in source.rglob("*.png"):
        before = path.stat()
        path.write_bytes(bytes(before.st_size))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    shared = trained("second", seed=1)
    assert shared["training"]["num_unreadable"] == 1
    assert "decoded images of another run are used" in capsys.readouterr().err
    assert files(cache) == made
    assert not (tmp_path / "second" / "training" / "cache").exists()


def test_a_cache_does_not_change_the_model(
    trained: Trained, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = trained("shared")
    monkeypatch.delenv("GANAD_CACHE")
    assert trained("alone")["id"] == shared["id"]
    assert weights(tmp_path / "alone") == weights(tmp_path / "shared")
    assert not (tmp_path / "alone" / "training" / "cache").exists()


def test_another_size_and_changed_images_are_decoded_anew(
    trained: Trained, source: Path, cache: Path
) -> None:
    trained("first", epochs=1)
    assert len(list(cache.iterdir())) == 1
    trained("larger", epochs=1, image_size=32)
    assert len(list(cache.iterdir())) == 2
    shutil.copy(source / "good" / "001.png", source / "good" / "000.png")
    os.utime(source / "good" / "000.png", ns=(0, 1))
    trained("changed", epochs=1)
    assert len(list(cache.iterdir())) == 3


def test_damaged_shards_are_made_again(trained: Trained, cache: Path, tmp_path: Path) -> None:
    first = trained("first")
    (shard,) = cache.rglob("*.npy")
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-100])
    assert trained("second")["id"] == first["id"]
    assert shard.read_bytes() == whole
    shard.with_suffix(".json").write_text("{")
    assert trained("third")["id"] == first["id"]
    assert list(json.loads(shard.with_suffix(".json").read_text())) == ["20"]


def test_streamed_images_train_the_same_model(
    trained: Trained,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    kept = trained("kept", workers=2)
    monkeypatch.setenv("GANAD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("GANAD_CACHE_BYTES", "1")
    streamed = trained("streamed", workers=2)
    assert "each batch is decoded when it is needed" in capsys.readouterr().err
    assert streamed["id"] == kept["id"]
    assert weights(tmp_path / "streamed") == weights(tmp_path / "kept")
    assert streamed["training"]["num_unreadable"] == 1
    assert {Path(name).suffix for name in files(tmp_path / "cache")} == {".json"}


def test_images_that_vanish_while_a_training_streams_do_not_stop_it(
    trained: Trained,
    source: Path,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("GANAD_CACHE_BYTES", "1")
    whole = trained("whole")  # all is looked through, which a second run relies on
    for number in range(5):
        path = source / "good" / f"{number:03d}.png"
        before = path.stat()
        path.write_bytes(bytes(before.st_size))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    capsys.readouterr()
    one = trained("one", workers=1)
    told = capsys.readouterr().err
    assert "good/000.png can no longer be read, another image takes its place: not an" in told
    assert one["training"]["num_unreadable"] == 1
    assert one["id"] != whole["id"]
    assert trained("again", workers=1)["id"] == one["id"]
    two = trained("two", workers=2)
    assert two["training"]["num_workers"] == 2
    assert two["training"]["steps"] == one["training"]["steps"]


def test_what_the_variables_say_is_checked(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GANAD_CACHE_BYTES", "10 GB")
    with pytest.raises(ConfigError, match="^GANAD_CACHE_BYTES=10 GB is no number of bytes: give"):
        trained("model")
    monkeypatch.setenv("GANAD_CACHE", "gs://bucket/cache")
    with pytest.raises(ArchiveError, match="^gs://bucket/cache: cannot be read; give a local"):
        trained("model")


def test_a_cache_on_s3_is_shared_and_leaves_no_copy_behind(
    s3: Any, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = trained("alone", workers=2)
    s3.put("cached/mark", b"")
    monkeypatch.setenv("GANAD_CACHE", s3.url("cached/decoded"))
    assert trained("first", workers=2)["id"] == alone["id"]
    made = files(s3.root / "cached" / "decoded")
    assert len(made) == 2
    assert trained("second", workers=2)["id"] == alone["id"]
    assert files(s3.root / "cached" / "decoded") == made
