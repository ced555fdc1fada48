"""The schema of a manifest's rows: the facts known about an image before it is opened."""

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
a tar shard, or row number in a Parquet file. offset, size: bytes; offset is null for a loose file.
In a Parquet file offset is the row number and size is null. name: path relative to its source,
`shard.tar#member` in a tar, `file.parquet#id` in a Parquet file; it is shown to people and decides
the split, so that neither depends on the location of the archive. label, abnormal: null if unknown.
mask: URI of the ground truth, a file or a folder of files. split: train, test or null, from the
layout. column: the column of bytes in a Parquet file. error: null, or the reason why the image
cannot be read, if the listing knows it; a shard that cannot be listed has one such row."""

_WHOLE = re.compile(r"([+-]?\d+)\.0+")


def image_id(uri: str, member: str | None = None) -> str:
    """16 hex characters that identify the location of an image."""
    text = f"{uri}#{member or ''}"
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()


def loose_row(uri: str, name: str, **facts: Any) -> Row:
    """The row of a file outside shards; facts: further columns."""
    return {
        **dict.fromkeys(SCHEMA.names),
        "image_id": image_id(uri),
        "uri": uri,
        "name": name,
        **facts,
    }


def label_of(value: Any) -> str | None:
    """Normalise a label to the same text whether it comes from a folder name, a CSV or any type of
    Parquet column.

    Surrounding blanks are removed; None, NaN and '' mean no label. 1.0 becomes 1, because tables
    store integer columns with missing values as floats.
    """
    if value is None or value != value:
        return None
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    text = str(value).strip()
    whole = _WHOLE.fullmatch(text)
    return (whole[1] if whole else text) or None
