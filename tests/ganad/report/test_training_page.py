"""training.html, the page of a training run."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from ganad import fit
from ganad.errors import ArchiveError
from ganad.model import Model
from ganad.report.charts import Curve
from ganad.report.grid import picture_grid, rows_of
from ganad.report.training_page import write_training_page
from ganad.storage import files as storage

KEYS = {"image_size": 16, "channels": 1, "width": 4, "latent": 4, "batch_size": 8, "epochs": 3}


class Page(HTMLParser):
    """Checks that every tag is closed, and keeps sources and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.text = ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img", "br", "line", "path", "link"):
            self.open.append(tag)
        self.sources += [str(value) for name, value in attributes if name in ("src", "href")]

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def model(tmp_path: Path) -> Model:
    images = np.random.default_rng(0).integers(0, 256, (60, 1, 16, 16)).astype(np.uint8)
    made = fit("ganomaly", images, device="cpu", **KEYS)
    made.save(str(tmp_path))  # the model alone, without a record of its training
    return made


def page_of(folder: Path) -> Page:
    write_training_page(str(folder))
    return Page((folder / "training.html").read_text())


def test_a_run_is_shown_with_its_curves_pictures_and_events(model: Model, tmp_path: Path) -> None:
    event = "discriminator collapsed <b>twice</b>"
    # Without the events of a network that has hardly been trained.
    model.training["history"] = [e for e in model.training["history"] if "event" not in e]
    model.training |= {"steps": 18, "batch_size": 8, "num_workers": 2, "images_per_second": 12.5}
    for number, entry in enumerate(model.training["history"]):
        entry |= {"step": 6 * (number + 1), "validation_score": 0.5 / (number + 1)}
    model.training["history"].append({"step": 7, "event": event})
    model.save(str(tmp_path))
    points = [
        {"step": step, "generator": 9.0 / step, "discriminator": 0.7, "images_per_second": 80.0}
        for step in range(1, 19)
    ]
    storage.write_json(str(tmp_path / "training" / "curves.json"), points)
    pixels = np.zeros((3, 1, 16, 16), np.uint8)
    for epoch in (1, 3):
        grid = picture_grid(pixels, np.zeros((3, 1, 16, 16), np.float32), np.ones((3, 16, 16)))
        (tmp_path / "training" / "grids").mkdir(exist_ok=True)
        grid.save(tmp_path / "training" / "grids" / f"epoch-{epoch:04d}.png")
    page = page_of(tmp_path)
    html = (tmp_path / "training.html").read_text()
    for words in (model.id, "12.5", "generator", "images per second", "held-out normal images"):
        assert words in page.text, words
    assert re.findall(r"<span>(original|epoch \d+|difference)</span>", html) == [
        "original",
        "epoch 1",
        "epoch 3",
        "difference",
    ]
    assert event in page.text  # as text: its tags are escaped
    assert "signs of collapse1" in re.sub(r"\s+", "", page.text).replace(
        "signsofcollapse", "signs of collapse"
    )
    assert html.count('class="curve all"') == 4
    assert html.count('class="event"') == 4
    assert all(source.startswith(("data:", "#")) for source in page.sources)


def test_a_fit_without_a_record_has_a_page_too(model: Model, tmp_path: Path) -> None:
    page = page_of(tmp_path)
    assert "Scores of normal images" in page.text
    assert "Training curves" in page.text  # by epoch
    assert "Reconstructions of held-out images" not in page.text
    assert json.dumps("ganomaly")[1:-1] in page.text


def test_damaged_curves_are_named(model: Model, tmp_path: Path) -> None:
    place = tmp_path / "training" / "curves.json"
    place.parent.mkdir()
    place.write_text('[{"step": 1, "generator": 2, "gradient": NaN}, {"step": 2, "generator": 1}]')
    assert "generator" in page_of(tmp_path).text
    for text in ("[3]", '{"step": 1}', '[{"step": "a"}]', "[", "[" * 200_000):
        place.write_text(text)
        with pytest.raises(ArchiveError, match=r"curves.json: is "):
            page_of(tmp_path)


def test_few_calibration_images_promise_nothing(model: Model, tmp_path: Path) -> None:
    assert model.calibration is not None
    assert len(model.calibration) < 19
    assert "too few of them for any p-value below 0.05" in page_of(tmp_path).text


def test_a_curve_goes_through_its_points_and_down_is_down() -> None:
    svg = str(Curve([(1, 4.0), (2, 2.0), (3, 1.0)], log=True, marks=[2]).svg())
    path = re.search(r'class="curve all" d="M([^"]+)"', svg)
    assert path is not None
    places = [tuple(map(float, one.split())) for one in path[1].split(" L")]
    assert places[0][0] < places[1][0] < places[2][0]
    # SVG counts downwards, and on a logarithmic scale halvings are equal steps.
    assert places[1][1] - places[0][1] == pytest.approx(places[2][1] - places[1][1], abs=0.2)
    assert places[0][1] < places[1][1]
    mark = re.search(r'class="event" x1="([\d.]+)"', svg)
    assert mark is not None
    assert float(mark[1]) == places[1][0]


def test_a_constant_curve_is_drawn() -> None:
    assert "nan" not in str(Curve([(1, 0.7), (2, 0.7)], log=False).svg())


def test_a_grid_falls_apart_into_the_rows_it_was_made_of() -> None:
    originals = np.full((2, 1, 8, 8), 10, np.uint8)
    rebuilt = np.full((2, 1, 8, 8), 1.0, np.float32)
    rows = rows_of(picture_grid(originals, rebuilt, None), 8)
    assert len(rows) == 2
    assert [np.asarray(row)[3, 5, 0] for row in rows] == [10, 255]
    assert {row.height for row in rows} == {8}
