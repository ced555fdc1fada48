"""Detectors, one file per method in a folder per family. Here: the registry and typed configs.

Nothing here imports torch: a command that lists detectors or checks config keys starts at once. A
new detector is

- a class in a file of its own, <family>/<name>.py, that says what it is in the class variables of
  Description, as plain strings;
- its config keys, <Class>Config in <family>/config.py, which imports no torch either;
- a line in DETECTORS below;
- tests/ganad/detectors/<family>/test_<name>.py, for what the protocol's tests do not know of it.
"""

from __future__ import annotations

import ast
import difflib
import reprlib
from collections.abc import Mapping
from importlib.resources import files
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from pydantic import BaseModel, ValidationError

from ganad.detectors.config import DetectorConfig
from ganad.errors import ConfigError

if TYPE_CHECKING:
    from ganad.detectors.base import Detector

DETECTORS = {
    "gaussian": "statistics.gaussian:Gaussian",
    "knn": "statistics.knn:Knn",
    "gmm": "statistics.gmm:Gmm",
    "ocsvm": "statistics.ocsvm:Ocsvm",
    "padim": "maps.padim:Padim",
    "patchcore": "maps.patchcore:Patchcore",
    "dictionary": "maps.dictionary:Dictionary",
    "deep_anomaly": "maps.deep_anomaly:DeepAnomaly",
    "autoencoder": "reconstruction.autoencoder:Autoencoder",
    "vae": "reconstruction.vae:Vae",
    "student": "distillation.student:Student",
    "pixelcnn": "likelihood.pixelcnn:PixelCnn",
    "pixelrnn": "likelihood.pixelrnn:PixelRnn",
    "anogan": "gan.anogan:Anogan",
    "fanogan": "gan.fanogan:Fanogan",
    "egbad": "gan.egbad:Egbad",
    "alad": "gan.alad:Alad",
    "ganomaly": "gan.ganomaly:Ganomaly",
    "skip_ganomaly": "gan.skip_ganomaly:SkipGanomaly",
    "acgan": "gan.acgan:Acgan",
}
"""Name of a detector -> module:class below ganad.detectors. The keys of a class X are those of
XConfig in the module `config` of the same folder."""


class Description(NamedTuple):
    """What a detector says of itself."""

    summary: str
    paper: str
    good_at: str
    bad_at: str


def find(name: str) -> type[Detector[Any]]:
    """The class of a detector; raises ConfigError with the nearest name."""
    detector: type[Detector[Any]] = resolve_name(f"{__name__}.{_entry(name)}")
    return detector


def find_config(name: str) -> type[DetectorConfig]:
    """The config class of a detector; raises ConfigError with the nearest name."""
    entry = _entry(name)
    family, class_name = entry.partition(".")[0], entry.partition(":")[2]
    config: type[DetectorConfig] = resolve_name(f"{__name__}.{family}.config:{class_name}Config")
    return config


def describe(name: str) -> Description:
    """A detector's class variables of these names, which must be plain strings in its class body.

    They are read from the source file: importing every detector would take seconds.
    """
    module, _, class_name = _entry(name).partition(":")
    source = files(__name__).joinpath(module.replace(".", "/") + ".py").read_text(encoding="utf-8")
    (body,) = [
        node.body
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef) and node.name == class_name
    ]
    values = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and node.targets[0].id in Description._fields
    }
    return Description(**values)


def configure(name: str, values: Mapping[str, Any]) -> DetectorConfig:
    """A checked config from (possibly nested) values; raises ConfigError in one sentence."""
    config_class = find_config(name)
    try:
        return config_class.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError(_sentence(name, config_class, error)) from None


def create(name: str, config: DetectorConfig) -> Detector[Any]:
    """A detector with its first weights drawn from config.seed, in eval mode."""
    return find(name).initialized(config)


def _entry(name: str) -> str:
    if name in DETECTORS:
        return DETECTORS[name]
    near = difflib.get_close_matches(name, DETECTORS, n=1, cutoff=0.5)
    remedy = f"did you mean {near[0]}?" if near else f"use one of {', '.join(DETECTORS)}"
    raise ConfigError(f"{name} is not a detector: {remedy}")


def _sentence(name: str, config_class: type[BaseModel], error: ValidationError) -> str:
    # A key that is misspelt leaves another one missing: the former is what to say.
    first = min(error.errors(), key=lambda one: one["type"] == "missing")
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = _keys(config_class)
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
        remedy = f"did you mean {near[0]}?" if near else f"use one of {', '.join(known)}"
        return f"{key} is no key of {name}: {remedy}"
    if first["type"] == "missing":
        return f"{key} is missing: set it, for {name} needs it beside what is set already"
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, ConfigError):  # raised by a config's own check, a sentence already
        return str(cause)
    what = str(cause) if cause else first["msg"][0].lower() + first["msg"][1:]
    return f"{key or name}={_shown(first['input'])} cannot be used for {name}: {what}"


def _shown(value: Any) -> str:
    """A value as Python writes it, cut short where it is large or deep."""
    try:
        return reprlib.repr(value)
    except ValueError:  # an integer of thousands of digits
        return "…"


def _keys(config_class: type[BaseModel], prefix: str = "") -> list[str]:
    keys = []
    for key, field in config_class.model_fields.items():
        # A table of keys, or none: X | None.
        nested = [
            kind
            for kind in (field.annotation, *get_args(field.annotation))
            if isinstance(kind, type) and issubclass(kind, BaseModel)
        ]
        if nested:
            keys += _keys(nested[0], f"{prefix}{key}.")
        else:
            keys.append(prefix + key)
    return keys
