"""What each detector may spend in a benchmark: a TOML file with a table of config keys for each.

[all]                     # for every detector that has the key
image_size = 32
[egbad]
epochs = 30
[gaussian.backbone]
weights = "{data}/weights/tf_efficientnetv2_b0.pth"   # {data}: the folder of --data
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from ganad.detectors import find
from ganad.errors import ConfigError
from pipelines.benchmark_data import DataSet
from pipelines.settings import lay_over, merge_settings

ALL = "all"


@dataclass(frozen=True)
class Budget:
    """Settings by detector, laid over each one's own configuration."""

    tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    settings: tuple[str, ...] = ()

    @staticmethod
    def read(name: str | None, settings: Sequence[str], data: Path) -> Budget:
        """name: of a budget that comes with ganad, or a path; raises ConfigError if it is none."""
        if name is None:
            return Budget({}, tuple(settings))
        own = files("pipelines") / "budgets"
        place = own / f"{name}.toml"
        try:
            text = place.read_text() if place.is_file() else Path(name).read_text()
            tables = tomllib.loads(text.replace("{data}", str(data)))
        except OSError:
            known = ", ".join(sorted(Path(str(one)).stem for one in own.iterdir()))
            raise ConfigError(f"--budget {name} is no file: give one, or one of {known}") from None
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"--budget {name} is no TOML ({error}): mend it") from None
        for table in tables:
            if table != ALL:
                find(table)
        return Budget(tables, tuple(settings))

    def values(self, detector: str, seed: int, chosen: DataSet) -> dict[str, Any]:
        """All config keys of a run: of the detector, the data set, the budget and --set."""
        fields = find(detector).Config.model_fields
        values = merge_settings(detector, None, chosen.settings, seed)
        shared = {key: v for key, v in self.tables.get(ALL, {}).items() if key in fields}
        lay_over(values, shared)
        lay_over(values, self.tables.get(detector, {}))
        values = merge_settings(detector, None, self.settings, seed, values)
        if "classes" in fields and chosen.types:
            values["classes"] = list(chosen.types)
        return values

    def shown(self, detector: str) -> str:
        """The budget of a detector in a few words."""
        table = {
            key: value
            for key, value in self.tables.get(detector, {}).items()
            if not isinstance(value, dict)
        }
        words = [f"{key}={json.dumps(value)}" for key, value in table.items()]
        return " ".join([*words, *self.settings])
