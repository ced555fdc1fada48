"""The pages by HTTP: nothing without the token, nothing from another site, everything escaped."""

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from starlette.testclient import TestClient

from ganad.archive.verdicts import read_verdicts
from ganad.browse import pictures
from ganad.browse.app import Browser
from ganad.scores import regions
from tests.ganad.browse.conftest import TOKEN
from tests.ganad.scores.make_table import MODEL, OTHER

PATHS = ["/", "/image/0000000000000001", "/thumbnail/0000000000000001", "/static/browse.js"]


@pytest.fixture
def stranger(browser):
    return TestClient(browser.app(), base_url="http://127.0.0.1")


@pytest.fixture
def client(stranger):
    assert stranger.get(f"/?token={TOKEN}").status_code == 200
    return stranger


@pytest.mark.parametrize("path", PATHS)
def test_without_the_token_nothing_is_served(stranger, path):
    for answer in (stranger.get(path), stranger.get(f"{path}?token=guess")):
        assert answer.status_code == 403
        assert "the token" in answer.text
    assert stranger.post("/verdict", json={}).status_code == 403


def test_the_token_moves_from_the_url_into_a_cookie_of_this_site(stranger):
    answer = stranger.get(f"/?token={TOKEN}&page=2", follow_redirects=False)
    assert answer.headers["location"] == "/?page=2"
    assert "httponly" in answer.headers["set-cookie"].lower()
    assert "samesite=strict" in answer.headers["set-cookie"].lower()


def test_a_foreign_name_for_this_machine_is_refused(browser):
    foreign = TestClient(browser.app(), base_url="http://evil.example")
    assert foreign.get(f"/?token={TOKEN}").status_code == 400


def test_a_name_with_html_in_it_stays_text(client):
    page = client.get("/?size=96").text
    assert "&lt;img src=x onerror=" in page
    assert "<img src=x" not in page


def test_pictures_are_made_of_the_images(client):
    answer = client.get("/thumbnail/0000000000000001")
    assert answer.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(answer.content)).size == (32, 24)
    assert client.get("/full/0000000000000001").status_code == 200


def test_an_image_that_is_gone_says_so(client):
    answer = client.get("/thumbnail/0000000000000004")
    assert answer.status_code == 404
    assert "no such file" in answer.text


def test_maps_of_a_model_that_is_gone_say_so(client):
    answer = client.get(f"/heat/0000000000000001?model={MODEL}")
    assert answer.status_code == 404
    assert "gone" in answer.text


def test_maps_asked_for_together_are_computed_together(table, browser):
    batches = []

    def provider(table, model):
        def map_images(rows):
            batches.append(len(rows))
            return [np.ones((4, 4)) for _ in rows]

        return map_images

    rows = browser.rows.typical(MODEL, 8)
    heat = pictures.HeatMaps(table, MODEL, rows, 2**20, provider)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(heat.png, rows))
    assert all(Image.open(io.BytesIO(png)).format == "PNG" for png in found)
    assert batches[0] == 8  # the typical images, which set the scale
    assert sum(batches[1:]) == 8
    heat.png(rows[0])
    assert sum(batches[1:]) == 8  # kept


def test_a_verdict_counts_for_all_images_given_and_can_be_undone(client, table):
    images = ["0000000000000001", "0000000000000002"]
    given = {"images": images, "verdict": "defect", "model": OTHER}
    assert client.post("/verdict", json=given).json()["total"] == 2
    assert set(read_verdicts(table.uri)) == set(images)
    assert 'data-verdict="defect"' in client.get("/image/0000000000000001").text
    answer = client.post("/undo", json={})
    assert answer.json() == {"images": dict.fromkeys(images, ""), "total": 0}
    assert read_verdicts(table.uri) == {}


@pytest.mark.parametrize(
    "given",
    [
        {"images": ["0000000000000001"], "verdict": "maybe", "model": MODEL},
        {"images": "all", "verdict": "defect", "model": MODEL},
        {"images": ["0000000000000001"], "verdict": "defect", "model": "other"},
        [],
    ],
)
def test_a_verdict_that_makes_no_sense_is_refused(client, table, given):
    assert client.post("/verdict", json=given).status_code == 400
    assert read_verdicts(table.uri) == {}


def test_a_form_of_another_site_cannot_judge(client):
    form = client.post("/verdict", content="x=1", headers={"Content-Type": "text/plain"})
    assert form.status_code == 415


def test_a_wrong_condition_is_a_page_with_the_way_back(client):
    answer = client.get("/", params={"where": "<b>"})
    assert answer.status_code == 400
    assert "&lt;b&gt;" in answer.text
    assert 'href="/"' in answer.text


def test_two_models_stand_side_by_side(client):
    page = client.get(f"/?model={MODEL}&beside={OTHER}").text
    assert page.count(f"/heat/0000000000000003?model={OTHER}") == 1
    assert page.count(f"/heat/0000000000000003?model={MODEL}") == 1


def test_the_image_page_leads_across_the_borders_of_pages(client, browser):
    order = [row["image_id"] for row in browser.rows.page(browser_state(size=96))]
    page = client.get(f"/image/{order[6]}?size=7").text
    assert f"/image/{order[5]}?model={MODEL}&amp;size=7" in page
    assert f"/image/{order[7]}?model={MODEL}&amp;size=7&amp;page=2" in page


def test_the_image_page_shows_regions_over_the_picture(table):
    image = "0000000000000003"
    place = {"x0": 2, "y0": 3, "x1": 9, "y1": 8, "area": 30, "peak_x": 4, "peak_y": 5}
    regions.begin(table.uri, MODEL)
    for file in table.parts.values():
        rows = [{"image_id": image, "uri": "", "peak": 1.5, **place}] if file.first == 0 else []
        if file.model == MODEL:
            regions.write(file, pa.Table.from_pylist(rows, schema=regions.SCHEMA))
    client = TestClient(Browser(table, "Ada", TOKEN, 2**24).app(), base_url="http://127.0.0.1")
    client.get(f"/?token={TOKEN}")
    page = client.get(f"/image/{image}?model={MODEL}").text
    assert '<svg class="regions" viewBox="0 0 32 24"' in page
    assert '<rect x="2" y="3" width="7" height="5"><title>1: area 30 px, peak 1.5' in page
    assert "<svg" not in client.get(f"/image/{image}?model={OTHER}").text


def browser_state(**state):
    from ganad.browse.selection import Selection

    return Selection(MODEL, **state)
