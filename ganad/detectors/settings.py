"""Config keys as typed: a TOML file, --set key=value, --seed."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from ganad.errors import ConfigError


def merge_settings(
    detector: str,
    file: Path | None,
    assignments: Sequence[str],
    seed: int | None,
    values: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The detector's own TOML (or the values given), then the file, then --set, then --seed; later
    ones win."""
    if values is None:
        own = files("ganad.detectors") / "presets" / f"{detector}.toml"
        values = tomllib.loads(own.read_text()) if own.is_file() else {}
    if file is not None:
        lay_over(values, _read(file))
    for assignment in assignments:
        lay_over(values, _parse(assignment))
    if seed is not None:
        values["seed"] = seed
    return values


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text())
    except FileNotFoundError:
        raise ConfigError(f"--config {file} does not exist: give a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config {file} is no TOML ({error}): mend it") from None


def _parse(assignment: str) -> dict[str, Any]:
    key, equals, text = assignment.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {assignment} is no assignment: write --set key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # a word that needs no quotes, such as a path
    for part in reversed(key.split(".")):
        value = {part: value}
    return dict(value)


def lay_over(below: dict[str, Any], above: Mapping[str, Any]) -> None:
    """Put the keys of above into below, in place; nested tables key by key."""
    for key, value in above.items():
        if isinstance(value, dict) and isinstance(below.get(key), dict):
            lay_over(below[key], value)
        else:
            below[key] = value


def parse_workers(typed: str) -> int | tuple[int, int]:
    """4 -> 4; 1:4 -> (1, 4), at least and at the most. Raises ConfigError."""
    least, colon, most = typed.partition(":")
    numbers = [int(word) for word in (least, most) if word.isascii() and word.isdecimal()]
    if not colon and len(numbers) == 1 and numbers[0] >= 1:
        return numbers[0]
    if colon and len(numbers) == 2 and 1 <= numbers[0] <= numbers[1]:
        return numbers[0], numbers[1]
    raise ConfigError(f"--workers {typed} is no number of workers: give 4, or 1:4 for 1 to 4")
