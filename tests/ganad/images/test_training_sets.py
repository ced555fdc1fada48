"""Splits, the choice of normal images, and shards of decoded ones."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ganad.archive.splits import normal_rows, split_digest, subset_of, with_subsets
from ganad.errors import TrainingError
from ganad.images.protocol import Subset
from ganad.images.shards import Shards, digest_of, is_intact, shard_bytes


def test_the_split_has_its_shares_and_depends_on_name_and_seed_alone() -> None:
    parts = [subset_of(f"image-{i}.png", 0) for i in range(10_000)]
    assert parts == [subset_of(f"image-{i}.png", 0) for i in range(10_000)]
    assert parts.count("calibration") == pytest.approx(1500, abs=150)
    assert parts.count("validation") == pytest.approx(500, abs=100)
    assert parts != [subset_of(f"image-{i}.png", 1) for i in range(10_000)]


def test_the_split_s_digest_does_not_depend_on_order() -> None:
    pairs = [("a", "train"), ("b", "calibration")]
    assert split_digest(pairs) == split_digest(pairs[::-1])
    assert split_digest(pairs) != split_digest([("a", "train"), ("b", "train")])


def rows(*given: tuple[str, str | None, bool | None]) -> pa.Table:
    return pa.table(
        {
            "image_id": [str(i) for i in range(len(given))],
            "name": [f"{i}.png" for i in range(len(given))],
            "split": pa.array([split or None for split, _, _ in given], pa.string()),
            "label": pa.array([label for _, label, _ in given], pa.string()),
            "abnormal": pa.array([abnormal for _, _, abnormal in given], pa.bool_()),
        }
    )


def test_only_the_layout_s_train_folder_trains() -> None:
    table = rows(("train", "good", False), ("test", "good", False), ("test", "crack", True))
    assert normal_rows(table, "x")["image_id"].to_pylist() == ["0"]


def test_abnormal_images_are_refused_by_name_or_dropped() -> None:
    table = rows(("", "good", False), ("", "crack", True), ("", "dent", True), ("", None, None))
    with pytest.raises(TrainingError, match=r"^here holds 2 images labelled abnormal \(crack 1, d"):
        normal_rows(table, "here")
    assert normal_rows(table, "here", drop_abnormal=True)["image_id"].to_pylist() == ["0", "3"]
    with pytest.raises(TrainingError, match="no normal images"):
        normal_rows(table.slice(1, 2), "here", drop_abnormal=True)


def test_rows_come_sorted_by_name_whatever_their_order() -> None:
    table = rows(*[("", None, None)] * 20)
    shuffled = table.take(np.random.default_rng(0).permutation(20))
    assert with_subsets(table, 0).equals(with_subsets(shuffled, 0))


def test_shards_read_as_one_array(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (10, 1, 4, 4)).astype(np.uint8)
    places = []
    for number, piece in enumerate(np.split(images, [3, 7])):
        places.append(str(tmp_path / f"{number}.npy"))
        Path(places[-1]).write_bytes(shard_bytes(piece))
    shards = Shards.open(places, tmp_path)
    order = np.array([9, 0, 3, 2, 7, 6, 9])
    assert len(shards) == 10
    np.testing.assert_array_equal(shards.take(order), images[order])
    subset = Subset(shards, np.array([1, 8, 4]))
    assert len(subset) == 3
    np.testing.assert_array_equal(subset.take(np.array([2, 0])), images[[4, 1]])


def test_a_shard_that_changed_anywhere_is_found(tmp_path: Path) -> None:
    images, place = np.arange(40, dtype=np.uint8).reshape(10, 1, 2, 2), tmp_path / "0.npy"
    whole = shard_bytes(images)
    digest = digest_of(whole)
    place.write_bytes(whole)
    assert is_intact(str(place), (10, 1, 2, 2), digest)
    assert not is_intact(str(place), (10, 1, 4, 1), digest)  # as many bytes, of another shape
    assert not is_intact(str(tmp_path / "1.npy"), (10, 1, 2, 2), digest)
    pixel = whole[:-7] + bytes([whole[-7] ^ 1]) + whole[-6:]
    for damaged in (pixel, whole[:-1], whole + b"\0", b"x" + whole[1:], b""):
        place.write_bytes(damaged)
        assert not is_intact(str(place), (10, 1, 2, 2), digest)
