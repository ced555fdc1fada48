"""AnoGAN's search, many images at once and one by one. Run: ganad benchmark search MODEL SOURCE"""

from __future__ import annotations

import time
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ganad.archive.listing import list_images
from ganad.detectors.anogan import Anogan
from ganad.errors import ConfigError
from ganad.inputs import from_rows
from ganad.latent_search import SCHEDULE
from ganad.model import load

TOLERANCES = (0.0, 1e-3, 1e-2)
"""0: all steps for every image. Else an image leaves when 50 steps lowered its loss by less."""


def search(model: str, source: str, num_alone: int, num_together: int) -> list[dict[str, Any]]:
    """Search for the same images with the same networks, starts and steps, in one run.

    Rows: one image after the other as published implementations do it (z alone is optimised, by
    torch's own Adam, in float32; the loss backpropagated through networks as they are), the same
    with the networks' weights frozen, and ganad's. final_loss is the mean over the images that all
    rows share. Raises ConfigError for a model that is no AnoGAN.
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
    starts = detector.starts(ids)[:, 0]
    results: list[dict[str, Any]] = []
    for name, is_frozen in (("one by one", False), ("one by one, frozen", True)):
        detector.requires_grad_(not is_frozen)
        began = time.perf_counter()
        found = [_alone(detector, images[i : i + 1], starts[i : i + 1]) for i in range(num_alone)]
        results.append(_row(name, num_alone, time.perf_counter() - began, found))
    detector.requires_grad_(False)
    config = detector.config
    for tolerance in TOLERANCES:
        detector.config = config.model_copy(update={"tolerance": tolerance, "keep": "best"})
        began = time.perf_counter()
        result = detector.search(images, ids)
        seconds = time.perf_counter() - began
        row = _row(
            f"together, tolerance {tolerance:g}",
            len(images),
            seconds,
            result.loss[:num_alone].tolist(),
        )
        results.append({**row, "steps": float(result.steps.float().mean())})
    for row in results:
        row["times"] = round(row["images_per_s"] / results[0]["images_per_s"], 1)
        row["times_frozen"] = round(row["images_per_s"] / results[1]["images_per_s"], 1)
    return results


def _row(name: str, num: int, seconds: float, losses: list[float]) -> dict[str, Any]:
    return {
        "search": name,
        "images": num,
        "images_per_s": round(num / seconds, 3),
        "final_loss": float(np.mean(losses)),
        "steps": None,
    }


def _alone(detector: Anogan, image: Tensor, start: Tensor) -> float:
    """The loss at the end of one image's search."""
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
