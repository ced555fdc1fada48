"""A timm network as a frozen source of features: for each stage and image one map, or its mean."""

from __future__ import annotations

import copy
import hashlib
import math
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ganad.errors import ConfigError
from ganad.features.folding import folded
from ganad.features.records import SUCH_AS, describe, native_size
from ganad.features.shared import Sharing
from ganad.features.weights import create, first_line, source

SAME = 1e-4
"""Features that differ by less than this share of the largest are the same but for rounding."""
STEMS = ("act1", "bn1", "stem")
STAGES = ("stages", "layers", "blocks")
NUMBERED = re.compile(r"(layer|stage|block|level|s)\d+")
HEADS = ("bn2", "final_act", "final_conv")
Taken = TypeVar("Taken")
Engine = Callable[[Tensor], list[Tensor]]
"""Takes the images that a frozen network takes, and gives what it gives: one tensor for each level,
or one of maps."""


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


def places(output: Any, num_images: int, prefix: int, channels_last: bool) -> list[Tensor] | None:
    """The output of a stage as maps (n, d, h, w), one per branch; None if it cannot be recognised.

    Images are square, and so are their maps and patch grids: that tells (n, d, h, w) from
    (n, h, w, d), and whether `prefix` tokens without a place come first. Tokens that make no
    square come in one row, (n, d, 1, t), and vectors as (n, d, 1, 1).
    """
    if isinstance(output, list):  # branches of several resolutions
        branches = [places(one, num_images, prefix, channels_last) for one in output]
        known = [branch for branch in branches if branch is not None]
        return sum(known, []) if known and len(known) == len(branches) else None
    if isinstance(output, tuple):  # a map and what belongs to it
        mine = [one for one in output if isinstance(one, Tensor) and one.shape[0] == num_images]
        return places(mine[0], num_images, prefix, channels_last) if mine else None
    if not isinstance(output, Tensor) or output.shape[0] != num_images:
        return None
    if output.ndim == 4:
        _, x, y, z = output.shape
        last = channels_last if x == y == z else x == y
        return [output.permute(0, 3, 1, 2) if last else output]
    if output.ndim == 3:
        side = math.isqrt(output.shape[1])
        if side**2 != output.shape[1]:
            output = output[:, prefix:]
            side = math.isqrt(output.shape[1])
        tokens = output.transpose(1, 2)
        return [
            tokens.unflatten(2, (side, side)) if side**2 == tokens.shape[2] else tokens[:, :, None]
        ]
    return [output[:, :, None, None]] if output.ndim == 2 else None


def pool(maps: Sequence[Tensor]) -> Tensor:
    """The mean over all places of a stage's maps (n, d, h, w), float32 (n, d) over all branches."""
    return torch.cat([branch.mean((2, 3), dtype=torch.float32) for branch in maps], 1)


class _Seen(Exception):
    """The last stage needed has given its output; the rest of the network need not run."""


