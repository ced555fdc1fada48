"""A score table over real pictures, its pages served on this machine, and a browser."""

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
import uvicorn
from PIL import Image

from ganad.browse.app import Browser
from ganad.scores.table import ScoreTable
from tests.ganad.scores.make_table import MODEL, OTHER, make_rows, write_table

TOKEN = "a-token-of-the-tests"
NAUGHTY = '<img src=x onerror="document.title=1">.png'
"""A file's name that is HTML."""


@pytest.fixture
def table(tmp_path):
    """60 images under two models; two cannot be read, and one is gone since it was scored."""
    folder = tmp_path / "pictures"
    rng = np.random.default_rng(0)
    rows = {}
    for seed, model in enumerate((MODEL, OTHER)):
        rows[model] = make_rows(seed=seed, folder=str(folder))
        for row in rows[model]:
            if row["name"].endswith("/005.png"):
                row["name"] = row["name"].replace("005.png", NAUGHTY)
    for row in rows[MODEL]:
        path = folder / row["uri"].removeprefix(f"{folder}/")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)).save(path)
    (folder / "good" / "004.png").unlink()
    return ScoreTable(write_table(str(tmp_path / "table"), rows))


@pytest.fixture
def browser(table) -> Browser:
    return Browser(table, "Ada", TOKEN, 2**24)


@pytest.fixture
def served(browser) -> Iterator[str]:
    """The pages on a free port; gives their address without the token."""
    config = uvicorn.Config(browser.app(), port=0, log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server.started
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(10)


@pytest.fixture(scope="session")
def chromium() -> Iterator[object]:
    """Debian's Chromium, driven by Playwright; installed where the tests may do so."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="install the test extra")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or _installed()
    with sync_api.sync_playwright() as playwright:
        chrome = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chrome
        chrome.close()


def _installed() -> str:
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        pytest.skip("no Chromium: apt-get install chromium")
    for command in (["apt-get", "update", "-q"], ["apt-get", "install", "-qy", "chromium"]):
        done = subprocess.run(command, capture_output=True, text=True, timeout=400)
        if done.returncode != 0:
            pytest.skip(f"no Chromium, and apt-get cannot install it: {done.stderr[-200:]}")
    return str(shutil.which("chromium"))
