"""Engines are tried beside the eager pass, once for a model on a machine."""

from ganad.engines import inductor, openvino
from ganad.engines.known import candidates
from ganad.engines.trial import Trial, choose, keep_trials, kept_trials, try_engines
from tests.ganad.detectors.small import random_images, small
from tests.ganad.engines.needs import needs_openvino

NAMES = [str(number) for number in range(40)]


@needs_openvino
def test_engines_are_tried_beside_eager():
    detector = small("ganomaly", precision="float32")
    trials = try_engines(detector, None, random_images(40), NAMES, ["openvino"])
    assert [trial.engine for trial in trials] == ["eager", "openvino"]
    assert trials[1].agreement.passed
    assert detector.engine is None


@needs_openvino
def test_few_images_are_not_worth_a_compilation(cache):
    detector = small("ganomaly", precision="float32")
    trials = try_engines(detector, None, random_images(40), NAMES, ["openvino"], total=40)
    assert [trial.engine for trial in trials] == ["eager"]
    assert not cache.exists()


def facts(*trials):
    return [one.facts() for one in trials]


def test_the_quickest_that_passed_is_taken():
    eager, refused = Trial("eager", 1.0, None), Trial("inductor", None, None, "refused")
    quick, quicker = Trial("openvino", 9.0, None), Trial("eager", 10.0, None)
    assert choose(facts(eager, refused), "auto") == "eager"
    assert choose(facts(eager, quick), "auto") == "openvino"
    assert choose(facts(quicker, quick), "auto") == "eager"
    assert choose(facts(quicker, quick), "openvino") == "openvino"
    assert choose(facts(Trial("eager", 8.5, None), quick), "auto") == "eager"  # within noise
    assert choose(facts(eager, refused), "inductor") == "eager"


def test_what_came_of_a_trial_is_kept_by_model_engines_and_version(monkeypatch, cache):
    monkeypatch.setattr(inductor, "version", lambda: "one")
    trials = facts(Trial("eager", 1.0, None), Trial("inductor", 9.0, None))
    assert kept_trials("knn-1", ["inductor"]) is None
    keep_trials("knn-1", ["inductor"], trials)
    assert kept_trials("knn-1", ["inductor"]) == trials
    assert kept_trials("knn-2", ["inductor"]) is None
    assert kept_trials("knn-1", []) is None
    (file,) = (cache / "trials").iterdir()
    file.write_text("{")  # as after a full disk
    assert kept_trials("knn-1", ["inductor"]) is None
    monkeypatch.setattr(inductor, "version", lambda: "two")
    assert kept_trials("knn-1", ["inductor"]) is None


def test_auto_tries_the_engine_that_compiles_in_seconds(monkeypatch):
    monkeypatch.setattr(openvino, "available", lambda: None)
    assert candidates("auto") == ["openvino"]
    monkeypatch.setattr(openvino, "available", lambda: "pip install")
    monkeypatch.setattr(inductor, "available", lambda: None)
    assert candidates("auto") == ["inductor"]
    monkeypatch.setattr(inductor, "available", lambda: "install g++")
    assert candidates("auto") == []
    assert candidates("openvino") == ["openvino"]
