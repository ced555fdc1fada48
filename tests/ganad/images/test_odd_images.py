"""Every kind of odd image comes to what is expected of it."""

import subprocess
import sys

import numpy as np
import pytest

from ganad.images.decode import Preprocessing, decode
from tests.ganad.images.odd_images import Odd, odd_images

CORPUS = list(odd_images())


def test_the_corpus_is_large_and_its_names_differ() -> None:
    assert len(CORPUS) >= 90
    assert len({odd.name for odd in CORPUS}) == len(CORPUS)


@pytest.mark.filterwarnings("ignore")  # pytest lays its own filters over those of decode
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("odd", CORPUS, ids=lambda odd: odd.name)
def test_its_outcome(odd: Odd, channels: int) -> None:
    decoded = decode(odd.data, Preprocessing(image_size=16, channels=channels))
    if odd.error is None:
        assert decoded.error is None
        assert (decoded.width, decoded.height) == odd.size
        assert decoded.image is not None
        assert decoded.image.shape == (channels, 16, 16)
        assert decoded.image.dtype == np.uint8
    else:
        assert decoded.image is None
        assert decoded.error is not None
        assert decoded.error.startswith(odd.error)
        assert "\n" not in decoded.error
        assert len(decoded.error) <= 200


def test_warnings_decide_nothing() -> None:
    program = (
        "from ganad.images.decode import Preprocessing, decode\n"
        "from tests.ganad.images.odd_images import odd_images\n"
        "(odd,) = [odd for odd in odd_images() if odd.name == 'broken-exif.jpg']\n"
        "print(decode(odd.data, Preprocessing(image_size=16)).error)"
    )
    for warn in ("error", "default"):
        command = [sys.executable, "-W", f"{warn}::UserWarning", "-c", program]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        assert (result.stdout, result.stderr) == ("None\n", "")
