"""Registers a score table in an Apache Iceberg catalog without copying its files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ganad.errors import ConfigError, TableError
from ganad.scores.table import SCHEMA, ScoreTable
from ganad.storage import files as storage

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog

NAMESPACE = "ganad"


@dataclass(frozen=True)
class Registered:
    """State of the catalog after registering."""

    name: str
    num_files: int
    num_added: int


def register(table: str, catalog: str, name: str | None = None) -> Registered:
    """Create the Iceberg table, partitioned by model, or bring it up to date.

    catalog: the URI of a REST, Hive or SQL catalog. name: namespace.table in it. If files have been
    merged since the last time, the Iceberg table is recreated, which only rewrites metadata.
    Raises ConfigError if pyiceberg is not installed or the catalog does not answer, and TableError.
    """
    scores = ScoreTable(table)
    old = [file.uri for file in scores.parts.values() if "model" not in _columns(file.uri)]
    if old:
        raise TableError(
            f"{table} was scored by a version of ganad that left the model out of the files "
            f"({old[0]}): run ganad compact {table}, then register"
        )
    identifier = _identifier(scores, name)
    loaded = _load(catalog, scores)
    try:
        loaded.create_namespace_if_not_exists(identifier[0])
        wanted = {_location(file.uri) for file in scores.parts.values()}
        known = _known(loaded, identifier)
        if known - wanted:
            loaded.drop_table(identifier)
            known = set()
        added = sorted(wanted - known)
        iceberg = _open(loaded, identifier)
        if added:
            iceberg.add_files(added)
    except Exception as error:  # each kind of catalog raises its own errors
        line = next((text for text in str(error).splitlines() if text.strip()), "")
        raise ConfigError(
            f"--catalog {catalog} does not take {'.'.join(identifier)} "
            f"({type(error).__name__}: {line[:200]}): check its URI and your rights"
        ) from error
    return Registered(".".join(identifier), len(wanted), len(added))


def _identifier(scores: ScoreTable, name: str | None) -> tuple[str, str]:
    if name is None:
        folder = scores.uri.rstrip("/").rpartition("/")[2]
        return NAMESPACE, re.sub(r"\W+", "_", folder).strip("_").lower() or "scores"
    namespace, dot, table = name.rpartition(".")
    if not dot or not namespace or not table:
        raise ConfigError(f"--name {name}: give NAMESPACE.TABLE, such as night.scores")
    return namespace, table


def _load(uri: str, scores: ScoreTable) -> Catalog:
    try:
        from pyiceberg.catalog import load_catalog
    except ImportError:
        raise ConfigError("ganad register needs pyiceberg: pip install 'ganad[iceberg]'") from None
    try:
        warehouse = _location(storage.join(scores.uri, "_iceberg"))
        return load_catalog("ganad", uri=uri, warehouse=warehouse)
    except Exception as error:
        line = next((text for text in str(error).splitlines() if text.strip()), "")
        raise ConfigError(
            f"--catalog {uri} cannot be opened ({line[:200]}): check the URI"
        ) from None


def _known(catalog: Catalog, identifier: tuple[str, str]) -> set[str]:
    if not catalog.table_exists(identifier):
        return set()
    paths: Any = catalog.load_table(identifier).inspect.files()["file_path"]
    return set(paths.to_pylist())


def _open(catalog: Catalog, identifier: tuple[str, str]) -> Any:
    if catalog.table_exists(identifier):
        return catalog.load_table(identifier)
    table = catalog.create_table(identifier, SCHEMA)
    with table.update_spec() as spec:
        spec.add_identity("model")
    return table


def _location(uri: str) -> str:
    return uri if storage.is_remote(uri) else f"file://{uri}"


def _columns(uri: str) -> list[str]:
    import pyarrow.parquet as pq

    with storage.open_input(uri) as file:
        return list(pq.read_schema(file).names)
