"""The benchmark of scoring, at sizes small enough for a test: what it measures is real work."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ganad.archive.listing import list_images
from ganad.detectors import configure, create
from ganad.engines import openvino
from ganad.errors import ArchiveError, ConfigError
from ganad.images.decode import Preprocessing, decode
from ganad.model import Model, load
from pipelines.benchmark import roofline, shrinking
from pipelines.benchmark.scoring import as_markdown, scoring
from pipelines.benchmark.scoring_data import (
    make_jpegs,
    make_large_jpeg,
    make_paths,
    make_tar,
    untrained,
)

needs_openvino = pytest.mark.skipif(
    openvino.available() is not None, reason="no OpenVINO: pip install 'ganad[openvino]'"
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of data with a few tiles in it."""
    folder = tmp_path_factory.mktemp("data")
    tiles = folder / "magnetic_tile" / "train" / "good"
    tiles.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(3):
        pixels = rng.integers(0, 256, (90, 120 + number)).astype(np.uint8)
        Image.fromarray(pixels).save(tiles / f"{number}.jpg")
    return folder


def in_float32(folder: Path) -> str:
    """A GANomaly with its first weights, on which engines agree on every machine."""
    values = {"image_size": 64, "channels": 1, "precision": "float32"}
    return Model(create("ganomaly", configure("ganomaly", values)), None).save(str(folder))


def test_images_are_made_once_and_differ(data: Path, tmp_path: Path) -> None:
    folder = make_jpegs(tmp_path / "jpegs", str(data), 8)
    files = sorted(folder.rglob("*.jpg"))
    assert len({path.read_bytes() for path in files}) == 8
    decoded = decode(files[0].read_bytes(), Preprocessing(image_size=8))
    assert (decoded.width, decoded.height) == (256, 256)
    times = [path.stat().st_mtime_ns for path in files]
    assert make_jpegs(folder, str(data), 8) == folder
    assert [path.stat().st_mtime_ns for path in files] == times
    tar = make_tar(tmp_path / "jpegs.tar", folder)
    assert len(list(list_images([str(tar)]))) == 8
    assert len(list(list_images([str(make_paths(tmp_path / "paths", 2_100))]))) == 2_100


def test_without_tiles_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match=r"holds no \.jpg to make images from; give --data"):
        make_jpegs(tmp_path / "jpegs", str(tmp_path), 8)
    assert not (tmp_path / "jpegs").exists()


@pytest.mark.parametrize("engine", ["eager", pytest.param("openvino", marks=needs_openvino)])
def test_the_hand_written_loop_finds_the_same_scores(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    monkeypatch.setenv("GANAD_CACHE", str(tmp_path / "cache"))
    model = in_float32(tmp_path / "model")
    folder = make_jpegs(tmp_path / "jpegs", str(data), 70)
    paths = [row["uri"] for row in list_images([str(folder)])]
    assert roofline.hand_written_loop(model, paths, 1, tmp_path / "by-hand.parquet", engine) > 0
    assert (tmp_path / "cache" / "engines").exists() == (engine != "eager")
    found = pq.read_table(tmp_path / "by-hand.parquet")
    assert found["path"].to_pylist() == paths
    np.testing.assert_allclose(found["score"].to_numpy(), load(model).score(paths).score, rtol=1e-4)


def test_an_engine_that_is_not_there_is_named_before_anything_is_made(tmp_path: Path) -> None:
    remedy = r"--engines eager,turbo: this machine has no turbo: use some of eager"
    with pytest.raises(ConfigError, match=remedy):
        scoring(str(tmp_path / "out"), str(tmp_path), engines=["eager", "turbo"])
    assert not (tmp_path / "out").exists()


def test_every_process_has_a_share(data: Path, tmp_path: Path) -> None:
    model = untrained(tmp_path / "model")
    rows = list(list_images([str(make_jpegs(tmp_path / "jpegs", str(data), 6))]))
    for measure in (roofline.decode_alone, roofline.forward_alone, roofline.both):
        assert 0 < measure(model, rows, 2) < float("inf")


def test_both_ways_to_decode_a_large_photograph_are_timed(data: Path) -> None:
    preprocessing = Preprocessing(image_size=16, channels=1)
    photograph = make_large_jpeg(str(data), 600, 400)
    assert decode(photograph, preprocessing).error is None
    assert min(shrinking.seconds(photograph, preprocessing, 1)) > 0


def test_all_pixels_of_a_jpeg_first_is_another_image_and_a_near_one(data: Path) -> None:
    preprocessing = Preprocessing(image_size=16, channels=1)
    photograph = make_large_jpeg(str(data), 600, 400)
    shrunk, whole = (
        decode(content, preprocessing).image
        for content in (photograph, shrinking._lossless(photograph))
    )
    assert shrunk is not None
    assert whole is not None
    np.testing.assert_allclose(whole[0], shrinking._whole(photograph, preprocessing), atol=1)
    difference = np.abs(shrunk.astype(int) - whole).mean()
    assert 0 < difference < 10


@needs_openvino
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_whole_benchmark(
    data: Path, tmp_path: Path, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GANAD_CACHE", str(tmp_path / "cache"))
    s3.put("benchmark/bucket", b"")
    figures = scoring(
        str(tmp_path),
        str(data),
        model=in_float32(tmp_path / "model"),
        engines=["openvino"],
        num=64,
        num_rows=300,
        workers=2,
        rounds=1,
        s3=s3.url("benchmark/images"),
    )
    assert all(figure["value"] > 0 for figure in figures)
    assert [figure["what"] for figure in figures] == [
        "decode alone",
        "decode and forward",
        "forward alone",
        "hand-written DataLoader loop",
        "whole job on loose files",
        "forward alone by openvino",
        "hand-written DataLoader loop by openvino",
        "whole job on loose files by openvino",
        "whole job on a tar",
        "whole job, one worker of one thread",
        "whole job on loose objects of S3",
        "whole job on a tar on S3",
        "start and end of whole job on loose files",
        "start and end of whole job on loose files by openvino",
        "share of 1 / (1/decode + 1/forward)",
        "whole job, times forward alone",
        "whole job, times hand-written DataLoader loop",
        "share of 1 / (1/decode + 1/forward) by openvino",
        "whole job by openvino, times forward alone by openvino",
        "whole job by openvino, times hand-written DataLoader loop by openvino",
        "whole job by openvino, times whole job on loose files",
        "one worker to 2, a thread each, times",
        "index of 300 paths",
        "memory of that index",
        "memory of the driver at 300 rows",
        "JPEG of 4000 x 3000 to 64 px",
    ]
    assert json.loads((tmp_path / "scoring.json").read_text()) == figures
    assert (tmp_path / "scoring.md").read_text() == as_markdown(figures)
