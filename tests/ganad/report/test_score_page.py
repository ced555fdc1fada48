import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ganad.archive.manifest import write_manifest
from ganad.calibration import Calibration
from ganad.errors import ConfigError
from ganad.heat import Heat
from ganad.images import load
from ganad.report import write_report
from ganad.scores.table import ScoreTable
from ganad.storage import files as storage
from tests.ganad.scores.make_table import MODEL, OTHER, make_rows, rows_of, write_table


class Reader(HTMLParser):
    """Elements with their attributes, the visible text, and whether every tag is closed."""

    EMPTY = frozenset({"meta", "img", "input", "br", "line", "path"})

    def __init__(self, html):
        super().__init__()
        self.elements, self.text, self.open = [], [], []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text.append(data)

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())

    def find(self, tag, style=None):
        return [
            attributes
            for name, attributes in self.elements
            if name == tag and (style is None or style in (attributes.get("class") or "").split())
        ]


def written(table, tmp_path, **options):
    out = tmp_path / "page.html"
    assert write_report(ScoreTable(table), str(out), **options) == str(out)
    return out.read_text()


def dark(table, model):
    def map_images(rows):
        return [
            255 - np.asarray(Image.open(row["uri"]).convert("L"), float)
            if Path(row["uri"]).exists()
            else None
            for row in rows
        ]

    return map_images


@pytest.fixture
def table(image_folder, tmp_path):
    """40 train and 16 test images of metal; every second crack has a high score."""
    folder = str(tmp_path / "line 3")
    manifest = write_manifest([str(image_folder)], f"{folder}/_manifest")
    place = {"uri": manifest.uri, "digest": manifest.digest, "images": manifest.num_images}
    rows = rows_of(manifest)
    for row in rows[::2]:
        row["score"] += 1000 * row["abnormal"]
    return write_table(folder, {MODEL: rows}, manifest=place)


def test_the_worst_images_come_first_with_their_maps_and_masks(table, tmp_path):
    reader = Reader(written(table, tmp_path, num_worst=5, provider=dark))
    worst = ScoreTable(table).query("SELECT name FROM scores ORDER BY score DESC LIMIT 5")
    photos = reader.find("img", "photo")
    assert [photo["alt"] for photo in photos[:5]] == worst["name"].to_pylist()
    assert len(photos) == 5 + 6  # and six of median score
    assert len(reader.find("img", "heat")) == 11
    num_cracks = sum("crack" in photo["alt"] for photo in photos)
    assert len(reader.find("img", "outline")) == num_cracks > 0
    assert len(reader.find("span", "rank")) == 5
    assert "The 5 most anomalous images" in reader.words


def test_nothing_is_requested_from_elsewhere(table, tmp_path):
    html = written(table, tmp_path, provider=dark)
    reader = Reader(html)
    for tag, attributes in reader.elements:
        assert tag not in {"script", "link", "iframe", "object", "embed", "base", "form"}
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in {"src", "href", "srcset", "action", "poster", "data"}:
                assert value.startswith(("data:image/", "#"))
    assert not re.search(r"@import|url\(", html)
    policies = [meta["content"] for meta in reader.find("meta") if "http-equiv" in meta]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;"


def test_text_from_outside_is_escaped(tmp_path):
    rows = make_rows(num=12)
    for row in rows:
        row["name"] = f"{HOSTILE}/{HOSTILE.replace('/', '')}.png"
        row["uri"] = f"/images/{HOSTILE}.png"
        row["label"] = HOSTILE
        row["terms"] = row["terms"] and [(HOSTILE, 1.0), ("b", 2.0)]
    rows[0]["error"] = HOSTILE
    models = [{"model": MODEL, "path": HOSTILE, "detector": "x", "config": {HOSTILE: HOSTILE}}]
    folder = write_table(str(tmp_path / f"t {HOSTILE}"), {MODEL: rows}, models=models)
    html = written(folder, tmp_path, provider=None)
    reader = Reader(html)
    assert "<script" not in html
    assert not [attributes for _, attributes in reader.elements if "onerror" in attributes]
    assert not [image for image in reader.find("img") if image["src"] == "x"]
    assert HOSTILE in reader.words  # and yet it is to be read


def test_images_that_are_not_shown_are_not_fetched(table, tmp_path, monkeypatch):
    fetched = []
    read = storage.read
    monkeypatch.setattr(
        load.storage,
        "read",
        lambda uri, *span, **bounds: fetched.append(uri) or read(uri, *span, **bounds),
    )
    written(table, tmp_path, num_worst=4, provider=None)
    images = [uri for uri in fetched if uri.endswith(".png") and "ground_truth" not in uri]
    assert len(images) == len(set(images)) == 4 + 6


def test_images_that_have_vanished_show_why(image_folder, tmp_path):
    folder = str(tmp_path / "t")
    manifest = write_manifest([str(image_folder / "test")], f"{folder}/_manifest")
    rows = rows_of(manifest)
    rows[-1]["uri"] = str(tmp_path / "gone.png")
    write_table(folder, {MODEL: rows})
    reader = Reader(written(folder, tmp_path, num_worst=3, provider=dark))
    assert len(reader.find("div", "missing")) == 1
    assert "image unavailable cannot be fetched: there is no such file" in reader.words
    assert len(reader.find("img", "photo")) == 2 + 6


