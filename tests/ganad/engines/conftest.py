"""Every test of engines compiles into a folder of its own."""

import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GANAD_CACHE", str(tmp_path))
    return tmp_path / "engines"
