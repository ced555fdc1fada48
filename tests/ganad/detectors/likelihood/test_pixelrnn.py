"""PixelRNN with Row LSTMs: what each prediction depends on, and its score."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from ganad.detectors.likelihood.masked import RowLstm
from ganad.detectors.likelihood.pixelrnn import RowLstmNetwork
from ganad.errors import ConfigError
from ganad.training.trainer import Trainer
from tests.ganad.detectors.small import InMemory, digits, prepared, random_images, small

pixelrnn = partial(
    small,
    "pixelrnn",
    image_size=16,
    hidden=6,
    head_width=12,
    layers=2,
    levels=256,
    precision="float32",
)


def seen(network: RowLstmNetwork, channels: int, size: int, row: int, column: int) -> list[Tensor]:
    """For each colour of a pixel, which values its logits depend on: bool size×size×channels.

    By gradients of a few random images, as a ReLU may hide a value in one of them.
    """
    images = torch.rand(8, channels, size, size) * 2 - 1
    images.requires_grad_()
    logits = network(images)
    found = []
    for colour in range(channels):
        one = logits[:, colour, :, row, column]
        (gradient,) = torch.autograd.grad(
            (one * torch.randn_like(one)).sum(), images, retain_graph=True
        )
        found.append((gradient != 0).any(0).permute(1, 2, 0))
    return found


def context(layers: int, row: int, column: int, size: int) -> set[tuple[int, int]]:
    """The pixels before (row, column) that the paper's layers reach, walked layer by layer.

    A Row LSTM reads its own and the left column of its row, one column more on either side for
    each row further up; the 7×7 of mask A reads three rows above and three columns to the left.
    """
    pixels = {(row, column)}
    for _ in range(layers):
        pixels = {
            (r - up, c + shift)
            for r, c in pixels
            for up in range(r + 1)
            for shift in range(-1 - up, up + 1)
        } & {(r, c) for r in range(size) for c in range(size)}
    return {
        (r + dr, c + dc)
        for r, c in pixels
        for dr in range(-3, 1)
        for dc in range(-3, 4 if dr else 0)
        if r + dr >= 0 and 0 <= c + dc < size
    }


@pytest.mark.parametrize("layers", [1, 2])
def test_a_prediction_sees_the_triangle_above_and_nothing_else(layers: int) -> None:
    size = 12
    torch.manual_seed(0)
    network = RowLstmNetwork(1, 8, layers, 3, 16, levels=4)
    for row, column in [(0, 0), (0, 5), (3, 0), (5, 6), (8, 11), (11, 2), (11, 11)]:
        (found,) = seen(network, 1, size, row, column)
        expected = context(layers, row, column, size)
        assert {(int(r), int(c)) for r, c, _ in found.nonzero()} == expected
        assert all(r * size + c < row * size + column for r, c in expected)


def test_the_triangle_is_not_the_whole_image_before() -> None:
    # What the paper says of the Row LSTM: far to the right in the row above is out of its sight.
    expected = context(1, 11, 2, 12)
    assert (10, 11) not in expected
    assert (0, 11) in expected


def test_the_colours_of_a_pixel_are_seen_in_their_order() -> None:
    torch.manual_seed(0)
    size, (row, column) = 8, (4, 4)
    network = RowLstmNetwork(3, 24, 2, 3, 36, levels=4)
    for colour, found in enumerate(seen(network, 3, size, row, column)):
        assert found[row, column].tolist() == [other < colour for other in range(3)]
        assert found[row, column - 1].all()
        assert found[row - 1].all()
        assert not found[row, column + 1 :].any()
        assert not found[row + 1 :].any()


def test_the_layer_is_the_lstm_of_the_paper() -> None:
    # One pixel wide and one feature: eq. 3 by hand, row by row.
    torch.manual_seed(0)
    layer = RowLstm(1, 3, 1)
    x = torch.randn(1, 2, 3, 1)
    into = layer.input_to_state.weight[:, :, 0, 1]
    bias = layer.input_to_state.bias
    above = layer.state_to_state.weight[:, 0, 0, 1]
    h = c = torch.zeros(())
    for row in range(3):
        o, f, i, g = into @ x[0, :, row, 0] + bias + above * h
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        expected = x[0, :, row, 0] + layer.up.weight[:, 0, 0, 0] * h + layer.up.bias
        torch.testing.assert_close(layer(x)[0, :, row, 0], expected)


def test_parameter_count_of_a_network_counted_by_hand() -> None:
    first = 4 * 49 + 4
    layer = (8 * 4 * 3 + 8) + 8 * 2 * 3 + (4 * 2 + 4)
    softmax = (6 * 4 + 6) + (5 * 6 + 5)
    network = RowLstmNetwork(1, 2, 2, 3, 6, levels=5)
    assert sum(p.numel() for p in network.parameters()) == first + 2 * layer + softmax


def test_score_is_the_mean_of_the_bits_and_the_map_shows_where() -> None:
    model = pixelrnn()
    images = random_images(3, size=16)
    with torch.no_grad():
        logits = model.network(prepared(images)).log_softmax(2)
    bits = -logits.gather(2, images.long()[:, :, None])[:, 0, 0] / np.log(2)
    scores = model.score(images, maps=True)
    np.testing.assert_allclose(scores.score, bits.mean((1, 2)).numpy(), rtol=1e-5)
    assert scores.maps is not None
    np.testing.assert_allclose(scores.maps, bits.numpy(), atol=1e-4)


def test_training_lowers_the_bits_of_real_images() -> None:
    images = digits(160, 16)
    model = pixelrnn(levels=16, epochs=4, batch_size=8, learning_rate=5e-3)
    before = model.score(torch.from_numpy(images[128:])).score.mean()
    list(Trainer(model, InMemory(images[:128])).run())
    after = model.score(torch.from_numpy(images[128:])).score.mean()
    assert before > 3.5  # near the log2(16) of no knowledge
    assert after < 2.2


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"hidden": 10, "channels": 3}, r"^hidden=10 .* use a multiple of 3"),
        ({"head_width": 10, "channels": 3}, r"^head_width=10 .* use a multiple of 3"),
        ({"kernel": 4}, r"^kernel=4 is even"),
    ],
)
def test_wrong_configs_are_refused(keys: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        pixelrnn(**keys)