def test_a_page_without_labels_makes_sense(tmp_path):
    folder = write_table(str(tmp_path / "t"), {MODEL: make_rows(labelled=False)})
    reader = Reader(written(folder, tmp_path, provider=None))
    assert "all images" in reader.words
    assert "Detection" not in reader.words
    assert "curve of abnormal images" not in reader.words
    assert "more anomalous images than chance explains" in reader.words
    assert len(reader.find("svg")) == 2
    assert "None" not in reader.words


def test_figures_stand_beside_their_baselines(tmp_path):
    folder = write_table(str(tmp_path / "t"), {MODEL: make_rows(), OTHER: make_rows(seed=1)})
    reader = Reader(written(folder, tmp_path, provider=None))
    assert "0.870 (0.50)" in reader.words  # AUROC and chance
    assert "0.813 (0.49)" in reader.words  # best F1, and that of flagging everything
    assert [section.get("id") for section in reader.find("section")][:2] == ["model-1", "model-2"]
    assert f"{OTHER}, left out: 2 images without a score, 1 of them abnormal" in reader.words


def test_one_model_alone_can_be_chosen(tmp_path):
    folder = write_table(str(tmp_path / "t"), {MODEL: make_rows(), OTHER: make_rows(seed=1)})
    reader = Reader(written(folder, tmp_path, provider=None, model="vae"))
    assert reader.find("section")[0]["id"] == "model-1"
    assert not any(section.get("id") == "model-2" for section in reader.find("section"))
    with pytest.raises(ConfigError, match="^alad has not scored .*: choose among ganomaly"):
        written(folder, tmp_path, provider=None, model="alad")


def test_failures_are_grouped_by_their_error(tmp_path):
    rows = make_rows(num=60, num_failed=9)
    rows[0]["error"] = "truncated"
    folder = write_table(str(tmp_path / "t"), {MODEL: rows})
    reader = Reader(written(folder, tmp_path, provider=None))
    assert "Images without a score" in reader.words
    assert "8 empty file good/001.png good/002.png good/004.png good/005.png good/007.png 1" in (
        reader.words
    )


def test_a_table_whose_images_all_failed(tmp_path):
    folder = write_table(str(tmp_path / "t"), {MODEL: make_rows(num=4, num_failed=4)})
    reader = Reader(written(folder, tmp_path, provider=None))
    assert reader.find("img") == []
    assert "4 empty file" in reader.words or "empty file" in reader.words


def test_a_run_that_is_not_finished_and_a_model_that_is_gone_are_told(tmp_path):
    folder = write_table(str(tmp_path / "t"), {MODEL: make_rows()}, run=False)
    words = Reader(written(folder, tmp_path)).words
    assert "the scoring run has not finished" in words
    assert "there are no heat maps:" in words


def test_the_calibration_of_the_model_is_told(tmp_path):
    model = tmp_path / "model"
    calibration = Calibration(np.arange(99.0), tuple(map(str, range(99))))
    storage.write_json(str(model / "model.json"), {"id": MODEL})
    pq.write_table(calibration.to_table(), model / "calibration.parquet")
    models = [{"model": MODEL, "path": str(model), "detector": "x", "config": {"epochs": 15}}]
    folder = write_table(str(tmp_path / "t"), {MODEL: make_rows()}, models=models)
    reader = Reader(written(folder, tmp_path, provider=None))
    assert "calibrated on 99" in reader.words
    assert "no p-value is below 0.01; 200 or more give finer ones" in reader.words
    assert len(reader.find("path", "band")) == 1
    assert '"epochs": 15' in reader.words


@pytest.mark.parametrize("recorded", [True, False])
def test_an_image_looks_the_same_however_many_are_shown(table, tmp_path, monkeypatch, recorded):
    if recorded:
        heat = Heat(("a", "b"), np.array([10.0, 20.0]), np.array([90.0, 100.0]))
        monkeypatch.setattr("ganad.report.scale.heat_of", lambda table, model: heat)
    shown = []
    for num in (2, 5, 50):
        reader = Reader(written(table, tmp_path, num_worst=num, provider=dark))
        photos, maps = reader.find("img", "photo"), reader.find("img", "heat")
        by_name = zip(photos, maps, strict=True)
        shown.append({photo["alt"]: heat["src"] for photo, heat in by_name})
    for few in shown[:2]:
        assert few.items() <= shown[2].items()


def test_small_images_are_not_blurred_and_the_page_is_small(table, tmp_path):
    html = written(table, tmp_path, provider=dark)
    assert len(Reader(html).find("img", "pixelated")) == 30
    assert len(html) < 400_000


def test_the_page_of_a_table_on_s3(s3, tmp_path):
    s3.put("pages/empty", b"")
    folder = write_table(s3.url("pages/t"), {MODEL: make_rows(num=8, folder="s3://pages/gone")})
    out = write_report(ScoreTable(folder), s3.url("pages/page.html"), num_worst=2, provider=None)
    reader = Reader(storage.read_bytes(out).decode())
    assert "there is no such object" in reader.words


def test_a_page_of_real_images(shared_data, tmp_path):
    folder = str(tmp_path / "t")
    source = str(shared_data / "magnetic_tile" / "test" / "crack")
    manifest = write_manifest([source], f"{folder}/_manifest")
    write_table(folder, {MODEL: rows_of(manifest)[:20]})
    html = written(folder, tmp_path, num_worst=6, provider=dark)
    reader = Reader(html)
    assert len(reader.find("img", "photo")) == len(reader.find("img", "outline")) == 12
    assert all(image["src"].startswith("data:image/jpeg") for image in reader.find("img", "photo"))
    assert len(html) < 600_000
