import re

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from ganad.archive.manifest import write_manifest
from ganad.errors import ArchiveError, ModelError, NoMapsError
from ganad.evaluation.evaluate import evaluate
from ganad.evaluation.metrics import PixelMetrics
from ganad.evaluation.pixels import at_image_size, read_mask
from ganad.evaluation.thresholds import Prices
from ganad.scores.table import ScoreTable
from tests.ganad.scores.make_table import (
    MODEL,
    OTHER,
    make_rows,
    rows_of,
    small_table,
    write_table,
)


def test_all_images_first_then_each_label_against_all_normals(tmp_path):
    table = ScoreTable(small_table(tmp_path))
    result = evaluate(table)
    assert [group.label for group in result.groups] == [None, "hole", "scratch"]
    rows = [row for row in make_rows() if row["score"] is not None]
    for group in result.groups:
        chosen = [row for row in rows if not row["abnormal"] or group.label in (None, row["label"])]
        truth = np.array([row["abnormal"] for row in chosen])
        assert (group.ranking.num, group.ranking.num_abnormal) == (len(chosen), truth.sum())
        expected = roc_auc_score(truth, [row["score"] for row in chosen])
        assert group.ranking.auroc == pytest.approx(expected)
        flags = np.array([row["p_value"] < 0.05 for row in chosen])
        assert group.flagged.recall == pytest.approx(flags[truth].mean())
        assert group.flagged.false_positive_rate == pytest.approx(flags[~truth].mean())


def test_every_model_is_measured(tmp_path):
    rows = {MODEL: make_rows(), OTHER: make_rows(seed=1)}
    result = evaluate(ScoreTable(write_table(str(tmp_path / "t"), rows)))
    assert [group.model for group in result.groups] == [OTHER] * 3 + [MODEL] * 3
    assert result.groups[0].ranking.auroc > result.groups[3].ranking.auroc  # the best comes first


def test_models_are_compared_on_the_same_images_in_plain_words(tmp_path):
    noise = np.random.default_rng(0).normal(size=300)
    good = make_rows(num=300, num_failed=0)
    chance = [row | {"score": float(x)} for row, x in zip(good, noise, strict=True)]
    twin = [row | {"score": row["score"] + 0.01} for row in good[5:]]
    rows = {"a-chance": chance, "b-twin": twin, "c-good": good}
    result = evaluate(ScoreTable(write_table(str(tmp_path / "t"), rows)))
    assert [one.model for one in result.standings][-1] == "a-chance"
    best, twin, worst = result.standings
    assert best.behind is None
    assert worst.behind.is_clear
    whole = [group.ranking.auroc for group in result.groups if group.label is None]
    assert worst.behind.value == pytest.approx(whole[0] - whole[-1], abs=0.01)  # five images fewer
    text = " ".join(result.findings)
    assert re.search(r"a-chance is no better than chance: its AUROC is 0\.\d+ \(", text)
    assert f"{twin.model} and {best.model} do not differ significantly on these images" in text
    assert "c-good is no better" not in text


def test_a_model_that_only_sees_brightness_is_told_so(image_folder, tmp_path):
    folder = str(tmp_path / "t")
    manifest = write_manifest([str(image_folder / "test")], f"{folder}/_manifest")
    place = {"uri": manifest.uri, "digest": manifest.digest, "images": manifest.num_images}
    rows = rows_of(manifest)
    for row in rows:
        row["score"] = -float(np.asarray(Image.open(row["uri"]).convert("L")).mean())
    perfect = [row | {"score": float(row["abnormal"])} for row in rows]
    write_table(folder, {"dark-1": rows, "perfect-1": perfect}, manifest=place)
    result = evaluate(ScoreTable(folder))
    text = " ".join(result.findings)
    assert "dark-1 is no better than the brightness of the images: the trivial detector 'dark'" in (
        text
    )
    assert result.standings[-1].over_trivial.value == pytest.approx(0)
    assert "not compared" not in " ".join(result.notes)
    unasked = evaluate(ScoreTable(folder), brightness=False)
    assert "brightness" not in " ".join([*unasked.findings, *unasked.notes])


def test_images_that_are_gone_have_no_brightness(tmp_path):
    result = evaluate(ScoreTable(small_table(tmp_path)), brightness=True)
    assert "brightness of the images, which are gone" in " ".join(result.notes)
    assert result.standings[0].over_trivial is None


