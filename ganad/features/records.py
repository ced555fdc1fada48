"""timm's records of its networks: the full name, the input size, what weights exist.

timm takes seconds to load, and is loaded only for names that are not in DEFAULTS.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from ganad.errors import ConfigError

if TYPE_CHECKING:
    from timm.models import PretrainedCfg

RANDOM = "random"
"""As weights: drawn from the seed."""
DEFAULTS = {"tf_efficientnet_lite0.in1k": 224}
"""Full names of the networks that detectors use unless told otherwise -> native_size."""
SUCH_AS = "resnet18 or tf_efficientnet_b4.aa_in1k"


def describe(name: str) -> PretrainedCfg:
    """timm's record of a network (input size, mean, std, source of weights); no network access.

    Raises ConfigError, with the nearest names, if timm has no such network or tag.
    """
    import timm

    architecture, _, tag = name.partition(".")
    try:
        record = timm.get_pretrained_cfg(name) if timm.is_model(architecture) else None
    except RuntimeError:  # a tag that the architecture does not have
        tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{architecture}.*")]
        raise ConfigError(
            f"backbone.name={name}: timm has no weights of {architecture} with the tag "
            f"{tag or '(empty)'}: use one of {', '.join(tags) or 'no tag'}"
        ) from None
    if record is None:
        near = difflib.get_close_matches(architecture, timm.list_models(), n=3, cutoff=0.5)
        remedy = f"did you mean {', '.join(near)}?" if near else f"use one such as {SUCH_AS}"
        raise ConfigError(f"backbone.name={name} is not a network that timm has: {remedy}")
    return record


def full_name(name: str) -> str:
    """The name with its tag: timm's default tag may change, and with it mean, std and weights."""
    if name in DEFAULTS:
        return name
    record = describe(name)
    architecture = name.partition(".")[0]
    return f"{architecture}.{record.tag}" if record.tag else architecture


def native_size(name: str) -> int:
    """Side in pixels of the images that a network was made for."""
    if name in DEFAULTS:
        return DEFAULTS[name]
    record = describe(name)
    size = record.input_size if record.fixed_input_size else None
    return int((size or record.test_input_size or record.input_size)[-1])
