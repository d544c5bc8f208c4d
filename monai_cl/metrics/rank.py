"""Number of directions and dimensions that embeddings use: the signs of dimensional collapse."""

import torch
from torch import Tensor

from monai_cl.losses._checks import require_positive
from monai_cl.metrics._base import BufferedMetric, as_rows, full_precision

ROUNDING = 1e-6  # a spread below this share of the largest value is rounding, not information


@full_precision
def effective_rank(x: Tensor, *, center: bool = False) -> Tensor:
    r"""Number of directions in use: :math:`\exp\left(-\sum_k p_k \log p_k\right)`, :math:`p = \sigma / \sum \sigma`.

    :math:`\sigma` are the singular values of the embeddings. ``k`` equally strong orthogonal directions give ``k``,
    a single one gives 1. It cannot exceed the number of samples: compare values of equal sample counts only.

    Args:
        x: Embeddings, (N, D), at least two, as the network gives them (not normalised here).
        center: Subtract the mean embedding first. A common offset then does not count as a direction.

    Returns:
        0-dim float32 (float64 for float64 inputs), between 1 and min(N, D); 0 where all embeddings are zero, or all
        equal with ``center=True``: no direction at all, and below any threshold an alarm may have.

    Raises:
        ValueError: If fewer than two embeddings are given.
        NonFiniteError: If an embedding holds NaN or infinity.

    References:
        RankMe, arXiv 2210.02885; Roy and Vetterli, "The effective rank", EUSIPCO 2007.

    Example:
        >>> round(effective_rank(7 * torch.eye(4)).item(), 3), round(effective_rank(torch.ones(4, 4)).item(), 2)
        (4.0, 1.0)
    """
    rows = as_rows("x", x, at_least=2)
    rows = rows - rows.mean(0) if center else rows
    sigma: Tensor = torch.linalg.svdvals(rows)
    if not bool(sigma[0] > ROUNDING * x.abs().max()):
        return sigma.sum() * 0
    entropy: Tensor = torch.special.entr(sigma / sigma.sum()).sum()
    return entropy.exp()


@full_precision
def dead_dimensions(x: Tensor, tolerance: float = 0.01) -> Tensor:
    r"""Share of dimensions that hardly vary: :math:`\operatorname{mean}_d [s_d \le \epsilon \max_k s_k]`.

    :math:`s_d` is the standard deviation of dimension ``d`` over the samples. A spread within rounding of the values
    themselves counts as none, so constant embeddings have all dimensions dead. Depends on the axes, unlike the
    effective rank: it finds units that have died.

    Args:
        x: Embeddings, (N, D), at least two.
        tolerance: Spread, relative to the largest, up to which a dimension is dead; between 0 and 1.

    Returns:
        0-dim, between 0 and 1.

    Raises:
        ValueError: If fewer than two embeddings are given or ``tolerance`` is not between 0 and 1.
        NonFiniteError: If an embedding holds NaN or infinity.

    Example:
        >>> dead_dimensions(torch.tensor([[1.0, 5.0], [2.0, 5.0]])).item()
        0.5
    """
    _check_tolerance(tolerance)
    rows = as_rows("x", x, at_least=2)
    spread = rows.std(0)
    floor = torch.maximum(tolerance * spread.max(), ROUNDING * rows.abs().max())
    return (spread <= floor).to(rows.dtype).mean()


class EffectiveRankMetric(BufferedMetric):
    """:func:`effective_rank` over an epoch: call with embeddings (B, D); a second argument is ignored.

    Args:
        center: Subtract the mean embedding first.

    Example:
        >>> metric = EffectiveRankMetric()
        >>> _ = metric(torch.eye(3)[:2]), metric(torch.eye(3)[2:])
        >>> round(metric.aggregate().item(), 3)
        3.0
    """

    def __init__(self, *, center: bool = False) -> None:
        super().__init__()
        self.center = center

    def aggregate(self) -> Tensor:
        """Effective rank of all embeddings, 0-dim."""
        return effective_rank(self.gathered()[0], center=self.center)


class DeadDimensionsMetric(BufferedMetric):
    """:func:`dead_dimensions` over an epoch: call with embeddings (B, D); a second argument is ignored.

    Args:
        tolerance: Spread, relative to the largest, up to which a dimension is dead; between 0 and 1.
    """

    def __init__(self, tolerance: float = 0.01) -> None:
        super().__init__()
        _check_tolerance(tolerance)
        self.tolerance = tolerance

    def aggregate(self) -> Tensor:
        """Share of dead dimensions over all embeddings, 0-dim."""
        return dead_dimensions(self.gathered()[0], self.tolerance)


def _check_tolerance(tolerance: float) -> None:
    require_positive(tolerance=tolerance)
    if tolerance >= 1:
        raise ValueError(f"tolerance must be below 1, the spread of the liveliest dimension, got {tolerance!r}")
