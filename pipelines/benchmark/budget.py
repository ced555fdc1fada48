"""What each detector may spend in a benchmark: a TOML file with a table of config keys for each.

[all]                     # for every detector that has the key
image_size = 32
[egbad]
epochs = 30
[gaussian.backbone]
weights = "{data}/weights/tf_efficientnetv2_b0.pth"   # {data}: the folder of --data
    [skip_ganomaly_bottleneck]
    detector = "skip_ganomaly"    # a variant, under a name of its own
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
from ganad.detectors.settings import lay_over, merge_settings
from ganad.errors import ConfigError
from pipelines.benchmark.data import DataSet

ALL, VARIANT = "all", "detector"


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
        own = files("pipelines.benchmark") / "budgets"
        place = own / f"{name}.toml"
        try:
            text = (
                place.read_text("utf-8") if place.is_file() else Path(name).read_text("utf-8-sig")
            )
            tables = tomllib.loads(text.replace("{data}", str(data)))
        except OSError:
            known = ", ".join(sorted(Path(str(one)).stem for one in own.iterdir()))
            raise ConfigError(f"--budget {name} is no file: give one, or one of {known}") from None
        except ValueError as error:
            raise ConfigError(
                f"--budget {name} is not valid TOML ({error}): fix the file"
            ) from None
        found = Budget(tables, tuple(settings))
        for table in tables:
            if table != ALL:
                find(found.detector(table))
        return found

    def detector(self, name: str) -> str:
        """The detector that a name in the benchmark stands for."""
        return str(self.tables.get(name, {}).get(VARIANT, name))

    def values(self, name: str, seed: int, chosen: DataSet) -> dict[str, Any]:
        """All config keys of a run: of the detector, the data set, the budget and --set."""
        detector = self.detector(name)
        fields = find(detector).Config.model_fields
        values = merge_settings(detector, assignments=chosen.settings, seed=seed)
        shared = {key: v for key, v in self.tables.get(ALL, {}).items() if key in fields}
        lay_over(values, shared)
        own = {key: v for key, v in self.tables.get(name, {}).items() if key != VARIANT}
        lay_over(values, own)
        values = merge_settings(detector, assignments=self.settings, seed=seed, below=values)
        if "classes" in fields and chosen.types:
            values["classes"] = list(chosen.types)
        return values

    def shown(self, name: str) -> str:
        """The budget of a run in a few words."""
        table = {
            key: value
            for key, value in self.tables.get(name, {}).items()
            if not isinstance(value, dict) and key != VARIANT
        }
        words = [f"{key}={json.dumps(value)}" for key, value in table.items()]
        return " ".join([*words, *self.settings])
