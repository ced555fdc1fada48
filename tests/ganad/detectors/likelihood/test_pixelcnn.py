"""The gated PixelCNN: what each prediction depends on, and its score."""

from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ganad import losses
from ganad.detectors.likelihood.masked import MaskedConv2d, colour_groups
from ganad.detectors.likelihood.pixelcnn import GatedPixelCnn
from ganad.errors import ConfigError
from ganad.training.trainer import Trainer
from tests.ganad.detectors.small import InMemory, digits, prepared, random_images, small

pixelcnn = partial(
    small, "pixelcnn", image_size=16, width=12, layers=3, levels=256, precision="float32"
)


def dependencies(network: nn.Module, channels: int, size: int) -> Iterator[tuple[int, Tensor]]:
    """For every value, in the order of prediction: its place, and which values its logits see.

    The order is rows, then columns, then colours. Seen: a gradient that is not zero for one of a
    few random images, as a ReLU may hide one of them.
    """
    images = torch.rand(4, channels, size, size) * 2 - 1
    images.requires_grad_()
    logits = network(images)
    weights = torch.randn_like(logits)
    place = 0
    for row in range(size):
        for column in range(size):
            for colour in range(channels):
                where = (slice(None), colour, slice(None), row, column)
                total = (logits[where] * weights[where]).sum()
                (gradient,) = torch.autograd.grad(total, images, retain_graph=True)
                yield place, (gradient != 0).any(0).permute(1, 2, 0).flatten()
                place += 1


@pytest.mark.parametrize("channels", [1, 3])
def test_a_prediction_depends_on_all_values_before_it_and_on_no_other(channels: int) -> None:
    # 3 + 4 · 1 pixels of reach in each direction cover an image of 7 pixels: a blind spot shows.
    torch.manual_seed(0)
    network = GatedPixelCnn(channels, 12 * channels, 5, 3, 7, levels=4)
    for place, seen in dependencies(network, channels, 7):
        assert torch.equal(seen, torch.arange(len(seen)) < place), place


def test_one_layer_sees_its_kernel_only() -> None:
    network = GatedPixelCnn(1, 4, 1, 3, 3, levels=4)
    seen = dict(dependencies(network, 1, 5))[12].reshape(5, 5)  # the centre
    assert seen.nonzero().tolist() == [[1, 1], [1, 2], [1, 3], [2, 1]]


def test_colour_groups_are_equal_blocks_for_every_gate() -> None:
    assert colour_groups(6, 3).tolist() == [0, 0, 1, 1, 2, 2]
    assert colour_groups(6, 3, 2).tolist() == [0, 1, 2, 0, 1, 2]


def test_masks_a_and_b_differ_in_the_pixel_s_own_colour() -> None:
    a, b = (MaskedConv2d(3, 3, (3, 3), kind, 3).mask for kind in ("A", "B"))
    assert a[:, :, 1, 1].tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0]]
    assert b[:, :, 1, 1].tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    for mask in (a, b):
        assert (mask[:, :, 0] == 1).all()
        assert mask[0, 0, 1, [0, 2]].tolist() == [1, 0]
        assert (mask[:, :, 2] == 0).all()


def test_parameter_count_of_a_network_counted_by_hand() -> None:
    # Block of width 2: vertical, link, horizontal and out, each with biases.
    first = (4 * 1 * 1 * 3 + 4) + (4 * 4 + 4) + (4 * 1 * 3 + 4) + (2 * 2 + 2)
    second = (4 * 2 * 2 * 3 + 4) + (4 * 4 + 4) + (4 * 2 * 3 + 4) + (2 * 2 + 2)
    softmax = (2 * 2 + 2) + (5 * 2 + 5)
    network = GatedPixelCnn(1, 2, 2, 3, 3, levels=5)
    assert sum(p.numel() for p in network.parameters()) == first + second + softmax


def test_score_is_the_mean_of_the_bits_and_the_map_shows_where() -> None:
    model = pixelcnn()
    images = random_images(3, size=16)
    with torch.no_grad():
        x = prepared(images)
        logits = model.network(x).log_softmax(2)
    bits = -logits.gather(2, images.long()[:, :, None])[:, 0, 0] / np.log(2)
    scores = model.score(images, maps=True)
    np.testing.assert_allclose(scores.score, bits.mean((1, 2)).numpy(), rtol=1e-5)
    assert scores.maps is not None
    np.testing.assert_allclose(scores.maps, bits.numpy(), atol=1e-4)


def test_complexity_takes_off_the_bits_of_a_png_file() -> None:
    images = random_images(2, size=16)
    plain, corrected = (pixelcnn(score=kind).score(images) for kind in ("likelihood", "complexity"))
    png = losses.compressed_bits(images).numpy()
    np.testing.assert_allclose(corrected.score, plain.score - png, rtol=1e-6)
    assert set(corrected.terms) == {"bits_per_dimension", "png_bits_per_dimension"}


def test_few_levels_forget_what_they_round_away() -> None:
    model = pixelcnn(levels=16)
    images = torch.randint(0, 16, (2, 1, 16, 16), dtype=torch.uint8) * 16
    np.testing.assert_array_equal(model.score(images).score, model.score(images + 15).score)


def test_half_precision_bits_stay_near_those_of_float32() -> None:
    images = torch.from_numpy(digits(8, 16))
    exact, half = (pixelcnn(precision=kind).score(images).score for kind in ("float32", "bfloat16"))
    np.testing.assert_allclose(half, exact, rtol=5e-3)


def test_reconstruction_is_what_the_model_expects_of_each_pixel() -> None:
    model = pixelcnn(levels=4)
    x = torch.rand(2, 1, 16, 16) * 2 - 1
    with torch.no_grad():
        before, after = (
            model.reconstruct(x),
            model.reconstruct(torch.cat([x[:, :, :15], -x[:, :, 15:]], 2)),
        )
    assert before.shape == x.shape
    assert before.abs().max() <= 1
    assert torch.equal(before[:, :, :15], after[:, :, :15])  # nothing comes from below


def test_training_lowers_the_bits_of_real_images() -> None:
    images = digits(160, 16)
    model = pixelcnn(levels=16, epochs=4, batch_size=8, learning_rate=1e-2)
    before = model.score(torch.from_numpy(images[128:])).score.mean()
    *_, last = Trainer(model, InMemory(images[:128])).run()
    after = model.score(torch.from_numpy(images[128:])).score.mean()
    assert before > 3.5  # near the log2(16) of no knowledge
    assert after < 2.2
    assert last.losses["bits_per_dimension"] < before


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"width": 10, "channels": 3}, r"^width=10 .* use a multiple of 3"),
        ({"kernel": 4}, r"^kernel=4 is even"),
        ({"first_kernel": 6}, r"^first_kernel=6 is even"),
    ],
)
def test_wrong_configs_are_refused(keys: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        pixelcnn(**keys)
