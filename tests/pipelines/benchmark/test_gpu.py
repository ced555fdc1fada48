"""The benchmark of a GPU, small and on the processor: that all of its rows come, and that it needs
no Ray. How fast is not asked here."""

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from ganad.detectors import configure, create
from ganad.errors import ConfigError
from pipelines.benchmark.gpu.bench import Bench, clock
from pipelines.benchmark.gpu.run import ROWS, gpu
from pipelines.benchmark.gpu.scoring import Scoring, bare

ROOT = Path(__file__).parents[3]
TINY = {"image_size": 16, "channels": 1, "width": 4, "latent": 4, "batch_size": 8}
WITHOUT_RAY = """
import runpy, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("ray", "typer", "rich"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
"""
EVERY_ROW = """
from pipelines.benchmark.gpu.decoding import Decoding
from pipelines.benchmark.gpu.run import gpu
from pipelines.benchmark.gpu.scoring import Scoring
from pipelines.benchmark.gpu.searches import Search
from pipelines.benchmark.gpu.steps import Steps

tiny = {"image_size": 16, "channels": 1, "width": 4, "latent": 4, "batch_size": 8}

def backbone(name, weights="random"):
    return {"image_size": 32, "backbone": {"name": name, "weights": weights}}

rows = {
    "decode": Decoding(sources=((16, 12), (60, 40)), sides=(16, 32)),
    "train_ganomaly": Steps("ganomaly", tiny),
    "train_fanogan": Steps("fanogan", {**tiny, "image_size": 32}),
    "search": Search(tiny),
    "ganomaly": Scoring("ganomaly", tiny),
    "gaussian": Scoring("gaussian", backbone("tf_efficientnet_b0")),
    "padim": Scoring("padim", backbone("tf_efficientnetv2_b0")),
    "patchcore": Scoring("patchcore", {**backbone("tf_efficientnetv2_b0"), "entries": 20}),
    "broken": Scoring("gaussian", backbone("tf_efficientnet_b0", "nowhere.pth")),
}
gpu("out", seconds=0.01, device="cpu", known=rows)
words = "--out alone --rows decode --seconds 0.01 --device cpu"
sys.argv[1:] = words.split()
runpy.run_module("pipelines.benchmark.gpu", run_name="__main__")
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Where tiny rows were measured without Ray, and what was said there."""
    place = tmp_path_factory.mktemp("gpu")
    # Compilation takes minutes of a busy processor; a test of its own asks for it.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TORCHDYNAMO_DISABLE": "1"}
    command = [sys.executable, "-c", WITHOUT_RAY + EVERY_ROW]
    run = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return place, run.stdout


@pytest.fixture(scope="module")
def folder(done: tuple[Path, str]) -> Path:
    return done[0] / "out"


def lines_of(folder: Path, row: str) -> dict[str, dict[str, Any]]:
    figures = json.loads((folder / "gpu.json").read_text())
    return {line["way"]: line for line in figures["lines"] if line["row"] == row}


def test_all_rows_come_in_all_their_ways_without_ray(folder: Path) -> None:
    for row in ("ganomaly", "gaussian", "padim", "patchcore"):
        lines = lines_of(folder, row)
        assert {"ganad score, float32", "bare, float32"} < set(lines)
        assert sum(way.startswith("ganad score_batch") for way in lines) == 1
        assert sum(way.startswith("bare, compiled, channels_last") for way in lines) == 1
        assert all(line["rate"]["per_s"] > 0 for line in lines.values()), lines
    assert set(lines_of(folder, "train_ganomaly")) == {"ganad", "plain float32 loop"}
    assert set(lines_of(folder, "train_fanogan")) == {"ganad"}
    searches = {"one by one", "one by one, frozen", "together, 32 at once"}
    assert set(lines_of(folder, "search")) == searches
    for row in ("train_ganomaly", "train_fanogan", "search"):
        assert all(line["rate"]["per_s"] > 0 for line in lines_of(folder, row).values())


def test_what_cannot_be_measured_says_why_and_the_others_go_on(folder: Path) -> None:
    (broken,) = lines_of(folder, "broken").values()
    assert broken["rate"] is None
    assert "nowhere.pth is not a file" in broken["why"]
    on_gpu = lines_of(folder, "decode")["torchvision.io.decode_jpeg on the GPU, whole"]
    assert on_gpu["why"] == "not available: no GPU is measured"
    assert "nowhere.pth is not a file" in (folder / "gpu.md").read_text()


