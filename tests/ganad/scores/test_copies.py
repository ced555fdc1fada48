"""Images of an answer brought together: loose files, members of tars, rows of Parquet files, S3."""

import csv
import os
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ganad.archive.manifest import write_manifest
from ganad.errors import ConfigError
from ganad.scores.copies import copy_images
from ganad.scores.table import ScoreTable
from tests.ganad.scores.make_table import MODEL, make_rows, rows_of, write_table


@pytest.fixture(scope="module")
def archive(image_folder, tmp_path_factory):
    """The same 16 test images as loose files, in a tar, and in a Parquet file."""
    folder = tmp_path_factory.mktemp("archive")
    paths = sorted((image_folder / "test").rglob("*.png"))
    with tarfile.open(folder / "shard.tar", "w") as tar:
        for path in paths:
            tar.add(path, str(path.relative_to(image_folder)))
    images = [path.read_bytes() for path in paths]
    pq.write_table(pa.table({"image": images}), folder / "rows.parquet", row_group_size=4)
    return image_folder / "test", folder, images


def table_of(source, folder):
    manifest = write_manifest([str(source)], f"{folder}/_manifest")
    place = {"uri": manifest.uri, "digest": manifest.digest, "images": manifest.num_images}
    rows = [row | {"width": 32, "height": 32} for row in rows_of(manifest)]
    return ScoreTable(write_table(folder, {MODEL: rows}, manifest=place))


def worst(table, num=5):
    return table.query(f"SELECT * FROM scores ORDER BY score DESC LIMIT {num}").to_pylist()


@pytest.mark.parametrize("kind", ["loose", "shard.tar", "rows.parquet"])
def test_images_are_copied_byte_by_byte_in_the_order_of_the_rows(archive, kind, tmp_path):
    loose, shards, images = archive
    table = table_of(loose if kind == "loose" else shards / kind, str(tmp_path / "t"))
    rows = worst(table)
    out = tmp_path / "out"
    result = copy_images(table, [*rows, rows[0]], str(out))
    assert (result.num_copied, result.num_linked, result.failed) == (5, 0, [])
    names = sorted(path.name for path in out.iterdir() if path.name != "rows.csv")
    assert [name[:5] for name in names] == ["0001-", "0002-", "0003-", "0004-", "0005-"]
    copied = [(out / name).read_bytes() for name in names]
    assert all(data in images for data in copied)
    assert len(set(copied)) == 5
    with open(out / "rows.csv", newline="") as file:
        written = list(csv.DictReader(file))
    assert [row["file"] for row in written] == names
    assert [row["uri"] for row in written] == [row["uri"] for row in rows]


def test_links_are_made_where_images_are_files(archive, tmp_path):
    loose, shards, _ = archive
    table = table_of(loose, str(tmp_path / "t"))
    result = copy_images(table, worst(table), str(tmp_path / "links"), link=True)
    assert (result.num_copied, result.num_linked) == (0, 5)
    targets = {os.readlink(path) for path in (tmp_path / "links").glob("*.png")}
    assert targets == {row["uri"] for row in worst(table)}
    table = table_of(shards / "shard.tar", str(tmp_path / "u"))
    result = copy_images(table, worst(table), str(tmp_path / "copies"), link=True)
    assert (result.num_copied, result.num_linked) == (5, 0)


def test_objects_are_copied_from_and_to_s3(archive, s3, tmp_path):
    loose, _, images = archive
    for path in sorted(loose.rglob("*.png")):
        s3.put(f"copies/images/{path.relative_to(loose)}", path.read_bytes())
    manifest = write_manifest([s3.url("copies/images")], str(tmp_path / "t" / "_manifest"))
    rows = [
        {"image_id": r["image_id"], "uri": r["uri"], "member": None, "name": r["name"]}
        | {"score": float(n)}
        for n, r in enumerate(manifest.table().to_pylist())
    ]
    table = ScoreTable(write_table(str(tmp_path / "t"), {MODEL: rows}))
    result = copy_images(table, worst(table, 16), s3.url("copies/out"))
    assert result.num_copied == 16
    copied = [path.read_bytes() for path in (s3.root / "copies" / "out").glob("*.png")]
    assert sorted(copied) == sorted(images)
    with pytest.raises(ConfigError, match="where there are no links: use --copy-to"):
        copy_images(table, worst(table), s3.url("copies/links"), link=True)


def test_names_from_strangers_stay_in_the_folder(image_folder, tmp_path):
    uri = str(next((image_folder / "test" / "good").iterdir()))
    names = ["../../evil.png", "a/..", "x\x1b[2J\n.p n/g", "ü" * 300 + ".png", ".hidden", "-rf.png"]
    rows = [row | {"uri": uri, "name": n} for row, n in zip(make_rows()[5:], names, strict=False)]
    table = ScoreTable(write_table(str(tmp_path / "t"), {MODEL: rows}))
    out = tmp_path / "deep" / "out"
    assert copy_images(table, worst(table, 6), str(out)).num_copied == 6
    assert len(list(out.iterdir())) == 7
    assert [path.name for path in tmp_path.iterdir()] == ["deep", "t"] or len(
        list(tmp_path.iterdir())
    ) == 2
    assert all(path.name.isprintable() and path.name[0] in "0r" for path in out.iterdir())


def test_what_is_gone_is_named_and_the_rest_is_copied(archive, tmp_path):
    table = table_of(archive[0], str(tmp_path / "t"))
    rows = worst(table)
    rows[1]["uri"] += ".gone"
    rows[2]["uri"] = "/dev/zero"
    result = copy_images(table, rows, str(tmp_path / "out"))
    assert result.num_copied == 3
    assert [text.split(":")[0] for text in result.failed] == [rows[1]["name"], rows[2]["name"]]


def test_a_folder_with_files_is_left_alone(archive, tmp_path):
    table = table_of(archive[0], str(tmp_path / "t"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    with pytest.raises(ConfigError, match=r"^--copy-to .*full holds files: name a new folder"):
        copy_images(table, worst(table), str(tmp_path / "full"))
