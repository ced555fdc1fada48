"""Files that crash, hang or fill the process that decodes cost one error text each."""

import io
import os
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from PIL import Image

from ganad.images import sandbox
from ganad.images.decode import Preprocessing, decode, decode_values
from tests.ganad.images.odd_images import odd_images

KINDS = [Preprocessing(image_size=8), Preprocessing(image_size=5, channels=1)]
BOOBY_TRAP = """
from ganad.images import child
real = child.decode
def decode(data, kind):
    if data == b"abort":
        __import__("os").abort()
    while data == b"loop":
        pass
    return real(data, kind)
child.decode, child.SECONDS = decode, 0.2
child.main()
"""
"""Stands for a fault in a library: two files at which the process crashes or never ends."""


def png(value: int, side: int = 6) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (value, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """A function that has the process run another program from here on."""
    idle: dict[int, list[sandbox._Child]] = {}
    monkeypatch.setattr(sandbox, "_idle", idle)
    yield lambda text: monkeypatch.setattr(sandbox, "_PROGRAM", text)
    for child in idle.get(os.getpid(), []):
        child.end()


@pytest.mark.filterwarnings("ignore")
def test_another_process_decodes_to_the_same_pixels_and_errors() -> None:
    corpus = list(odd_images())
    found = sandbox.decode_all(((odd.name, odd.data) for odd in corpus), KINDS)
    for odd, (name, results) in zip(corpus, found, strict=True):
        assert name == odd.name
        for kind, result in zip(KINDS, results, strict=True):
            expected = decode(odd.data, kind)
            assert (result.error, result.width) == (expected.error, expected.width)
            if expected.image is not None:
                assert result.image is not None
                assert result.image.flags.writeable
                np.testing.assert_array_equal(result.image, expected.image)


@pytest.mark.parametrize("name", ["raw.tif", "deep.tif", "one-bit.png", "alpha.png", "bomb.png"])
def test_whole_images_too(name: str) -> None:
    (data,) = (odd.data for odd in odd_images() if odd.name == name)
    found, expected = sandbox.decode_whole(data), decode_values(data)
    assert found.error == expected.error
    if expected.array is not None:
        assert found.array is not None
        assert found.array.dtype == expected.array.dtype
        np.testing.assert_array_equal(found.array, expected.array)


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (b"abort", "decoding it crashes (SIGABRT); convert it with another program"),
        (b"loop", sandbox.OUT_OF_TIME),
    ],
)
def test_the_file_that_kills_the_process_is_found_among_others(
    bad: bytes, error: str, program: Callable[[str], None]
) -> None:
    program(BOOBY_TRAP)
    files = [png(value) for value in range(100)]
    files[50] = files[51] = bad
    found = [results for _, results in sandbox.decode_all(enumerate(files), KINDS)]
    errors = {number: some[1].error for number, some in enumerate(found) if some[1].error}
    assert errors == {50: error, 51: error}
    reds = [some[0].image[0, 0, 0] for some in found if some[0].image is not None]
    assert reds == [value for value in range(100) if value not in (50, 51)]


def test_a_process_that_is_killed_from_outside_costs_no_image(
    program: Callable[[str], None],
) -> None:
    program(BOOBY_TRAP)

    def children() -> set[int]:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            return set(map(int, file.read().split()))

    def items() -> Iterator[tuple[int, bytes]]:
        for value in range(100):
            if value == 40:
                (pid,) = children() - before
                os.kill(pid, 9)
            yield value, png(value)

    before = children()
    assert all(results[0].error is None for _, results in sandbox.decode_all(items(), KINDS))


def test_more_memory_than_one_image_may_have_is_an_error_text(
    program: Callable[[str], None],
) -> None:
    program(
        "from ganad.images import child\n"
        "child.MEMORY_PER_PIXEL, child.MEMORY_BESIDE = 0, 2**20\n"
        "child.main()"
    )
    found = dict(sandbox.decode_all([(0, png(1)), (1, png(2, 2000)), (2, png(3))], KINDS))
    assert [found[number][0].error for number in range(3)] == [
        None,
        "decoding it takes more memory than one image may have",
        None,
    ]


def test_an_error_between_files_comes_after_the_files_before_it() -> None:
    def items() -> Iterator[tuple[int, bytes]]:
        yield from ((value, png(value)) for value in range(40))
        raise LookupError("no more files")

    found: list[int] = []
    with pytest.raises(LookupError, match="no more files"):
        found.extend(value for value, _ in sandbox.decode_all(items(), KINDS))
    assert found == list(range(40))


def test_whoever_stops_early_leaves_nothing_behind_for_the_next() -> None:
    for value, _ in sandbox.decode_all(((value, png(value)) for value in range(200)), KINDS):
        if value == 3:
            break
    ((_, (first, _)),) = sandbox.decode_all([(0, png(77))], KINDS)
    assert first.image is not None
    assert first.image[0, 0, 0] == 77


def test_the_process_gets_no_credentials(
    program: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    program(
        "import os\nfrom ganad.images import child\n"
        "assert 'AWS_SECRET_ACCESS_KEY' not in os.environ\nchild.main()"
    )
    ((_, (first, _)),) = sandbox.decode_all([(0, png(1))], KINDS)
    assert first.error is None


def test_a_process_that_cannot_start_is_no_images_fault(program: Callable[[str], None]) -> None:
    program("raise SystemExit(3)")
    with pytest.raises(RuntimeError, match="ended with 3 before it decoded"):
        list(sandbox.decode_all([(0, png(1))], KINDS))
