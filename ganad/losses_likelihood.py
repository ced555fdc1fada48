"""Pure functions of the likelihood models: x is an image, q its quantised values, p the model."""

from __future__ import annotations

import io
import math

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor


def quantise(x: Tensor, levels: int) -> Tensor:
    """[-1, 1] of 8-bit pixels -> int64 in 0..levels-1: q = ⌊byte · levels / 256⌋."""
    byte = torch.round((x.float() + 1.0) * 127.5).long().clamp(0, 255)
    return byte * levels // 256


def dequantise(q: Tensor, levels: int) -> Tensor:
    """0..levels-1 -> [-1, 1]: 2q / (levels − 1) − 1; with 256 levels the pixel unchanged."""
    return q.float() * (2.0 / (levels - 1)) - 1.0


def bits(logits: Tensor, q: Tensor) -> Tensor:
    """−log₂ p(q_i | q_<i) of every value: logits n×c×levels×h×w, q n×c×h×w -> n×c×h×w.

    (van den Oord et al. 2016a, eq. 1 and 2: the joint is the product of these conditionals.)
    """
    return F.cross_entropy(logits.float().transpose(1, 2), q, reduction="none") / math.log(2)


def expectation(logits: Tensor) -> Tensor:
    """E[x_i | x_<i] = Σ_k p(k) · (2k / (levels − 1) − 1): n×c×levels×h×w -> n×c×h×w."""
    levels = logits.shape[2]
    values = dequantise(torch.arange(levels, device=logits.device), levels)
    return torch.einsum("nclhw,l->nchw", logits.float().softmax(2), values)


def compressed_bits(q: np.ndarray) -> np.ndarray:
    """L(x) of S(x) = −log₂ p(x) − L(x), in bits per value (Serrà et al. 2020, eq. 1).

    q: uint8 (n, c, h, w), c 1 or 3 -> float64 (n,): the length as a PNG file.
    """
    lengths = []
    for image in q:
        file = io.BytesIO()
        picture = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
        Image.fromarray(np.ascontiguousarray(picture)).save(file, "PNG", optimize=True)
        lengths.append(8 * file.tell() / image.size)
    return np.array(lengths, np.float64)
