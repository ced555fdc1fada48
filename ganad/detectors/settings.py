"""Config keys as a user gives them: a preset or a TOML file, single keys, a seed.

The defaults of a detector stand in its Config class, and nowhere else. A preset is a TOML file in
ganad/detectors/presets, named DETECTOR-PRESET.toml, with the keys that differ from them.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from ganad.errors import ConfigError

PRESETS = files("ganad.detectors") / "presets"


def merge_settings(
    detector: str,
    config: str | os.PathLike[str] | None = None,
    assignments: Sequence[str] = (),
    seed: int | None = None,
    below: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The keys below, then those of --config (a preset or a file), then --set, then --seed; later
    ones win. Keys that none of them names keep the defaults of the detector."""
    values: dict[str, Any] = {}
    lay_over(values, below or {})
    if config is not None:
        lay_over(values, read_config(detector, config, "--config "))
    for assignment in assignments:
        lay_over(values, _parse(assignment))
    if seed is not None:
        values["seed"] = seed
    return values


def presets(detector: str) -> list[str]:
    """Names of the presets of a detector."""
    names = [place.name for place in PRESETS.iterdir()]
    prefix, suffix = f"{detector}-", ".toml"
    return sorted(
        name[len(prefix) : -len(suffix)]
        for name in names
        if name.startswith(prefix) and name.endswith(suffix)
    )


def read_config(detector: str, config: str | os.PathLike[str], flag: str) -> dict[str, Any]:
    """The keys of a preset of the detector, or else of a TOML file.

    flag is what the user wrote before the name. Raises ConfigError.
    """
    typed, known = os.fspath(config), presets(detector)
    if typed in known:
        return tomllib.loads((PRESETS / f"{detector}-{typed}.toml").read_text("utf-8"))
    try:
        return read_toml(Path(typed))
    except FileNotFoundError:
        choice = f"{', '.join(known)} or " if known else ""
        raise ConfigError(f"{flag}{typed} does not exist: give {choice}a TOML file") from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError(f"{flag}{typed} cannot be read ({reason}): give a TOML file") from None
    except ValueError as error:
        raise ConfigError(f"{flag}{typed} is not valid TOML ({error}): fix the file") from None


def read_toml(file: Path) -> dict[str, Any]:
    """A TOML file, with or without a byte-order mark. Raises OSError, or ValueError in one line."""
    try:
        return tomllib.loads(file.read_text("utf-8-sig"))
    except RecursionError:
        raise ValueError("tables or arrays are nested too deep") from None


def _parse(assignment: str) -> dict[str, Any]:
    key, equals, text = assignment.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {assignment} is not an assignment: write --set key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        value = text  # a word that needs no quotes, such as a path
    for part in reversed(key.split(".")):
        value = {part: value}
    return dict(value)


def lay_over(below: dict[str, Any], above: Mapping[str, Any]) -> None:
    """Put the keys of above into below, in place; nested tables key by key."""
    for key, value in above.items():
        if not isinstance(value, Mapping):
            below[key] = value
            continue
        inner = below.get(key)
        # A copy: neither mapping shares a nested table with the caller's.
        below[key] = dict(inner) if isinstance(inner, Mapping) else {}
        lay_over(below[key], value)
