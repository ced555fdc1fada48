"""The demo's digits: all of them, once, and no anomaly among those to train on."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from pipelines.benchmark.data import write_digits


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "digits"
    write_digits(folder)
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_every_digit_is_written_once_as_it_is(digits):
    paths = sorted(digits.rglob("*.png"), key=lambda path: path.stem.split("_")[1])
    source = load_digits()
    assert len(paths) == len(source.images) == 1797
    for path, image, digit in zip(paths, source.images, source.target, strict=True):
        assert path.name.startswith(f"{digit}_")
        with Image.open(path) as opened:
            assert opened.mode == "L"
            pixels = np.asarray(opened)
        np.testing.assert_allclose(pixels, image * 255 / 16, atol=0.5)


def test_no_anomaly_is_trained_on(digits):
    train, test = names(digits / "train" / "good"), names(digits / "test" / "good")
    zeros = names(digits / "test" / "digit_0")
    assert [path.name for path in (digits / "train").iterdir()] == ["good"]
    assert not any(name.startswith("0_") for name in train + test)
    assert len(zeros) == 178
    assert all(name.startswith("0_") for name in zeros)
    assert len(train) == int(0.8 * (1797 - 178))
    assert not set(train) & set(test)


def test_writing_again_changes_nothing(digits):
    before = {path: path.read_bytes() for path in digits.rglob("*.png")}
    write_digits(digits)
    assert {path: path.read_bytes() for path in digits.rglob("*.png")} == before


def test_another_seed_is_another_split(digits, tmp_path):
    write_digits(tmp_path, seed=1)
    assert names(tmp_path / "train" / "good") != names(digits / "train" / "good")
