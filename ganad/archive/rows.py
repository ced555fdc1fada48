"""A row of a manifest: what is known of one image before it is opened."""

from __future__ import annotations

import hashlib
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
    ]
)
"""image_id: see image_id(). uri: absolute path or s3://bucket/key of the file. member: inside a
tar shard, or number of the row of a Parquet file. offset, size: bytes; offset null for a loose
file, and the row in a Parquet file, where size is null. name: path relative to its source,
`shard.tar#member` in a tar, `file.parquet#id`: what people see and what splits are made by, so that
neither depends on where the archive lies. label, abnormal: null where not known. mask: where the
ground truth lies. split: train, test or null, as the layout says. column: of a Parquet file, with
the bytes."""


def image_id(uri: str, member: str | None = None) -> str:
    """16 hex characters that stand for the place of an image."""
    return hashlib.blake2b(f"{uri}#{member or ''}".encode(), digest_size=8).hexdigest()