def test_prices_choose_a_threshold(tmp_path):
    result = evaluate(ScoreTable(small_table(tmp_path)), prices=Prices(1, 20))
    found = result.cheapest[MODEL]
    assert found.cost <= min(found.flag_nothing, found.flag_everything)


def test_one_abnormal_label_is_not_repeated(tmp_path):
    rows = [row | {"label": "dent" if row["abnormal"] else "good"} for row in make_rows()]
    result = evaluate(ScoreTable(write_table(str(tmp_path / "t"), {MODEL: rows})))
    assert [group.label for group in result.groups] == [None]


def test_normal_images_alone_give_a_false_positive_rate_and_a_reason(tmp_path):
    rows = [row for row in make_rows() if not row["abnormal"]]
    (group,) = evaluate(ScoreTable(write_table(str(tmp_path / "t"), {MODEL: rows}))).groups
    assert group.ranking.auroc is None
    assert group.ranking.reason == "no abnormal images, so nothing to compare"
    assert group.flagged.false_positive_rate is not None
    assert group.flagged.recall is None


def test_no_calibration_no_flags(tmp_path):
    rows = [row | {"p_value": None} for row in make_rows()]
    result = evaluate(ScoreTable(write_table(str(tmp_path / "t"), {MODEL: rows})))
    assert result.groups[0].flagged is None
    assert f"{MODEL} was not calibrated, so its scores have no p-values" in result.notes


@pytest.fixture
def table(image_folder, tmp_path):
    folder = str(tmp_path / "t")
    manifest = write_manifest([str(image_folder)], f"{folder}/_manifest")
    place = {"uri": manifest.uri, "digest": manifest.digest, "images": manifest.num_images}
    write_table(folder, {MODEL: rows_of(manifest)}, manifest=place)
    return ScoreTable(folder)


def dark(table, model):
    """The maps of a detector that finds dark pixels unusual."""

    def map_images(rows):
        return [255 - np.asarray(Image.open(row["uri"]).convert("L"), np.float32) for row in rows]

    return map_images


def test_pixels_are_compared_with_masks(table, image_folder):
    result = evaluate(table, pixels=True, provider=dark)
    found = result.pixels[MODEL]
    metrics = PixelMetrics()
    for path in sorted((image_folder / "test").rglob("*.png")):
        mask = None
        if path.parent.name == "crack":
            name = f"{path.stem}_mask.png"
            mask = np.asarray(Image.open(image_folder / "ground_truth" / "crack" / name)) > 0
        metrics.add(255 - np.asarray(Image.open(path).convert("L"), np.float32), mask)
    assert found == metrics.result()
    assert found.num_images == 16
    assert found.auroc > 0.9
    assert found.aupro > 0.5


def test_images_that_cannot_be_compared_are_counted(table, image_folder, tmp_path):
    rows = table.query("SELECT * EXCLUDE model FROM scores").to_pylist()
    cracks = [row for row in rows if row["abnormal"]]
    cracks[0]["mask"] = None
    cracks[1]["mask"] = str(tmp_path / "gone.png")
    cracks[2]["mask"] = str(tmp_path / "empty.png")  # four of the magnetic tiles have such a mask
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(tmp_path / "empty.png")
    place = {"uri": table.manifest_uri}
    folder = write_table(str(tmp_path / "u"), {MODEL: rows}, manifest=place)

    def one_without(table, model):
        def map_images(rows):
            return [None if row["name"].endswith("good/000.png") else np.eye(32) for row in rows]

        return map_images

    result = evaluate(ScoreTable(folder), pixels=True, provider=one_without)
    notes = " ".join(result.notes)
    assert "not in the pixel metrics: 3 images of defects without a readable mask" in notes
    assert "not in the pixel metrics: 1 image that can no longer be fetched" in notes
    assert result.pixels[MODEL].num_images == 12


def test_a_mask_of_another_size_or_orientation_is_refused_by_name(table, tmp_path):
    """It was stretched over the image."""
    rows = table.query("SELECT * EXCLUDE model FROM scores").to_pylist()
    tall, small, *_ = [row for row in rows if row["abnormal"]]
    tall["mask"], tall["width"], tall["height"] = str(tmp_path / "wide.png"), 16, 32
    small["mask"] = str(tmp_path / "small.png")
    Image.fromarray(np.ones((16, 32), np.uint8)).save(tmp_path / "wide.png")
    Image.fromarray(np.ones((16, 16), np.uint8)).save(tmp_path / "small.png")
    folder = write_table(str(tmp_path / "u"), {MODEL: rows}, manifest={"uri": table.manifest_uri})
    result = evaluate(ScoreTable(folder), pixels=True, provider=dark)
    (note,) = [note for note in result.notes if "another size" in note]
    assert "2 images whose mask has another size or orientation, the first" in note
    assert "wide.png with 32 x 16 pixels for an image of 16 x 32" in note or (
        "small.png with 16 x 16 pixels for an image of 32 x 32" in note
    )
    assert result.pixels[MODEL].num_images == 14


