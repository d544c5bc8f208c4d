"""Gaussian potentials between rows in log space, in chunks above a number of rows."""

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from monai_cl.losses._directed import CHUNK, FULL, log_sum


def log_potential_sums(
    rows: Tensor, *, temperature: float, itself: bool, full: int = FULL, chunk: int = CHUNK
) -> Tensor:
    r"""Potential of each row, :math:`\log \sum_j e^{-\lVert x_i - x_j \rVert^2 / (2\tau)}`, (N,).

    No array is larger than ``full``, or ``chunk`` rounded up to whole rows, whatever N is: nothing is (N, N, D).

    Args:
        rows: Rows (N, D) in working precision; at least two without ``itself``.
        temperature: :math:`\tau`.
        itself: Whether the sum holds the row itself, whose potential is 1.
        full: Number of pairs up to which all are held at once.
        chunk: Number of pairs in a chunk; chunks are computed again in the backward pass.
    """
    centred = rows - rows.detach().mean(dim=0)  # distances stay, and their cancellation no longer grows with the mean
    number = torch.arange(len(rows), device=rows.device)

    def part(which: Tensor, mine: Tensor, every: Tensor) -> Tensor:
        squared = mine.square().sum(1, keepdim=True) + every.square().sum(1) - 2 * mine @ every.mT
        own = which[:, None] == number
        squared = squared.clamp_min(0.0).masked_fill(own, 0.0)  # rounding
        return log_sum(squared / (-2 * temperature), ~own | itself)

    if len(rows) ** 2 <= full:
        return part(number, centred, centred)
    size = max(chunk // len(rows), 1)
    parts = [checkpoint(part, which, centred[which], centred, use_reentrant=False) for which in number.split(size)]
    return torch.cat(parts)
