"""The engines by name, and which of them this machine has."""

from __future__ import annotations

from types import ModuleType

from ganad.engines import inductor, openvino
from ganad.errors import ConfigError

NAMES = ("eager", "openvino", "inductor")
_MODULES: dict[str, ModuleType] = {"inductor": inductor, "openvino": openvino}


def check(name: str) -> None:
    """Raises ConfigError unless this machine has the engine of that name."""
    if name not in NAMES:
        raise ConfigError(f"--engine {name}: use one of auto, {', '.join(NAMES)}")
    if name != "eager" and (remedy := module(name).available()) is not None:
        raise ConfigError(
            f"--engine {name} is not on this machine: {remedy}, or use --engine eager into a "
            f"fresh --out"
        )


def available() -> list[str]:
    """The engines of this machine, eager first."""
    return [name for name in NAMES if name == "eager" or module(name).available() is None]


def candidates(typed: str) -> list[str]:
    """Those to try beside eager for what was typed: for auto the first that is there, because
    TorchInductor takes minutes to compile what OpenVINO takes seconds for, and is as quick."""
    return available()[1:2] if typed == "auto" else [typed]


def module(name: str) -> ModuleType:
    """What implements an engine other than eager: available, version, build and load."""
    return _MODULES[name]
