"""Contrast by kernels other than the Gaussian one that NT-Xent amounts to."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from monai_cl.losses._anchored import AnchoredLoss
from monai_cl.losses._checks import require_finite, require_shape
from monai_cl.losses._directed import Costs, log_sum
from monai_cl.losses._gather import find_ranks, gather_rows
from monai_cl.losses._rows import fixed_precision, require_rows, unit_rows

Kernel = Callable[[Tensor], Tensor]  # distances of unit rows, in [0, 2], to the logarithm of a kernel
KERNELS = ("gaussian", "laplacian", "sum")


class KernelInfoNCELoss(AnchoredLoss):
    r"""Contrast of two views of each image against the batch, by a kernel of the distance between unit rows.

    With the :math:`2B` unit rows :math:`z` of both views, their distances :math:`d` and :math:`p(a)` the other view of
    the image of row :math:`a`,

    .. math::
        L = -\frac{1}{2B} \sum_a \log \frac{k(d_{a\,p(a)})}{\sum_{k \ne a} k(d_{ak})}

    ======================= ==================================================================
    ``kernel``              :math:`k(d)`
    ======================= ==================================================================
    ``"gaussian"``          :math:`e^{-d^2 / (2\tau)}`: the value of :class:`NTXentLoss`
    ``"laplacian"``         :math:`e^{-d / \tau}`
    ``"sum"``               :math:`m\,e^{-d^2 / (2\tau)} + (1 - m)\,e^{-d / \tau}`
    ======================= ==================================================================

    A function from distances to :math:`\log k` is taken as well. The mixing constants of the paper could not be
    checked: :math:`m` is a setting to be tried.

    Args:
        kernel: A name of the table, or a function of distances (A, K) that returns logarithms, elementwise.
        temperature: :math:`\tau` of the kernels of the table.
        gather: Take the negatives of all processes, with gradients; the value is then that of all processes.
        mixture: :math:`m`, the share of the Gaussian in ``"sum"``, between 0 and 1.
        reduction: ``"mean"``; ``"sum"`` over rows; or ``"none"``, one value a row, first views first.

    Shapes:
        ``z1``, ``z2`` (B, D), half precision or more; the result is float32 (float64 for float64).

    Raises:
        ValueError: If shapes disagree, the kernel is unknown, or an option is out of range.
        NonFiniteError: If an embedding is NaN or infinite.

    References:
        Contrastive learning is spectral clustering on similarity graph, arXiv 2303.15103.

    Example:
        >>> KernelInfoNCELoss("laplacian", temperature=1.0)(torch.ones(4, 8), torch.ones(4, 8))  # log(2B - 1)
        tensor(1.9459)
        >>> steep = KernelInfoNCELoss(lambda d: -d.pow(4))
        >>> bool(steep(torch.eye(4), torch.eye(4)) < steep(torch.eye(4), torch.eye(4).roll(1, 0)))
        True
    """

    def __init__(
        self,
        kernel: str | Kernel = "gaussian",
        temperature: float = 0.1,
        gather: bool = False,
        *,
        mixture: float = 0.5,
        reduction: str = "mean",
    ) -> None:
        super().__init__(temperature, gather=gather, reduction=reduction)
        if not callable(kernel) and kernel not in KERNELS:
            raise ValueError(f"kernel must be a function or one of {KERNELS}, got {kernel!r}")
        if not 0 < mixture < 1:
            raise ValueError(f"mixture must be between 0 and 1, got {mixture!r}; name one kernel instead of a sum")
        self.kernel = kernel
        self.mixture = mixture

    def forward(self, z1: Tensor, z2: Tensor) -> Tensor:
        """Compute the loss of rows that belong together, (B, D) twice."""
        require_rows(z1=z1)
        require_shape("z2", z2, tuple(z1.shape))
        require_finite(z1=z1, z2=z2)
        with fixed_precision(z1):
            both = torch.stack([unit_rows(z1), unit_rows(z2)], dim=1)
            ranks = find_ranks(both, gather=self.gather)
            keys = gather_rows(both, ranks).flatten(0, 1)  # views of an image side by side
            rows = both.transpose(0, 1).flatten(0, 1)  # first views first
            image = ranks.start + torch.arange(len(both), device=keys.device)
            itself, partner = torch.cat([2 * image, 2 * image + 1]), torch.cat([2 * image + 1, 2 * image])
            logs = self._log_kernel(rows, keys)
            others = itself[:, None] != torch.arange(len(keys), device=keys.device)
            costs = log_sum(logs, others) - logs.gather(1, partner[:, None])[:, 0]
            return self.reduce(Costs(costs, torch.ones_like(costs)), ranks)

    def _log_kernel(self, rows: Tensor, keys: Tensor) -> Tensor:
        if self.kernel == "gaussian":
            return (rows @ keys.mT - 1) / self.temperature
        # exact for near rows, and without gradient between equal ones, where a root has none
        distance = torch.cdist(rows, keys, compute_mode="donot_use_mm_for_euclid_dist")
        if callable(self.kernel):
            return self.kernel(distance)
        laplacian = -distance / self.temperature
        if self.kernel == "laplacian":
            return laplacian
        gaussian = distance.square() / (-2 * self.temperature)
        return torch.logaddexp(gaussian + math.log(self.mixture), laplacian + math.log1p(-self.mixture))
