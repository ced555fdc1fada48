"""A row of a manifest: what is known of one image before it is opened."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import pyarrow as pa

Row = dict[str, Any]
"""The columns of SCHEMA by name."""

SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("uri", pa.string()),
        ("member", pa.string()),
        ("offset", pa.int64()),
        ("size", pa.int64()),
        ("name", pa.string()),
        ("label", pa.string()),
        ("abnormal", pa.bool_()),
        ("mask", pa.string()),
        ("split", pa.string()),
        ("column", pa.string()),
        ("error", pa.string()),
    ]
)
"""image_id: see image_id(). uri: absolute path or s3://bucket/key of the file. member: name inside
a tar shard, or number of the row of a Parquet file. offset, size: bytes; offset is null for a loose
file, and is the row in a Parquet file, where size is null. name: path relative to its source,
`shard.tar#member` in a tar, `file.parquet#id` in a Parquet file; people see it and splits are made
by it, so that neither depends on where the archive lies. label, abnormal: null if not known. mask:
where the ground truth lies, a file or a folder of files. split: train, test or null, as the layout
says. column: of a Parquet file, the one with the bytes. error: null, or why the image cannot be
read, if the listing knows that already; a shard that cannot be listed has one such row."""

_WHOLE = re.compile(r"([+-]?\d+)\.0+")


def image_id(uri: str, member: str | None = None) -> str:
    """16 hex characters that stand for the place of an image."""
    text = f"{uri}#{member or ''}"
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()


def loose_row(uri: str, name: str, **facts: Any) -> Row:
    """The row of a file that is not in a shard; facts are further columns."""
    return {
        **dict.fromkeys(SCHEMA.names),
        "image_id": image_id(uri),
        "uri": uri,
        "name": name,
        **facts,
    }


def label_of(value: Any) -> str | None:
    """A label as text: the same from a folder's name, a CSV and every type of Parquet column.

    Blanks around it are removed; nothing, NaN and '' mean no label; 1.0 is 1, because tables write
    whole numbers with missing ones among them so.
    """
    if value is None or value != value:
        return None
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    text = str(value).strip()
    whole = _WHOLE.fullmatch(text)
    return (whole[1] if whole else text) or None
