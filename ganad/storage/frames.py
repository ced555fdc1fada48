"""Arrow tables as data frames, for notebooks that have pandas or polars."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from ganad.errors import ConfigError


def to_pandas(table: pa.Table) -> Any:
    """A pandas DataFrame; maps become dictionaries. Raises ConfigError without pandas."""
    try:
        import pandas  # noqa: F401
    except ImportError:
        raise ConfigError("to_pandas() needs pandas: pip install pandas") from None
    return table.to_pandas(maps_as_pydicts="strict")


def to_polars(table: pa.Table) -> Any:
    """A polars DataFrame; maps become lists of pairs. Raises ConfigError without polars."""
    try:
        import polars
    except ImportError:
        raise ConfigError("to_polars() needs polars: pip install polars") from None
    return polars.from_arrow(table)
