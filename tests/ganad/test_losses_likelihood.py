"""Functions of the likelihood models against values computed by hand."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

from ganad import losses_likelihood as losses


def test_quantise_cuts_bytes_into_equal_ranges() -> None:
    x = torch.tensor([0.0, 15.0, 16.0, 255.0]) / 127.5 - 1
    assert losses.quantise(x, 16).tolist() == [0, 0, 1, 15]
    assert losses.quantise(x, 2).tolist() == [0, 0, 0, 1]


def test_every_byte_comes_back_unchanged_with_256_levels() -> None:
    byte = torch.arange(256)
    x = byte.float().div(127.5).sub(1.0)
    q = losses.quantise(x, 256)
    assert q.tolist() == byte.tolist()
    torch.testing.assert_close(losses.dequantise(q, 256), x)


def test_few_levels_span_the_whole_range() -> None:
    assert losses.dequantise(torch.tensor([0, 1, 2]), 3).tolist() == [-1.0, 0.0, 1.0]


def test_bits_of_a_coin_and_of_a_sure_model() -> None:
    # Two values of two levels each: p = (1/2, 1/2), and p = (1/4, 3/4).
    logits = torch.tensor([[0.0, 0.0], [0.0, math.log(3)]]).reshape(1, 1, 2, 1, 2)
    logits = logits.transpose(2, 4).contiguous()  # n, c, levels, h, w
    found = losses.bits(logits, torch.tensor([1, 1]).reshape(1, 1, 1, 2))
    assert found.shape == (1, 1, 1, 2)
    assert found.flatten().tolist() == pytest.approx([1.0, math.log2(4 / 3)])


def test_bits_of_an_even_softmax_are_those_of_a_raw_image() -> None:
    q = torch.randint(0, 256, (2, 3, 4, 5))
    found = losses.bits(torch.zeros(2, 3, 256, 4, 5), q)
    assert found.shape == q.shape
    torch.testing.assert_close(found, torch.full(q.shape, 8.0))


def test_expectation_is_the_mean_over_levels() -> None:
    logits = torch.tensor([0.0, math.log(3)]).reshape(1, 1, 2, 1, 1)
    assert losses.expectation(logits).item() == pytest.approx(-1 / 4 + 3 / 4)


@pytest.mark.parametrize("channels", [1, 3])
def test_compressed_bits_are_those_of_a_png_file_that_holds_the_image(channels: int) -> None:
    rng = np.random.default_rng(0)
    q = rng.integers(0, 256, (1, channels, 16, 16), dtype=np.uint8)
    picture = q[0, 0] if channels == 1 else q[0].transpose(1, 2, 0)
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", optimize=True)
    assert losses.compressed_bits(q).tolist() == [8 * len(file.getvalue()) / q.size]
    np.testing.assert_array_equal(np.asarray(Image.open(file)), picture)


def test_a_plain_image_compresses_better_than_noise() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1, 1, 32, 32), dtype=np.uint8)
    plain, noisy = losses.compressed_bits(np.concatenate([np.full_like(noise, 9), noise]))
    assert plain < 1
    assert noisy > 8
