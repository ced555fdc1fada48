"""Model folders with anything in them: one ModelError, and never another score in silence."""

import json
import random
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from ganad.calibration import Calibration
from ganad.detectors import configure, create
from ganad.errors import ConfigError, ModelError
from ganad.model import Model, load
from ganad.saved import ModelRecord, digest, read_info
from ganad.storage.records import checksum_of

CONFIG: dict[str, Any] = {"image_size": 16, "channels": 1, "width": 4, "latent": 4}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model; to be read only."""
    detector = create("ganomaly", configure("ganomaly", CONFIG))
    noise = torch.randint(0, 256, (30, 1, 16, 16), dtype=torch.uint8)
    ids = tuple(f"id{i}" for i in range(30))
    model = Model(detector, Calibration(detector.score(noise).score, ids), {"num_train": 100})
    return Path(model.save(str(tmp_path_factory.mktemp("saved") / "model"), {"kept.bin": b"kept"}))


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    for file in saved.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def forge(folder: Path, **changes: Any) -> None:
    """Change keys of model.json, and its id and checksums so that they agree."""
    info = json.loads((folder / "model.json").read_text())
    info = {key: value for key, value in {**info, **changes}.items() if value is not ...}
    if isinstance(info.get("config"), dict) and isinstance(info.get("preprocessing"), dict):
        settings = {name: info[name] for name in ("config", "preprocessing")}
        calibration = Calibration.from_table(pq.read_table(folder / "calibration.parquet"))
        weights = (folder / "model.safetensors").read_bytes()
        if "id" not in changes:
            info["id"] = f"ganomaly-{digest('ganomaly', settings, weights, calibration)}"
    info.pop("checksum")
    text = json.dumps({**info, "checksum": checksum_of(info)})
    (folder / "model.json").write_text(text)


def refused(folder: Path) -> str:
    """The sentence that says why the model is refused."""
    with pytest.raises(ModelError) as caught:
        load(str(folder))
    sentence = str(caught.value)
    assert sentence.startswith(str(folder))
    assert "\n" not in sentence
    assert len(sentence) < 600
    return sentence


REQUIRED = [name for name, field in ModelRecord.model_fields.items() if field.is_required()]
WRONG: dict[str, Any] = {
    "format": 3,
    "id": "../ganomaly",
    "detector": "gone",
    "config": {**CONFIG, "later_key": 1},
    "preprocessing": 16,
    "num_parameters": -1,
    "num_calibration": "many",
    "facts": [],
    "training": [{}],
    "versions": {"python": 3},
}


@pytest.mark.parametrize("key", REQUIRED)
@pytest.mark.parametrize("how", ["missing", "null", "wrong"])
def test_every_key_of_model_json_is_checked(folder: Path, key: str, how: str) -> None:
    forge(folder, **{key: {"missing": ..., "null": None, "wrong": WRONG[key]}[how]})
    refused(folder)


def deep(kind: str) -> bytes:
    opening, closing = {"arrays": ("[", "]"), "objects": ('{"a":', "}")}[kind]
    return (opening * 200_000 + "1" + closing * 200_000).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b"3",
        b'"text"',
        b"{}",
        b"{",
        b"\x00" * 100,
        b"\xff\xfe{\x00}\x00",
        b'{"format": 1e999}',
        b'{"format": ' + b"9" * 5000 + b"}",
        b'{"format": NaN}',
        deep("arrays"),
        deep("objects"),
    ],
    ids=lambda content: content[:12].decode(errors="replace"),
)
def test_whatever_stands_in_model_json_is_one_error(folder: Path, content: bytes) -> None:
    (folder / "model.json").write_bytes(content)
    assert refused(folder).endswith("train the model again")


def test_a_model_json_that_nests_deep_inside_a_known_key_is_refused(folder: Path) -> None:
    text = (folder / "model.json").read_text().replace('"training": {', '"training": {"a": %s, ')
    (folder / "model.json").write_text(text % deep("arrays").decode())
    refused(folder)


@pytest.mark.parametrize(
    "keys", [{"latent": 10**10}, {"width": 10**30}, {"latent": 10**5}, {"extra_layers": 10**9}]
)
def test_sizes_that_the_weights_do_not_have_are_refused_before_memory_is_taken(
    folder: Path, keys: dict[str, Any]
) -> None:
    config = {**json.loads((folder / "model.json").read_text())["config"], **keys}
    forge(folder, config=config)
    refused(folder)


@pytest.mark.parametrize("keys", [{"latent": 10**10}, {"width": 10**30}])
def test_networks_that_no_machine_holds_are_refused_before_training(keys: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="lower the keys that are sizes"):
        create("ganomaly", configure("ganomaly", {**CONFIG, **keys}))


@pytest.mark.parametrize("name", ["model.json", "model.safetensors", "calibration.parquet"])
def test_a_flipped_bit_is_found_wherever_it_is(folder: Path, name: str) -> None:
    file, draw = folder / name, random.Random(0)
    whole = file.read_bytes()
    for _ in range(60):
        place = draw.randrange(len(whole))
        changed = bytearray(whole)
        changed[place] ^= 1 << draw.randrange(8)
        file.write_bytes(changed)
        refused(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "calibration.parquet"])
@pytest.mark.parametrize("how", ["missing", "empty", "cut", "folder", "grown"])
def test_files_that_are_not_whole_are_refused(folder: Path, name: str, how: str) -> None:
    file = folder / name
    whole = file.read_bytes()
    file.unlink()
    changed = {"empty": b"", "cut": whole[: len(whole) // 2], "grown": whole + b"\0"}
    if how == "folder":
        file.mkdir()
    elif how != "missing":
        file.write_bytes(changed[how])
    refused(folder)


def test_without_its_checksum_a_model_json_is_refused_but_for_those_that_never_had_one(
    folder: Path,
) -> None:
    info = json.loads((folder / "model.json").read_text())
    del info["checksum"]
    (folder / "model.json").write_text(json.dumps(info))
    refused(folder)
    del info["files"]
    (folder / "model.json").write_text(json.dumps({**info, "format": 1}))
    assert load(str(folder)).id == info["id"]


def test_numbers_that_json_does_not_have_are_null(saved: Path, tmp_path: Path) -> None:
    model = load(str(saved))
    model.training["history"] = [{"validation_score": float("nan")}]
    model.save(str(tmp_path))
    assert read_info(str(tmp_path))["training"]["history"] == [{"validation_score": None}]
