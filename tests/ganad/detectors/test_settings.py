"""Config keys: one source of defaults, presets, TOML files, --set, and values out of bounds."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from ganad.detectors import DETECTORS, configure, find
from ganad.detectors.settings import PRESETS, merge_settings, presets, read_config
from ganad.errors import ConfigError

NAMED = [(name, preset) for name in DETECTORS for preset in presets(name)]


def numbers(config: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Dotted names of all keys that are floats, also in nested tables."""
    for key, field in config.model_fields.items():
        kinds = (field.annotation, *get_args(field.annotation))
        if float in kinds:
            yield prefix + key
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from numbers(kind, f"{prefix}{key}.")


def test_every_file_among_the_presets_belongs_to_a_detector() -> None:
    files = {place.name for place in PRESETS.iterdir() if place.name.endswith(".toml")}
    assert files == {f"{name}-{preset}.toml" for name, preset in NAMED}


@pytest.mark.parametrize(("name", "preset"), NAMED)
def test_a_preset_names_only_what_differs_from_the_defaults(name: str, preset: str) -> None:
    values = read_config(name, preset, "")
    default, config = configure(name, {}), configure(name, values)
    for key in values:
        assert getattr(config, key) != getattr(default, key), key


def test_without_words_the_defaults_are_those_of_the_class() -> None:
    assert merge_settings("pixelcnn") == {}
    paper = configure("pixelcnn", merge_settings("pixelcnn", "paper"))
    assert paper.model_dump()["layers"] == 20


def test_later_settings_win_and_tables_are_merged(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("epochs = 3\nseed = 4\n[augment]\nrotate = 5\n")
    below = {"augment": {"shift": 0.1}, "epochs": 9, "width": 8}
    values = merge_settings("ganomaly", file, ["augment.rotate=7"], 6, below)
    augment = {"shift": 0.1, "rotate": 7}
    assert values == {"augment": augment, "epochs": 3, "width": 8, "seed": 6}
    assert below["augment"] == {"shift": 0.1}, "what is given stays as it was"


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_bytes(b"\xef\xbb\xbfepochs = 3\r\n")
    assert merge_settings("ganomaly", file) == {"epochs": 3}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"epochs = ", "is not valid TOML"),
        ("epochs = 3".encode("utf-16"), "is not valid TOML"),
        (b"x = " + b"[" * 100_000, "is not valid TOML"),
        (b"x = " + b"1" * 5000, "is not valid TOML"),
        (None, r"does not exist: give paper or a TOML file"),
    ],
    ids=["cut", "utf-16", "deep", "digits", "missing"],
)
def test_a_config_that_cannot_be_read_is_named(
    tmp_path: Path, content: bytes | None, reason: str
) -> None:
    file = tmp_path / "mine.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=f"^--config {file} {reason}"):
        merge_settings("pixelcnn", file)


def test_a_folder_is_not_a_config(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^--config .* cannot be read \(Is a directory\)"):
        merge_settings("pixelcnn", tmp_path)


@pytest.mark.parametrize("assignment", ["epochs", "=3", ""])
def test_what_is_not_an_assignment_is_named(assignment: str) -> None:
    with pytest.raises(ConfigError, match=f"^--set {assignment} is not an assignment"):
        merge_settings("ganomaly", assignments=[assignment])


@pytest.mark.parametrize("name", DETECTORS)
def test_every_number_of_every_detector_is_finite(name: str) -> None:
    keys = list(numbers(find(name).Config))
    assert "augment.rotate" in keys
    for key in keys:
        for value in ("1e400", "inf", "-inf", "nan"):
            with pytest.raises(ConfigError, match=f"^{key}="):
                configure(name, merge_settings(name, assignments=[f"{key}={value}"]))


@pytest.mark.parametrize(
    "value",
    [10**30, 10**5000, [[[[[[[[1]]]]]]]], "x" * 10_000, -1, math.inf, {"a": 1}],
    ids=["large", "digits", "deep", "long", "negative", "infinite", "table"],
)
def test_a_value_out_of_bounds_is_one_short_sentence(value: Any) -> None:
    with pytest.raises(ConfigError, match="^seed=") as caught:
        configure("ganomaly", {"seed": value})
    assert len(str(caught.value)) < 250
