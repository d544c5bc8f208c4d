r"""Polynomials on the unit interval with fewer terms: a long echo train in the time of a short one.

With $x = 2 y - 1$ and Chebyshev polynomials $T_n$, each of which stays within 1 on the interval,

$$y^j = 4^{-j} \Bigl[ \tbinom{2j}{j} + 2 \sum_{n=1}^{j} \tbinom{2j}{j-n} T_n(x) \Bigr],$$

so a sum of powers is a series whose last terms may be left out at the cost of no more than their coefficients. What is
kept is written in powers of $x$, whose coefficients stay small enough for float32; those of $y$ would not.
"""

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

TOLERANCE = 1e-5  # of what the polynomial is a share of, here the magnetisation in equilibrium


def shortened(coefficients: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Coefficients of a polynomial in x = 2 y - 1 that stays within ``TOLERANCE`` of another one in y.

    Args:
        coefficients: Those of the polynomial in y from the constant term up, float64, each of the shape of a batch.

    Returns:
        Those of the polynomial in x from the constant term up; for a batch as many as its longest polynomial needs.
    """
    powers = torch.stack(tuple(coefficients), -1)
    series = powers @ _series_of_powers(powers.shape[-1]).to(powers.device)
    left_out = series.detach().abs().flip(-1).cumsum(-1).flip(-1)  # at place n: error without the terms from n on
    kept = max(int((left_out > TOLERANCE).sum(-1).max()), 1)
    return tuple((series[..., :kept] @ _powers_of_series(kept).to(powers.device)).unbind(-1))


@functools.lru_cache(maxsize=64)
def _series_of_powers(length: int) -> Tensor:
    """Coefficient of T_n in y^j, row j and column n."""
    rows = [
        [(2 if n else 1) * math.comb(2 * j, j - n) / 4**j if n <= j else 0.0 for n in range(length)]
        for j in range(length)
    ]
    return torch.tensor(rows, dtype=torch.float64)


@functools.lru_cache(maxsize=64)
def _powers_of_series(length: int) -> Tensor:
    """Coefficient of x^j in T_n, row n and column j."""
    rows = torch.eye(length, dtype=torch.float64)
    for n in range(2, length):
        rows[n] = 2 * rows[n - 1].roll(1) - rows[n - 2]
    return rows
