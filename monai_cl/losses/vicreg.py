"""Variance, invariance and covariance of two views, without negatives."""

import torch
import torch.nn.functional as F
from torch import Tensor

from monai_cl.losses._checks import require_finite, require_positive, require_shape
from monai_cl.losses._gather import find_ranks, gather_rows
from monai_cl.losses._plain import PlainLoss
from monai_cl.losses._rows import fixed_precision, require_rows


class VICRegLoss(PlainLoss):
    r"""Variance, invariance and covariance.

    With :math:`C` the covariance (divisor B - 1) of the rows of a view and :math:`D` their length,

    .. math::
        L = \frac{\lambda}{BD} \sum_{b,d} (z_1 - z_2)_{bd}^2 + \sum_{v=1,2} \left[
            \frac{\mu}{2D} \sum_d \max(0, \gamma - \sqrt{C_{dd} + \epsilon})
            + \frac{\nu}{D} \sum_{d \ne e} C_{de}^2\right]

    Rows are not normalised.

    Args:
        invariance_weight: :math:`\lambda`.
        variance_weight: :math:`\mu`.
        covariance_weight: :math:`\nu`.
        target: :math:`\gamma`, the standard deviation that a dimension should have.
        epsilon: Added to variances.
        gather: Statistics over the rows of all processes, with gradients.

    Shapes:
        ``z1``, ``z2`` (B, D), at least two rows over all processes.

    Raises:
        ValueError: If shapes disagree, fewer than two rows are given, or a weight is negative.
        NonFiniteError: If an embedding is NaN or infinite.

    References:
        VICReg, arXiv 2105.04906; the halved variance is from its experiments' weights of 25, 25 and 1.

    Example:
        >>> z = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])  # alike, varied, uncorrelated
        >>> VICRegLoss()(z, z)
        tensor(0.)
    """

    def __init__(
        self,
        invariance_weight: float = 25.0,
        variance_weight: float = 25.0,
        covariance_weight: float = 1.0,
        *,
        target: float = 1.0,
        epsilon: float = 1e-4,
        gather: bool = False,
    ) -> None:
        super().__init__()
        weights = {"invariance": invariance_weight, "variance": variance_weight, "covariance": covariance_weight}
        for name, weight in weights.items():
            if not weight >= 0:
                raise ValueError(f"{name}_weight must be at least 0, got {weight!r}")
        require_positive(target=target, epsilon=epsilon)
        self.invariance_weight = invariance_weight
        self.variance_weight = variance_weight
        self.covariance_weight = covariance_weight
        self.target = target
        self.epsilon = epsilon
        self.gather = gather

    def forward(self, z1: Tensor, z2: Tensor) -> Tensor:
        """Compute the loss of rows that belong together, (B, D) twice."""
        require_rows(z1=z1)
        require_shape("z2", z2, tuple(z1.shape))
        require_finite(z1=z1, z2=z2)
        with fixed_precision(z1):
            ranks = find_ranks(z1, gather=self.gather)
            if sum(ranks.counts) < 2:
                raise ValueError(f"variances need at least two rows, got {sum(ranks.counts)}; use a larger batch")
            both = torch.stack([z1, z2], dim=1)
            both = gather_rows(both if both.dtype == torch.float64 else both.float(), ranks)
            invariance = F.mse_loss(both[:, 0], both[:, 1])
            centred = (both - both.mean(dim=0)).transpose(0, 1)  # (2, B, D)
            covariance = centred.mT @ centred / (centred.shape[1] - 1)
            variances = covariance.diagonal(dim1=1, dim2=2)
            spread = F.relu(self.target - (variances + self.epsilon).sqrt()).mean()
            mixed = (covariance.square().sum() - variances.square().sum()) / centred.shape[2]
            return self.invariance_weight * invariance + self.variance_weight * spread + self.covariance_weight * mixed
