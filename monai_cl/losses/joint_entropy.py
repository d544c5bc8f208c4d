"""Independence of two spaces: their joint entropy, estimated by a kernel, is to be large."""

import math

import torch
from torch import Tensor

from monai_cl.losses._checks import require_finite, require_positive
from monai_cl.losses._gather import find_ranks, gather_rows
from monai_cl.losses._pair_potential import log_potential_sums
from monai_cl.losses._plain import PlainLoss
from monai_cl.losses._rows import fixed_precision, require_rows, unit_rows


class KernelJointEntropyLoss(PlainLoss):
    r"""Negative joint entropy of a common and a salient space, by Gaussian kernels.

    .. math::
        L = \frac{1}{N} \sum_i \log \frac{1}{N} \sum_j
            e^{-\lVert c_i - c_j \rVert^2 / (2\tau)} \, e^{-\lVert s_i - s_j \rVert^2 / (2\tau)}

    over all j, i itself included. Since :math:`I(c; s) = H(c) + H(s) - H(c, s)`, a larger joint entropy at given
    entropies of the spaces is less mutual information. 0 when all rows are one point, at least
    :math:`-\log N`.

    Args:
        temperature: The bandwidth :math:`\tau`.
        gather: Take the rows of all processes, with gradients.

    Shapes:
        ``c`` (N, C), brought to unit length here; ``s`` (N, S), taken as it is.

    Raises:
        ValueError: If shapes disagree, no rows are given, or the temperature is not positive.
        NonFiniteError: If an embedding is NaN or infinite.

    References:
        Separating common from salient patterns with contrastive representation learning (SepCLR), arXiv 2402.11928.

    Example:
        >>> loss = KernelJointEntropyLoss()
        >>> loss(torch.ones(4, 2), torch.zeros(4, 2)).abs().item()
        0.0
        >>> bool(loss(torch.eye(4), 9 * torch.eye(4)) < -1.3)  # log 4 = 1.386
        True
    """

    def __init__(self, temperature: float = 0.5, gather: bool = False) -> None:
        super().__init__()
        require_positive(temperature=temperature)
        self.temperature = temperature
        self.gather = gather

    def forward(self, c: Tensor, s: Tensor) -> Tensor:
        """Compute the loss of common rows (N, C) and salient rows (N, S) of the same images."""
        require_rows(c=c, s=s)
        if len(c) != len(s) or not len(c):
            raise ValueError(f"c and s must have as many rows, at least one, got {len(c)} and {len(s)}")
        require_finite(c=c, s=s)
        with fixed_precision(c):
            both = torch.cat([unit_rows(c), s.to(torch.promote_types(s.dtype, torch.float32))], dim=1)
            return negative_entropy(gather_rows(both, find_ranks(both, gather=self.gather)), self.temperature)


def negative_entropy(rows: Tensor, temperature: float) -> Tensor:
    """Mean over rows of the log of the mean potential, the row itself included, 0-dim.

    A product of Gaussian kernels of two spaces is the kernel of their rows side by side.
    """
    return log_potential_sums(rows, temperature=temperature, itself=True).mean() - math.log(len(rows))
