"""A timm network as a frozen source of features: one pooled vector per stage and image."""

from __future__ import annotations

import copy
import difflib
import hashlib
import math
import os
import re
from collections.abc import Sequence
from functools import partial
from typing import Any

import timm
import torch
from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError
from timm.models import PretrainedCfg
from timm.models import load_state_dict as read_state_dict
from torch import Tensor, nn

from ganad.errors import ConfigError
from ganad.features.folding import folded

RANDOM = "random"
"""As weights: seeded random ones."""
SUCH_AS = "resnet18 or tf_efficientnet_b4.aa_in1k"
REACH_TIMEOUT_S = 10
"""Of the one request that finds out whether the hub can be reached."""
SAME = 1e-4
"""Features that differ by less than this share of the largest are the same but for rounding."""
STEMS = ("act1", "bn1", "stem")
STAGES = ("stages", "layers", "blocks")
NUMBERED = re.compile(r"(layer|stage|block|level|s)\d+")
HEADS = ("bn2", "final_act", "final_conv")


def describe(name: str) -> PretrainedCfg:
    """timm's record of a network (input size, mean, std, source of weights); no network access.

    Raises ConfigError, with the nearest names, if timm has no such network or tag.
    """
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
        raise ConfigError(f"backbone.name={name} is no network that timm has: {remedy}")
    return record


def full_name(name: str) -> str:
    """The name with its tag: timm's default tag may change, and with it mean, std and weights."""
    record = describe(name)
    architecture = name.partition(".")[0]
    return f"{architecture}.{record.tag}" if record.tag else architecture


def native_size(name: str) -> int:
    """Side in pixels of the images that a network was made for."""
    record = describe(name)
    size = record.input_size if record.fixed_input_size else None
    return (size or record.test_input_size or record.input_size)[-1]


def find_stages(network: nn.Module) -> dict[str, str]:
    """The levels of a network: name -> path of the module whose output is pooled.

    For EfficientNet these are the nine levels of Rippel et al.; timm's own features_only leaves
    out four of them. Stages are recognised by the names that timm gives them, and where there are
    none by its feature_info.
    """
    children = [name for name, _ in network.named_children()]
    container = next((name for name in STAGES if name in children), None)
    numbered = [name for name in children if NUMBERED.fullmatch(name)]
    if container is not None:
        inside = [name for name, _ in network.get_submodule(container).named_children()]
        middle = [f"{container}.{name}" for name in inside]
        first = last = children.index(container)
    elif len(numbered) > 1:
        middle = numbered
        first, last = children.index(numbered[0]), children.index(numbered[-1])
    else:
        info = getattr(network, "feature_info", [])
        paths = [one["module"] for one in getattr(info, "info", info) if one["module"]]
        known = dict(network.named_modules())
        return {path: path for path in paths if path in known}
    levels = {path: path for path in middle}
    for stem in STEMS:
        if stem in children[:first]:
            levels = {"stem": stem, **levels}
            break
    for head in HEADS:
        if head in children[last + 1 :]:
            levels["head"] = head
            break
    found = {level: network.get_submodule(path) for level, path in levels.items()}
    return {
        level: path
        for level, path in levels.items()
        if not isinstance(found[level], nn.Identity)  # it would count the stage before twice
    }


def pool(output: Any, num_images: int, prefix: int, channels_last: bool) -> Tensor | None:
    """The mean over all places of what a stage gives, float32 (n, d); None if it cannot be told.

    Images are square, and so are their maps and patch grids: that tells (n, d, h, w) from
    (n, h, w, d), and whether `prefix` tokens that belong to no place come first.
    """
    if isinstance(output, list):  # branches of several resolutions
        branches = [pool(one, num_images, prefix, channels_last) for one in output]
        known = [branch for branch in branches if branch is not None]
        return torch.cat(known, 1) if known and len(known) == len(branches) else None
    if isinstance(output, tuple):  # a map and what belongs to it
        mine = [one for one in output if isinstance(one, Tensor) and len(one) == num_images]
        return pool(mine[0], num_images, prefix, channels_last) if mine else None
    if not isinstance(output, Tensor) or len(output) != num_images:
        return None
    if output.ndim == 4:
        _, x, y, z = output.shape
        last = channels_last if x == y == z else x == y
        return output.mean((1, 2) if last else (2, 3), dtype=torch.float32)
    if output.ndim == 3:
        num_tokens = output.shape[1]
        skip = 0 if math.isqrt(num_tokens) ** 2 == num_tokens else prefix
        return output[:, skip:].mean(1, dtype=torch.float32)
    return output.float() if output.ndim == 2 else None


