"""AnoGAN's search, many images at once and one by one. Run: ganad benchmark search MODEL SOURCE"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ganad.archive.listing import list_images
from ganad.detectors.gan.anogan import Anogan
from ganad.detectors.gan.latent_search import SCHEDULE, Found
from ganad.errors import ConfigError
from ganad.images.inputs import from_rows
from ganad.model import load

WAYS = ((1, 0.0), (1, 1e-2), (5, 1e-2))
"""(times the model's search_rate, tolerance): all steps for every image; images leave when 50 steps
have lowered their loss by less than a hundredth; the same with longer steps, so that they leave
sooner."""


def search(
    model: str,
    source: str,
    num_alone: int,
    num_together: int,
    steps: int | None = None,
    *,
    compiled: bool = False,
) -> list[dict[str, Any]]:
    """Search for the same images with the same networks, starts and steps, in one run.

    Rows: one image after the other as published implementations do it (z alone is optimised, by
    torch's own Adam, in float32; the loss backpropagated through networks as they are), the same
    with the networks' weights frozen, and ganad's. final_loss is the mean over the images that all
    rows share. A model with a warm start uses it in ganad's rows but the last; one by one starts
    from noise. steps: of a search, at the most; None = the model's search_steps. compiled: also
    a row of networks by TorchInductor, compiled before. Raises ConfigError for a model that is no
    AnoGAN.
    """
    loaded = load(model)
    detector = loaded.detector
    if not isinstance(detector, Anogan):
        raise ConfigError(f"{model} is a {detector.name}: give a model of anogan")
    rows = list(islice(list_images([source]), num_together))
    decoded = [one for some, _ in from_rows(rows, loaded.preprocessing) for one in some]
    good = [i for i, one in enumerate(decoded) if one.image is not None]
    images = detector.prepare(torch.from_numpy(np.stack([decoded[i].image for i in good])))  # type: ignore[misc]
    ids = [rows[i]["image_id"] for i in good]
    starts = detector.starts(ids)[:, 0].to(detector.device)
    results: list[dict[str, Any]] = []
    if steps is not None:
        detector.config = detector.config.model_copy(update={"search_steps": steps})
    config = detector.config
    for name, is_frozen in (("one by one", False), ("one by one, frozen", True)):
        detector.requires_grad_(not is_frozen)
        began = time.perf_counter()
        found = [alone(detector, images[i : i + 1], starts[i : i + 1]) for i in range(num_alone)]
        seconds = time.perf_counter() - began
        results.append(_row(name, num_alone, seconds, found, config.search_steps))
    detector.requires_grad_(False)
    for factor, tolerance in WAYS:
        rate = factor * config.search_rate
        changed = {"search_rate": rate, "tolerance": tolerance, "keep": "best"}
        detector.config = config.model_copy(update=changed)
        name = f"together, rate {rate:g}, tolerance {tolerance:g}"
        results.append(_timed(name, lambda: detector.search(images, ids), num_alone))
        if compiled and tolerance == 0:  # all searches take as many steps
            run, starts = _by_inductor(detector, images, ids), detector.starts_of(images, ids)
            find = partial(run, images, starts)
            results.append(_timed(f"{name}, by inductor", find, num_alone))
    if detector.encoder is not None:
        detector.encoder = None
        name = f"{name}, without the warm start"
        results.append(_timed(name, lambda: detector.search(images, ids), num_alone))
    for row in results:
        row["times"] = round(row["images_per_s"] / results[0]["images_per_s"], 1)
        row["times_frozen"] = round(row["images_per_s"] / results[1]["images_per_s"], 1)
    return results


def _timed(name: str, find: Callable[[], Found], num_compared: int) -> dict[str, Any]:
    began = time.perf_counter()
    found = find()
    losses, steps = found.loss[:num_compared].tolist(), float(found.steps.float().mean())
    seconds = time.perf_counter() - began  # with what a GPU had still to do
    return _row(name, len(found.loss), seconds, losses, steps)


def _by_inductor(
    detector: Anogan, images: Tensor, ids: list[str]
) -> Callable[[Tensor, Tensor], Found]:
    """The detector's search with compiled networks."""
    searcher = detector.searcher()
    searcher.fast_generator.compile()
    searcher.fast_features.compile()
    options = searcher.options
    searcher.options = replace(options, steps=1)  # one round, in which they are compiled
    searcher.run(images[:1], detector.starts_of(images[:1], ids[:1]))
    searcher.options = options
    return searcher.run


def _row(name: str, num: int, seconds: float, losses: list[float], steps: float) -> dict[str, Any]:
    return {
        "search": name,
        "images": num,
        "images_per_s": round(num / seconds, 3),
        "final_loss": float(np.mean(losses)),
        "steps": steps,
    }


def alone(detector: Anogan, image: Tensor, start: Tensor) -> float:
    """The loss at the end of one image's search, as published implementations do it."""
    config = detector.config
    features = detector.discriminator.features
    assert isinstance(features, nn.Module)
    z = start.clone().requires_grad_()
    adam = torch.optim.Adam([z], lr=config.search_rate)
    with torch.no_grad():
        target = features(image)

    def loss_at(code: Tensor) -> Tensor:
        rebuilt = detector.generator(code)
        residual = (image - rebuilt).abs().sum()
        discrimination = (target - features(rebuilt)).abs().sum()
        return (1 - config.feature_share) * residual + config.feature_share * discrimination

    for step in range(config.search_steps):
        for share, factor in SCHEDULE:
            if step == round(share * config.search_steps):
                adam.param_groups[0]["lr"] = factor * config.search_rate
        adam.zero_grad()
        loss_at(z).backward()
        adam.step()
    with torch.no_grad():
        return float(loss_at(z))