def test_a_folder_of_masks_is_their_union(tmp_path):
    """As in MVTec LOCO, one file for each defect of an image."""
    for name, row in (("000.png", 1), ("001.png", 4)):
        values = np.zeros((6, 8), np.uint8)
        values[row] = 200
        Image.fromarray(values).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not a mask")
    assert read_mask(str(tmp_path)).any(axis=1).tolist() == [False, True, False, False, True, False]
    Image.fromarray(np.zeros((8, 6), np.uint8)).save(tmp_path / "002.png")
    with pytest.raises(ArchiveError, match="its 3 masks differ in size"):
        read_mask(str(tmp_path))


def test_no_masks_at_all_give_a_reason(table, tmp_path):
    rows = [
        row | {"mask": None}
        for row in table.query("SELECT * EXCLUDE model FROM scores").to_pylist()
    ]
    place = {"uri": table.manifest_uri}
    folder = write_table(str(tmp_path / "u"), {MODEL: rows}, manifest=place)
    result = evaluate(ScoreTable(folder), pixels=True, provider=dark)
    assert result.pixels[MODEL].reason == "no abnormal image has a mask"


def test_a_model_without_maps_is_known_before_any_image_is_fetched(table, monkeypatch):
    def without(table, model):
        raise NoMapsError(f"{model} makes no heat maps")

    monkeypatch.setattr("ganad.evaluation.labelled.Labelled.rows", None)
    result = evaluate(table, pixels=True, brightness=False, provider=without)
    assert result.pixels[MODEL].reason == f"{MODEL} makes no heat maps"


def test_pixels_need_the_model(table):
    with pytest.raises(ModelError, match="does not exist"):
        evaluate(table, pixels=True)


@pytest.mark.parametrize("brightest", [1, 255])
def test_masks_of_any_brightness_are_read(tmp_path, brightest):
    values = np.zeros((6, 8), np.uint8)
    values[2:4, 1:5] = brightest
    Image.fromarray(values).save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask(str(tmp_path / "mask.png")), values > 0)
    Image.fromarray(np.zeros((6, 8), np.uint8)).save(tmp_path / "mask.png")
    assert not read_mask(str(tmp_path / "mask.png")).any()
    (tmp_path / "mask.png").write_bytes(b"nothing")
    with pytest.raises(ArchiveError, match="is not a mask"):
        read_mask(str(tmp_path / "mask.png"))


def test_maps_are_compared_at_the_size_of_the_image():
    one, mask = at_image_size(np.eye(8), None, {"width": 20, "height": 10})
    assert one.shape == (10, 20)
    assert mask is None
    mask = np.zeros((30, 40), bool)
    one, same = at_image_size(np.eye(8), mask, {"width": 400, "height": 300})
    assert one.shape == same.shape == (30, 40)


def test_a_small_defect_does_not_vanish_where_a_mask_shrinks():
    mask = np.zeros((3000, 4000), bool)
    mask[1501, 2001] = True
    one, small = at_image_size(np.ones((16, 16)), mask, {"width": 4000, "height": 3000})
    assert one.shape == small.shape == (768, 1024)
    assert 1 <= small.sum() <= 4


def test_real_defects_of_magnetic_tiles(shared_data, tmp_path):
    """Real masks and image sizes; darkness alone finds a part of the blowholes."""
    folder = str(tmp_path / "t")
    source = str(shared_data / "magnetic_tile" / "test" / "blowhole")
    manifest = write_manifest([source], f"{folder}/_manifest")
    rows = rows_of(manifest)[:20]
    place = {"uri": manifest.uri, "digest": manifest.digest, "images": manifest.num_images}
    write_table(folder, {MODEL: rows}, manifest=place)
    found = evaluate(ScoreTable(folder), pixels=True, provider=dark).pixels[MODEL]
    assert found.num_images == 20
    assert found.num_regions >= 20
    assert found.auroc > 0.5
