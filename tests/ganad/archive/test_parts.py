"""Parts of a manifest: their writer counts what is in them."""

import hashlib
from pathlib import Path

import pytest

from ganad.archive.parts import PartWriter, batches_of
from ganad.archive.rows import loose_row

LABELS = [None, "good", "it's", 'a "b"', "back\\slash", "ünï", "two\nlines\n", "\u200b", "a b-1.0_"]


@pytest.mark.parametrize("labels", [["good", None], [None], LABELS])
def test_the_writer_counts_and_digests_rows_as_python_shows_them(
    labels: list[str | None], tmp_path: Path
) -> None:
    rows = [
        loose_row(
            f"/photos/{number}.png",
            f"{number}.png",
            size=None if number % 5 == 0 else number,
            label=labels[number % len(labels)],
            abnormal=(None, True, False)[number % 3],
            split=(None, "train")[number % 2],
            error=None if number else "empty file",
        )
        for number in range(100)
    ]
    writer = PartWriter(str(tmp_path), "")
    writer.write(batches_of(rows))
    keys = ("image_id", "size", "label", "abnormal", "split")
    lines = "".join(f"{tuple(row[key] for key in keys)!r}\n" for row in rows)
    assert writer.digest.hexdigest() == hashlib.blake2b(lines.encode(), digest_size=8).hexdigest()
    assert (writer.num_normal, writer.num_abnormal, writer.num_errors) == (33, 33, 1)
    named = [row["label"] for row in rows if row["label"] is not None]
    assert writer.labels == {label: named.count(label) for label in set(named)}
