"""A compiled engine in a scoring job: the same p-values, one engine for a table's model."""

import json

import pyarrow.dataset
import pytest

from ganad import fit
from ganad.archive.listing import list_images
from ganad.engines import openvino, trial
from ganad.errors import ConfigError
from ganad.images.decode import Preprocessing
from ganad.images.load import load_images
from ganad.scores.records import read_runs
from ganad.scores.table import ScoreTable
from pipelines.cli.show import show
from pipelines.passes.units import Unit
from pipelines.passes.worker import DecodedUnit
from pipelines.score import engines
from pipelines.score.run import score
from tests.pipelines.small_model import SMALL

pytestmark = [
    pytest.mark.usefixtures("ray_cluster"),
    pytest.mark.skipif(
        openvino.available() is not None, reason="no OpenVINO: pip install 'ganad[openvino]'"
    ),
]


@pytest.fixture(scope="module")
def model(image_folder, tmp_path_factory):
    """In float32, so that engines agree with the eager pass on every machine."""
    fitted = fit("ganomaly", image_folder / "train", **{**SMALL, "precision": "float32"})
    return fitted.save(str(tmp_path_factory.mktemp("models") / "ganomaly"))


def rows(table):
    found = ScoreTable(str(table)).query("SELECT name, score, p_value FROM scores ORDER BY name")
    return found.to_pylist()


def test_a_table_is_scored_by_openvino_and_goes_on_with_it(model, image_folder, tmp_path, capfd):
    source, table = [str(image_folder)], tmp_path / "table"
    score([model], source, str(tmp_path / "eager"))
    (run,) = score([model], source, str(table), engine="openvino").values()
    assert run.engine == "openvino"
    assert [one["engine"] for one in run.engine_trials] == ["eager", "openvino"]
    assert run.engine_trials[1]["agreement"]["passed"]
    step = 1 / (len(read_calibration(model)) + 1)
    for one, other in zip(rows(tmp_path / "eager"), rows(table), strict=True):
        assert one["score"] == pytest.approx(other["score"], rel=1e-4)
        assert abs(one["p_value"] - other["p_value"]) <= step + 1e-9
    part = next(table.glob("model=*/*.parquet"))
    part.unlink()
    score([model], source, str(table))
    assert read_runs(str(table))[run.model].engine == "openvino"
    assert "goes on with the engine that it began with: openvino" in capfd.readouterr().err
    score([model], source, str(table))  # with nothing to do, it is still that of the scores
    assert read_runs(str(table))[run.model].engine == "openvino"


def decoded_unit(folder, preprocessings):
    rows = list(list_images([str(folder)]))
    decoded = load_images(rows, preprocessings)
    return DecodedUnit(Unit(0, "", 0, len(rows)), rows, decoded, {})


def read_calibration(model):
    return pyarrow.dataset.dataset(f"{model}/calibration.parquet").to_table()


def test_an_engine_that_does_not_agree_is_not_taken(
    model, image_folder, tmp_path, capfd, monkeypatch
):
    disagrees = {
        "engine": "openvino",
        "images_per_s": 9.0,
        "passed": False,
        "agreement": {"n": 56, "p_difference": 0.2, "spearman": 0.9},
    }
    answer = {"report": json.dumps({"engine": "eager", "trials": [disagrees]})}
    monkeypatch.setattr(engines, "stream", lambda *arguments: iter([answer]))
    kind, unit = Preprocessing(image_size=16, channels=1), Unit(0, "", 0, 56)
    choice = engines.choose("m", "knn-1", kind, "openvino", unit, engines.Resources(1, 0, 1))
    assert choice.engine == "eager"
    said = capfd.readouterr().err
    assert (
        "knn-1 is scored eager: with openvino, scores of 56 images have a rank correlation" in said
    )
    assert "p-values differ by up to 0.2; train with --set precision=float32" in said


def test_auto_scores_small_archives_eager_without_a_trial(monkeypatch):
    monkeypatch.setattr(engines, "stream", lambda *arguments: pytest.fail("a trial has begun"))
    kind, unit = Preprocessing(image_size=16, channels=1), Unit(0, "", 0, 56)
    resources = engines.Resources(1, 0, 1)
    choice = engines.choose("m", "knn-1", kind, "auto", unit, resources, num_images=56)
    assert choice == engines.EngineChoice()


def test_a_trial_is_kept_for_the_next_table(model, image_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("GANAD_CACHE", str(tmp_path / "cache"))
    worker = engines.EngineTester(models=[model], num_threads=1, typed="openvino", total=56.0)
    images = decoded_unit(image_folder, worker.preprocessings)
    report = worker.work(images)["report"]
    assert json.loads(report)["engine"] == "openvino"
    monkeypatch.setattr(trial, "try_engines", lambda *arguments: pytest.fail("tried again"))
    assert json.loads(worker.work(images)["report"]) == json.loads(report)


def test_show_says_which_engine_scores_and_how_it_agrees(model, image_folder, tmp_path, capsys):
    (run,) = score([model], [str(image_folder)], str(tmp_path / "t"), engine="openvino").values()
    show(str(tmp_path / "t"))
    shown = " ".join(capsys.readouterr().out.split())
    assert f"{run.model} by openvino, which scores: " in shown
    assert "scores of 56 images have a rank correlation of 1.0000" in shown


def test_an_unknown_engine_is_named_before_anything_is_scored(model, image_folder, tmp_path):
    with pytest.raises(ConfigError, match="--engine turbo: use one of auto, eager"):
        score([model], [str(image_folder)], str(tmp_path / "t"), engine="turbo")
    assert not list((tmp_path / "t").glob("model=*"))
