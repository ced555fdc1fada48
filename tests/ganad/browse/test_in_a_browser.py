"""The pages in a real browser, as a person uses them."""

import pytest

from ganad.archive.verdicts import read_verdicts
from tests.ganad.browse.conftest import NAUGHTY, TOKEN
from tests.ganad.scores.make_table import MODEL


@pytest.fixture
def open_page(chromium, served):
    contexts = []

    def open_page(path="/?", **options):
        context = chromium.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.errors = []
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.goto(f"{served}{path}&token={TOKEN}")
        return page

    yield open_page
    for context in contexts:
        context.close()


def card(page, place):
    return page.locator(".card").nth(place)


def verdict(page, place, choice):
    page.wait_for_function(
        "([n, v]) => document.querySelectorAll('.card')[n].dataset.verdict === v",
        arg=[place, choice],
    )


def test_keys_judge_move_and_undo_and_a_verdict_survives_a_reload(open_page, table):
    page = open_page()
    page.keyboard.press("j")
    page.keyboard.press("1")
    verdict(page, 0, "defect")
    page.wait_for_function("document.querySelectorAll('.card')[1].matches('.current')")
    page.keyboard.press("0")
    verdict(page, 1, "false alarm")
    page.wait_for_function("document.querySelectorAll('.card')[2].matches('.current')")
    page.keyboard.press("k")
    page.keyboard.press("u")
    verdict(page, 1, "")
    page.reload()
    verdict(page, 0, "defect")
    verdict(page, 1, "")
    assert page.locator("#num-verdicts").inner_text() == "1"
    assert [one.verdict for one in read_verdicts(table.uri).values()] == ["defect"]
    assert page.errors == []


def test_help_and_the_page_of_one_image(open_page):
    page = open_page()
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_url("**/image/**")
    first = page.locator("main h2").inner_text()
    page.wait_for_selector("#similar img")
    page.click("#zoom-in")
    assert "scale(1.6)" in page.locator("#stage").get_attribute("style")
    page.keyboard.press("1")
    page.wait_for_function(
        "name => document.querySelector('main h2').innerText !== name", arg=first
    )
    page.keyboard.press("Escape")
    page.wait_for_selector(".grid-page")
    verdict(page, 0, "defect")
    assert page.errors == []


def test_a_name_with_html_in_it_stays_text(open_page):
    page = open_page("/?size=96")
    assert page.get_by_text(NAUGHTY).count() >= 1
    assert page.title() == "table"


def test_a_picture_that_is_gone_says_so(open_page):
    page = open_page("/?size=96")
    gone = page.locator(".card", has_text="good/004.png")
    gone.scroll_into_view_if_needed()
    gone.locator(".missing", has_text="no such file").wait_for()


@pytest.mark.parametrize("path", ["/?", "/image/0000000000000001?"])
def test_a_phone_shows_the_whole_width(open_page, path):
    page = open_page(path, viewport={"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_the_dark_scheme_is_dark(open_page):
    def ground(scheme):
        page = open_page(color_scheme=scheme)
        text = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(int(part) for part in text.strip("rgb()").split(","))

    assert ground("dark") < 3 * 64 < 3 * 192 < ground("light")


def test_filters_go_into_the_address(open_page):
    page = open_page()
    page.fill("input[name=where]", "label = 'hole'")
    page.click("form.filters button:not([type=button])")
    page.wait_for_url("**where=label*")
    labels = page.locator(".card .label").all_inner_texts()
    assert set(labels) == {"hole"}
    assert f"model={MODEL}" in page.url
    assert "folder=" not in page.url
