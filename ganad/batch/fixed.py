"""Batches of one size. Kernels, and with them the last bits of a result, depend on a batch's size:
a tensor that is filled up to a fixed size gives the same values however the images were divided.
"""

from __future__ import annotations

import torch
from torch import Tensor


def fixed(rows: Tensor, size: int) -> tuple[Tensor, int]:
    """Fill rows (n, ...) up to (size, ...) by repeating the last one; 1 <= n <= size.

    Returns the batch and n: only its first n rows, and the results for them, count.
    """
    num = len(rows)
    if not 1 <= num <= size:
        raise ValueError(f"{num} rows do not fit a batch of {size}: give 1 to {size}")
    if num == size:
        return rows, num
    return torch.cat([rows, rows[-1:].expand(size - num, *rows.shape[1:])]), num