class FeatureExtractor(nn.Module):
    """A frozen timm network without its classifier, always in eval mode.

    name: as timm has it, with or without a tag. image_size: side in pixels. levels: which levels
    to give, None = all. weights: None = those of the tag, from the Hugging Face hub or its cache;
    the path of a state dict (.pth, .safetensors); "random" = drawn from seed. With
    load_weights=False nothing is read, for a state dict is about to be loaded. size_key: the config
    key that image_size comes from, for messages.

    Raises ConfigError if any of these is wrong or cannot be had.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str,
        image_size: int,
        levels: Sequence[str] | None = None,
        weights: str | None = None,
        seed: int = 0,
        load_weights: bool = True,
        size_key: str = "image_size",
    ) -> None:
        super().__init__()
        record = describe(name)
        self.name = name
        self.network = _create(name, weights, seed, load_weights)
        self.network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        # Part of the state: a model must not change with timm's records.
        self.register_buffer("mean", torch.tensor(record.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(record.std).view(1, 3, 1, 1))
        self._paths = find_stages(self.network)
        self._fast: list[nn.Module] = []  # in a list, and so no part of the state
        self.register_load_state_dict_post_hook(_forget)
        try:
            self.dimensions = self._fit_to(image_size)
        except (RuntimeError, ValueError, AssertionError) as error:
            raise ConfigError(
                f"{size_key}={image_size} does not suit {name} ({_short(error)}): "
                f"set {size_key} to {native_size(name)}"
            ) from None
        """Level -> width d of its vectors, in the order of the network."""
        if levels is not None:
            for level in levels:
                if level not in self.dimensions:
                    raise ConfigError(
                        f"backbone.levels={level} is no level of {name}: "
                        f"use some of {', '.join(self.dimensions)}"
                    )
            self.dimensions = {k: d for k, d in self.dimensions.items() if k in levels}

    def train(self, mode: bool = True) -> FeatureExtractor:
        """Stay in eval mode: the running statistics of a frozen network do not move."""
        return super().train(False)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """float (n, 1 or 3, h, w) in [-1, 1] -> float32 (n, d) by level; grey is taken thrice."""
        # (x/2 + 1/2 − mean) / std, and the broadcast over three channels, in one pass
        scaled = torch.addcmul((0.5 - self.mean) / self.std, images, 0.5 / self.std)
        scaled = scaled.contiguous(memory_format=torch.channels_last)
        return self._run(self._faster(scaled[:1]), scaled, list(self.dimensions))

    def _apply(self, fn: Any, recurse: bool = True) -> FeatureExtractor:
        self._fast.clear()  # it would stay on the old device
        return super()._apply(fn, recurse)

    def _faster(self, images: Tensor) -> nn.Module:
        """The network with its batch-norms folded, if that gives these images the same features;
        found out once."""
        if not self._fast:
            with torch.autocast(images.device.type, enabled=False):
                fast = folded(self.network, images)
                levels = list(self.dimensions)
                mine, theirs = (self._run(one, images, levels) for one in (self.network, fast))
            same = all(
                (mine[level] - theirs[level]).abs().max() <= SAME * mine[level].abs().max()
                for level in levels
            )
            self._fast.append(fast if same else self.network)
        return self._fast[0]

    @property
    def digest(self) -> str:
        """16 hex characters over the bytes of the network's weights, in the order of their keys."""
        digest = hashlib.blake2b(digest_size=8)
        for _, tensor in sorted(self.network.state_dict().items()):
            plain = tensor.detach().cpu().contiguous().reshape(-1)
            digest.update(plain.view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def _run(self, network: Any, images: Tensor, levels: list[str]) -> dict[str, Tensor]:
        pooled: dict[str, Tensor] = {}
        prefix = getattr(network, "num_prefix_tokens", 0)
        channels_last = getattr(network, "output_fmt", "NCHW") == "NHWC"

        def keep(level: str, module: nn.Module, inputs: Any, output: Any) -> None:
            vectors = pool(output, len(images), prefix, channels_last)
            if vectors is not None:
                pooled[level] = vectors

        modules = {level: network.get_submodule(self._paths[level]) for level in levels}
        handles = [
            module.register_forward_hook(partial(keep, level)) for level, module in modules.items()
        ]
        try:
            network.forward_features(images)
        finally:
            for handle in handles:
                handle.remove()
        return {level: pooled[level] for level in levels if level in pooled}

    def _fit_to(self, image_size: int) -> dict[str, int]:
        """Set a network of fixed size to image_size; widths by level, from shapes alone."""
        if describe(self.name).fixed_input_size and image_size != native_size(self.name):
            if not hasattr(self.network, "set_input_size"):
                raise ValueError("its size is fixed")
            patch = getattr(getattr(self.network, "patch_embed", None), "patch_size", None)
            if isinstance(patch, tuple) and image_size % patch[0]:  # the rest would go unseen
                raise ValueError(f"its patches are {patch[0]} pixels wide")
            self.network.set_input_size((image_size, image_size))
        shapes = copy.deepcopy(self.network).to("meta")
        with torch.no_grad():
            images = torch.empty(2, 3, image_size, image_size, device="meta")
            pooled = self._run(shapes, images, list(self._paths))
        if not pooled:
            raise ConfigError(
                f"backbone.name={self.name} has no stages that ganad can tell apart: use another "
                f"network, such as {SUCH_AS}"
            )
        return {level: vectors.shape[1] for level, vectors in pooled.items()}


def _forget(extractor: FeatureExtractor, _: Any) -> None:
    """New weights have come."""
    extractor._fast.clear()


def _create(name: str, weights: str | None, seed: int, load_weights: bool) -> Any:
    if load_weights and weights is None:
        return _from_hub(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = timm.create_model(name, pretrained=False, num_classes=0)
    if load_weights and weights is not None and weights != RANDOM:
        _load_file(network, name, weights)
    return network


def _from_hub(name: str) -> nn.Module:
    record = describe(name)
    remedy = (
        "give a file that you have with --set backbone.weights=PATH, "
        "or weights drawn at random with --set backbone.weights=random"
    )
    if not record.has_weights:
        raise ConfigError(f"backbone.name={name}: timm has no weights for it: {remedy}")
    try:
        _reach(record)
        return timm.create_model(name, pretrained=True, num_classes=0)
    except Exception as error:  # each of the libraries below timm has exceptions of its own
        raise ConfigError(
            f"backbone.name={name}: its weights cannot be fetched from the Hugging Face hub "
            f"({type(error).__name__}: {_short(error)}): {remedy}"
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
            f"backbone.weights={path} is no file: give the path of a state dict, or leave "
            f"backbone.weights out to fetch the weights of {name}"
        )
    try:
        state = read_state_dict(path, device="cpu", weights_only=True)
    except Exception as error:  # whatever a foreign file can make a reader raise
        raise ConfigError(
            f"backbone.weights={path} cannot be read as a state dict ({_short(error)}): "
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


def _short(error: BaseException) -> str:
    """The first line of an error, without the full stop."""
    lines = str(error).strip().splitlines()
    return lines[0][:160].rstrip(".") if lines else type(error).__name__