class FeatureExtractor(Sharing):
    """A frozen timm network without its classifier, always in eval mode.

    name: as timm has it, with or without a tag. image_size: side in pixels. levels: which levels
    to give, None = all; the network runs no further than the last of them. weights: None = those
    of the tag, from an installed package (see ganad.features.weights.PACKAGED) or the Hugging Face
    hub; the path of a state dict (.pth, .safetensors); "random" = drawn from seed. With
    load_weights=False nothing is read: a state dict is about to be loaded. size_key: the config
    key that image_size comes from, for messages.

    Raises ConfigError if any of these is wrong or not available.
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
        self.source = source(name, weights)
        """Where the weights come from, in words."""
        self.network = create(name, weights, seed, load_weights)
        self.network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        # Part of the state: a model must not change with timm's records.
        self.register_buffer("mean", torch.tensor(record.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(record.std).view(1, 3, 1, 1))
        self._paths = find_stages(self.network)
        self.engine: Engine | None = None
        """Runs forward in a compiled form; see ganad.engines.backbone."""
        self._fast: list[nn.Module] = []  # in a list, and so no part of the state
        self.register_load_state_dict_post_hook(_forget)
        try:
            shapes = self._fit_to(image_size)
        except (RuntimeError, ValueError, AssertionError) as error:
            raise ConfigError(
                f"{size_key}={image_size} does not suit {name} ({first_line(error)}): "
                f"set {size_key} to {native_size(name)}"
            ) from None
        self.dimensions = {k: sum(shape[1] for shape in v) for k, v in shapes.items()}
        """Level -> width d of its vectors, in the order of the network."""
        self.sides = {k: max(shape[2] for shape in v) for k, v in shapes.items() if _square(v)}
        """Level -> places per side of its map (of the finest branch); only levels with a map."""
        if levels is not None:
            self.choose(levels)

    def choose(self, levels: Sequence[str]) -> None:
        """Give these levels alone from now on; raises ConfigError if one does not exist."""
        for level in levels:
            if level not in self.dimensions:
                raise ConfigError(
                    f"backbone.levels={level} is not a level of {self.name}: "
                    f"use some of {', '.join(self.dimensions)}"
                )
        self.dimensions = {k: d for k, d in self.dimensions.items() if k in levels}
        self.sides = {k: side for k, side in self.sides.items() if k in levels}

    def train(self, mode: bool = True) -> FeatureExtractor:
        """Stay in eval mode: the running statistics of a frozen network do not move."""
        return super().train(False)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """float (n, 1 or 3, h, w) in [-1, 1] -> float32 (n, d) by level; grey is taken thrice."""
        if self.engine is not None:
            return dict(zip(self.dimensions, self.engine(images), strict=True))
        return self._see(images, pool)

    def maps(self, images: Tensor) -> dict[str, list[Tensor]]:
        """As forward, but for each level its maps (n, d, h, w), one per branch, in the precision
        of the network; pool() of them is what forward gives."""
        return self._see(images, list)

    def _see(self, images: Tensor, take: Callable[[list[Tensor]], Taken]) -> dict[str, Taken]:
        # (x/2 + 1/2 − mean) / std, and the broadcast over three channels, in one pass
        scaled = torch.addcmul((0.5 - self.mean) / self.std, images, 0.5 / self.std)
        scaled = scaled.contiguous(memory_format=torch.channels_last)
        network = self._faster(scaled[:1])
        if self.shared is None:
            return self._run(network, scaled, list(self.dimensions), take)
        device = scaled.device.type
        precision = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device)
        return self.shared.get(
            scaled,
            (network is self.network, precision),
            list(self.dimensions),
            take,
            partial(self._run, network, scaled),
        )

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
                mine, theirs = (
                    self._run(one, images, levels, pool) for one in (self.network, fast)
                )
            same = all(
                (mine[level] - theirs[level]).abs().max() <= SAME * mine[level].abs().max()
                for level in levels
            )
            self._fast.append(fast if same else self.network)
        return self._fast[0]

    @property
    def all_levels(self) -> list[str]:
        return list(self._paths)

    @property
    def digest(self) -> str:
        """16 hex characters over the bytes of the network's weights, in the order of their keys."""
        digest = hashlib.blake2b(digest_size=8)
        for _, tensor in sorted(self.network.state_dict().items()):
            plain = tensor.detach().cpu().contiguous().reshape(-1)
            digest.update(plain.view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def _run(
        self,
        network: Any,
        images: Tensor,
        levels: list[str],
        take: Callable[[list[Tensor]], Taken],
    ) -> dict[str, Taken]:
        taken: dict[str, Taken] = {}
        prefix = getattr(network, "num_prefix_tokens", 0)
        channels_last = getattr(network, "output_fmt", "NCHW") == "NHWC"

        def keep(level: str, module: nn.Module, inputs: Any, output: Any) -> None:
            maps = places(output, images.shape[0], prefix, channels_last)
            if maps is not None:
                taken[level] = take(maps)
            if level == levels[-1]:
                raise _Seen

        modules = {level: network.get_submodule(self._paths[level]) for level in levels}
        handles = [
            module.register_forward_hook(partial(keep, level)) for level, module in modules.items()
        ]
        try:
            network.forward_features(images)
        except _Seen:
            pass
        finally:
            for handle in handles:
                handle.remove()
        return {level: taken[level] for level in levels if level in taken}

    def _fit_to(self, image_size: int) -> dict[str, list[torch.Size]]:
        """Set a network of fixed size to image_size; shapes of the maps by level, found without
        computing them."""
        if describe(self.name).fixed_input_size and image_size != native_size(self.name):
            if not hasattr(self.network, "set_input_size"):
                raise ValueError("its size is fixed")
            patch = getattr(getattr(self.network, "patch_embed", None), "patch_size", None)
            if isinstance(patch, tuple) and image_size % patch[0]:  # the rest would go unseen
                raise ValueError(f"its patches are {patch[0]} pixels wide")
            self.network.set_input_size((image_size, image_size))
        copied = copy.deepcopy(self.network).to("meta")
        with torch.no_grad():
            images = torch.empty(2, 3, image_size, image_size, device="meta")
            shapes = self._run(
                copied, images, list(self._paths), lambda maps: [one.shape for one in maps]
            )
        if not shapes:
            raise ConfigError(
                f"backbone.name={self.name} has no stages that ganad can tell apart: use another "
                f"network, such as {SUCH_AS}"
            )
        return shapes


def _square(shapes: Sequence[torch.Size]) -> bool:
    return all(shape[2] == shape[3] and shape[2] > 1 for shape in shapes)


def _forget(extractor: FeatureExtractor, _: Any) -> None:
    """New weights have come."""
    extractor._fast.clear()
