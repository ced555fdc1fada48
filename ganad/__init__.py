"""ganad finds anomalous images. The library: fit a detector, save it, load it, score images, ask
score tables.

    from ganad import fit, load, open_table

Nothing here needs Ray; jobs on a cluster live in the package `pipelines`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ganad.errors import GanadError
    from ganad.evaluation.open_table import open_table
    from ganad.model import Model, load
    from ganad.training.fit import fit

__all__ = ["GanadError", "Model", "__version__", "fit", "load", "open_table"]
__version__ = "0.1.0"

_HOMES = {
    "GanadError": "errors",
    "Model": "model",
    "fit": "training.fit",
    "load": "model",
    "open_table": "evaluation.open_table",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use: `import ganad` alone stays free of torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'ganad' has no attribute {name!r}")
    return getattr(import_module(f"ganad.{_HOMES[name]}"), name)
