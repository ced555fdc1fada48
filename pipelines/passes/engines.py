"""What --engine takes, and how the engines that were tried are told of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ganad.errors import ConfigError

if TYPE_CHECKING:
    from pipelines.cluster.connection import Resources

EAGER, AUTO = "eager", "auto"
TYPED = (AUTO, EAGER, "inductor", "openvino")
"""What --engine takes."""
MAX_IMAGES = 256
"""Images on which engines are compared."""


def check_engine(typed: str, resources: Resources | None = None) -> None:
    """Raises ConfigError for an engine that does not exist, or that the GPUs of a job do not
    have."""
    if typed not in TYPED:
        raise ConfigError(f"--engine {typed}: use one of {', '.join(TYPED)}")
    if resources is not None and resources.gpus and typed not in (AUTO, EAGER):
        raise ConfigError(f"--engine {typed} runs on processors: leave it out, or add --no-gpu")


def gain(engine: str, trials: Sequence[Mapping[str, Any]]) -> str:
    """How much faster than eager an engine was, for the end of a sentence; empty if unknown."""
    rates = {trial["engine"]: trial["images_per_s"] for trial in trials}
    eager, quick = rates.get(EAGER), rates.get(engine)
    return f", {quick / eager:.1f} times as fast as eager" if eager and quick else ""


def described(trial: Mapping[str, Any]) -> str:
    """What came of a trial (see ganad.engines.trial.Trial.facts), in words."""
    if "refused" in trial:
        return str(trial["refused"])
    rate = f"{trial['images_per_s']:.4g} images/s"
    if "agreement" not in trial:
        return rate
    found = trial["agreement"]
    verdict = "passed" if trial["passed"] else "not passed"
    return f"{rate}; {agreement(found)}: {verdict}"


def agreement(found: Mapping[str, Any]) -> str:
    """How results agree with those of the eager pass (see ganad.engines.gate), in words."""
    if "difference" in found:
        if found["difference"] is None:
            return "features are not finite"
        return f"features of {found['n']} images differ by {found['difference']:.2g} of a spread"
    if found["spearman"] is None:
        return f"{found['n']} images are too few to compare"
    moved = ""
    if found["p_difference"] is not None:
        moved = f", p-values differ by up to {found['p_difference']:.2g}"
    return (
        f"scores of {found['n']} images have a rank correlation of {found['spearman']:.6f}{moved}"
    )
