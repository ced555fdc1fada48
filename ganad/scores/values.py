"""Converts DuckDB results so that no value is lost in Python or Arrow.

Python cannot hold every DuckDB value (years beyond 9999, infinite dates, 24:00:00), nor can Arrow
in a Parquet file (128-bit integers, intervals, unions). Columns of such types become DuckDB's text.
"""

from __future__ import annotations

from typing import Any

from ganad.storage.database import identifier

_EXACT = {
    *("boolean", "varchar", "blob", "enum", "float", "double", "decimal"),
    *("tinyint", "smallint", "integer", "bigint", "hugeint"),
    *("utinyint", "usmallint", "uinteger", "ubigint"),
}
_FOR_ARROW = _EXACT | {
    *("date", "time", "uuid", "timestamp", "timestamp with time zone"),
    *("timestamp_s", "timestamp_ms", "timestamp_ns"),
}
_MOMENTS = {"timestamp", "timestamp with time zone"}
_ISO = r"'^(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d(?:\.\d+)?)(\+00)?$'"


def exact(relation: Any, for_arrow: bool = False) -> Any:
    """Replace the columns of a DuckDB relation that Python (or Arrow) cannot hold by text.
    Timestamps become ISO 8601."""
    kept = _FOR_ARROW if for_arrow else _EXACT
    if all(_type(kind, kept) == str(kind) for kind in relation.types):
        return relation
    return relation.project(
        ", ".join(
            f"{_expression(number, kind, kept)} AS {identifier(name)}"
            for number, (name, kind) in enumerate(
                zip(relation.columns, relation.types, strict=True), start=1
            )
        )
    )


def _expression(number: int, kind: Any, kept: set[str]) -> str:
    """SQL for the column with this number, starting at 1."""
    wanted = _type(kind, kept)
    if wanted == str(kind):
        return f"#{number}"
    text = f"CAST(#{number} AS {wanted})"
    if kind.id in _MOMENTS:
        zone = "+00:00" if kind.id != "timestamp" else ""
        return rf"regexp_replace({text}, {_ISO}, '\1T\2{zone}')"
    return text


def _type(kind: Any, kept: set[str]) -> str:
    """The SQL type that holds a type's values without loss: the type itself, or text."""
    if kind.id in kept:
        return str(kind)
    if kind.id in ("list", "array", "struct", "map") and kind.children:
        children = dict(kind.children)
        size = children.pop("size", None)
        inner = {name: _type(child, kept) for name, child in children.items()}
        if inner == {name: str(child) for name, child in children.items()} and (
            kind.id != "map" or children["key"].id in kept
        ):
            return str(kind)
        if kind.id in ("list", "array"):
            return f"{inner['child']}[{'' if size is None else size}]"
        if kind.id == "struct":
            fields = ", ".join(f"{identifier(name)} {type}" for name, type in inner.items())
            return f"STRUCT({fields})"
        if children["key"].id in kept or inner["key"] == "VARCHAR":
            return f"MAP({inner['key']}, {inner['value']})"
    return "VARCHAR"
