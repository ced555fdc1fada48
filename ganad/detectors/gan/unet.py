"""The U-Net of pix2pix (Isola et al. 2017), as Skip-GANomaly uses it: 4×4 kernels down to 1×1."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganad.networks.dcgan import LEAK


class UNet(nn.Module):
    """Images n×channels×S×S in [-1, 1] -> the same shape and range; S is a power of two.

    Level i halves the side to S/2^(i+1) and has width·min(2^i, 8) channels; the last one is 1×1.
    Every level but the last sends its output across to the way up, except the outermost
    `dropped_skips` of them.
    """

    def __init__(self, image_size: int, channels: int, width: int, dropped_skips: int = 0) -> None:
        super().__init__()
        last = image_size.bit_length() - 2
        assert image_size == 2 ** (last + 1), "not a power of two"
        assert 0 <= dropped_skips <= last, "more skips dropped than there are"
        self.dropped_skips = dropped_skips
        down: list[nn.Module] = []
        up: list[nn.Module] = []
        before = channels
        for level in range(last + 1):
            wide = width * min(2**level, 8)
            smaller = nn.Conv2d(before, wide, 4, 2, 1, bias=False)
            between = 0 < level < last
            down.append(nn.Sequential(smaller, nn.BatchNorm2d(wide)) if between else smaller)
            joined = 2 * wide if dropped_skips <= level < last else wide
            larger = nn.ConvTranspose2d(joined, before, 4, 2, 1, bias=level == 0)
            up.append(nn.Sequential(larger, nn.BatchNorm2d(before)) if level else larger)
            before = wide
        self.down, self.up = nn.ModuleList(down), nn.ModuleList(up)

    def forward(self, images: Tensor) -> Tensor:
        skips: list[Tensor] = []
        hidden = images
        for down in self.down[:-1]:
            # What crosses over is the activated tensor: in the authors' code the next level's
            # in-place LeakyReLU has changed it before it is concatenated.
            hidden = F.leaky_relu(down(hidden), LEAK)
            skips.append(hidden)
        hidden = self.down[-1](hidden)
        for level in reversed(range(len(self.up))):
            if self.dropped_skips <= level < len(skips):
                hidden = torch.cat([skips[level], hidden], 1)
            hidden = self.up[level](F.relu(hidden))
        return torch.tanh(hidden)