def test_the_table_compares_with_the_compiled_pass_and_counts_decode_workers(folder: Path) -> None:
    lines = lines_of(folder, "gaussian")
    decoding = [
        line["rate"]["per_s"]
        for line in json.loads((folder / "gpu.json").read_text())["lines"]
        if line["facts"].get("side") == 32
    ]
    scored = lines["ganad score, float32"]["rate"]["per_s"]
    (compiled,) = (one for way, one in lines.items() if way.startswith("bare, compiled"))
    text = (folder / "gpu.md").read_text()
    heading = next(line for line in text.splitlines() if "decode workers |" in line)
    row = next(line for line in text.splitlines() if "`gaussian` | ganad score, float32" in line)
    columns = (line.strip("| ").split(" | ") for line in (heading, row))
    cells = dict(zip(*columns, strict=False))
    assert cells["network"] == "tf_efficientnet_b0, 32 px"
    assert float(cells["share"]) == pytest.approx(scored / compiled["rate"]["per_s"], abs=0.006)
    small, large = (math.ceil(scored / rate) for rate in decoding)
    assert cells["decode workers"] == f"{small} (16×12), {large} (60×40)"


def test_the_module_runs_by_itself_without_ray(done: tuple[Path, str]) -> None:
    place, said = done
    assert said == (place / "alone" / "gpu.md").read_text()
    assert said.count("| `decode` | one process, to ") == 8


def test_a_missing_compiler_is_told_in_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import config

    monkeypatch.setattr(config.cpp, "cxx", ("no-such-compiler",))
    *others, compiled = Scoring("ganomaly", TINY).lines("ganomaly", Bench("cpu", 0.01))
    assert all(line.rate is not None for line in others)
    assert compiled.rate is None
    assert compiled.why is not None
    assert "compiler" in compiled.why


@pytest.mark.slow
def test_the_bare_pass_is_compiled() -> None:
    *_, compiled = Scoring("ganomaly", TINY).lines("ganomaly", Bench("cpu", 0.01))
    assert compiled.why is None
    assert compiled.facts["compile_s"] > 0


@pytest.mark.parametrize("name", ["gaussian", "padim"])
def test_the_bare_network_ends_with_the_last_stage_that_is_used(name: str) -> None:
    backbone = {"name": "tf_efficientnet_b0", "weights": "random"}
    detector = create(name, configure(name, {"image_size": 64, "backbone": backbone}))
    held = detector.maps if name == "padim" else detector
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    extractor = held.extractor  # type: ignore[union-attr]
    with torch.no_grad():
        found = bare(detector)((images / 2 + 0.5 - extractor.mean) / extractor.std)
        *_, (last,) = extractor.maps(images).values()
    torch.testing.assert_close(found, last, rtol=1e-3, atol=1e-3)


def test_a_clock_gives_the_middle_of_its_stretches() -> None:
    rate = clock(lambda: time.sleep(0.001), 10, 0.02)
    assert rate.lowest <= rate.per_s <= rate.highest <= 10_000
    once = clock(lambda: time.sleep(0.01), 1, 0.001)
    assert once.lowest == once.highest <= 100


def test_nothing_is_begun_when_the_time_is_used_up() -> None:
    bench = Bench("cpu", 0.01, until=time.monotonic() + 30)
    line = bench.line("row", "way", lambda _: bench.measure(lambda: None, 1), spare_s=60)
    assert line.rate is None
    assert line.why == "left out: its time was used up by others"
    assert bench.line("row", "way", lambda _: bench.measure(lambda: None, 1)).rate is not None


def test_wrong_words_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="^--rows patchcor is no row: give some of decode,"):
        gpu(str(tmp_path), ["patchcor"])
    with pytest.raises(ConfigError, match="^--device tpu is not known: give auto, cuda or cpu$"):
        gpu(str(tmp_path), device="tpu")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="^--device cuda: torch sees no GPU: "):
            gpu(str(tmp_path), device="cuda")


def test_every_detector_of_a_row_can_be_configured() -> None:
    for row in ROWS.values():
        if isinstance(row, Scoring):
            configure(row.detector, row.values)
