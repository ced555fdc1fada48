"""Convolutions that see only the pixels before their own, in raster order: row by row, each row
from the left, and in a pixel red before green before blue (van den Oord et al. 2016a, fig. 2)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def colour_groups(num_features: int, num_colours: int, repeats: int = 1) -> Tensor:
    """The number of the colour of each feature: equal blocks in order, the whole row repeated.

    (6, 3, 1) -> 0 0 1 1 2 2; (6, 3, 2) -> 0 1 2 0 1 2, for two gates of three features each.
    """
    each = num_features // repeats
    assert each % num_colours == 0, "features do not divide evenly among colours"
    return (torch.arange(each) * num_colours // each).repeat(repeats)


class MaskedConv2d(nn.Conv2d):
    """A convolution that keeps the size and sees rows above, and pixels to the left in its row.

    In the pixel itself, kind "A" sees the colours before its own, kind "B" its own as well: A is
    for the image, B for features computed from it. `gates` sets of outputs lie one after another.
    """

    mask: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: tuple[int, int],
        kind: Literal["A", "B"],
        num_colours: int,
        gates: int = 1,
    ) -> None:
        rows, columns = kernel
        assert rows % 2 == 1, "an even kernel has no centre"
        assert columns % 2 == 1, "an even kernel has no centre"
        super().__init__(inputs, outputs, kernel, padding=(rows // 2, columns // 2))
        mask = torch.zeros_like(self.weight)
        mask[:, :, : rows // 2] = 1
        mask[:, :, rows // 2, : columns // 2] = 1
        into = colour_groups(outputs, num_colours, gates)[:, None]
        out_of = colour_groups(inputs, num_colours)[None]
        seen = out_of < into if kind == "A" else out_of <= into
        mask[:, :, rows // 2, columns // 2] = seen.to(mask.dtype)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        return F.conv2d(input, self.weight * self.mask, self.bias, padding=self.padding)


def gate(features: Tensor) -> Tensor:
    """tanh(W_f ∗ x) ⊙ σ(W_g ∗ x): n×2w×h×w -> n×w×h×w (van den Oord et al. 2016b, eq. 2)."""
    content, opening = features.chunk(2, 1)
    return torch.tanh(content) * torch.sigmoid(opening)


class GatedBlock(nn.Module):
    """One layer of the gated PixelCNN (van den Oord et al. 2016b, fig. 2).

    The vertical stack sees all rows above. The horizontal stack sees its own row to the left, and
    the vertical stack through a 1×1 link, so that no earlier pixel is hidden. The first block takes
    the image: it leaves out the pixel's own colour and has no residual.
    """

    def __init__(
        self, inputs: int, width: int, kernel: int, num_colours: int, first: bool = False
    ) -> None:
        super().__init__()
        half = kernel // 2
        self.first = first
        # The first block reads the rows above. Its output at a row depends on no pixel of that row,
        # so that later blocks may read the row itself too.
        self.reach = (half, half, half, 0)
        self.vertical = nn.Conv2d(inputs, 2 * width, (half if first else half + 1, kernel))
        self.link = nn.Conv2d(2 * width, 2 * width, 1)
        kind: Literal["A", "B"] = "A" if first else "B"
        self.horizontal = MaskedConv2d(inputs, 2 * width, (1, kernel), kind, num_colours, gates=2)
        self.out = MaskedConv2d(width, width, (1, 1), "B", num_colours)

    def forward(self, vertical: Tensor, horizontal: Tensor) -> tuple[Tensor, Tensor]:
        above = self.vertical(F.pad(vertical, self.reach))[:, :, : vertical.shape[2]]
        row = self.out(gate(self.horizontal(horizontal) + self.link(above)))
        return gate(above), row if self.first else horizontal + row


class RowLstm(nn.Module):
    """A layer of the Row LSTM: n×2h×H×W -> the same shape (van den Oord et al. 2016a, §3.1).

        [o, f, i, g] = K_ss ⊛ h_above + K_is ⊛ x,  c = σ(f) c_above + σ(i) tanh(g),
        h = σ(o) tanh(c)                                                            (eq. 3)

    Both kernels are 1×k. The state of a row is computed at once from that of the row above, so
    its context is a triangle that widens upwards; the input-to-state kernel has mask B.
    """

    def __init__(self, hidden: int, kernel: int, num_colours: int) -> None:
        super().__init__()
        self.hidden = hidden
        row = (1, kernel)
        self.input_to_state = MaskedConv2d(2 * hidden, 4 * hidden, row, "B", num_colours, gates=4)
        self.state_to_state = nn.Conv2d(
            hidden, 4 * hidden, row, padding=(0, kernel // 2), bias=False
        )
        self.up = MaskedConv2d(hidden, 2 * hidden, (1, 1), "B", num_colours)

    def forward(self, features: Tensor) -> Tensor:
        n, _, _, width = features.shape
        state = cell = features.new_zeros(n, self.hidden, 1, width)
        states = []
        for given in self.input_to_state(features).split(1, 2):
            o, f, i, g = (given + self.state_to_state(state)).chunk(4, 1)
            cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
            state = torch.sigmoid(o) * torch.tanh(cell)
            states.append(state)
        return features + self.up(torch.cat(states, 2))


class PixelSoftmax(nn.Module):
    """Two 1×1 layers with ReLU, then logits of every colour: n×f×H×W -> n×c×levels×H×W.

    (van den Oord et al. 2016a, table 1.) Logits are float32 under autocast too: a likelihood sums
    many of their differences.
    """

    def __init__(self, features: int, width: int, num_colours: int, levels: int) -> None:
        super().__init__()
        self.shape = (num_colours, levels)
        self.hidden = MaskedConv2d(features, width, (1, 1), "B", num_colours)
        self.logits = MaskedConv2d(width, num_colours * levels, (1, 1), "B", num_colours)

    def forward(self, features: Tensor) -> Tensor:
        hidden = F.relu(self.hidden(F.relu(features)))
        with torch.autocast(hidden.device.type, enabled=False):
            return self.logits(hidden.float()).unflatten(1, self.shape)
