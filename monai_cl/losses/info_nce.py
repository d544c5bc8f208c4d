"""Contrast of two views of each image with the same views of all other images, both ways."""

import torch
from torch import Tensor

from monai_cl.losses._anchored import AnchoredLoss
from monai_cl.losses._checks import require_finite, require_shape
from monai_cl.losses._directed import Costs
from monai_cl.losses._gather import find_ranks, gather_rows
from monai_cl.losses._rows import fixed_precision, require_rows, unit_rows


class SymmetricInfoNCELoss(AnchoredLoss):
    r"""Cross-entropy of finding the other view of an image among those of all images, from either side.

    With unit rows :math:`a_i, b_i` of the two views and :math:`s_{ij} = a_i^\top b_j / \tau`,

    .. math::
        L = \frac{1}{2B} \sum_i \Big[\log \sum_j e^{s_{ij}} + \log \sum_j e^{s_{ji}} - 2 s_{ii}\Big]

    Unlike in :class:`NTXentLoss` the negatives of a row come from the other view alone, not from its own.

    Args:
        temperature: Divisor of the cosine similarities.
        gather: Take the negatives of all processes, with gradients; the value is then that of all processes.
        reduction: ``"mean"``; ``"sum"`` over images; or ``"none"``, one value an image.

    Shapes:
        ``a``, ``b`` (B, D), half precision or more; the result is float32 (float64 for float64).

    Raises:
        ValueError: If shapes disagree, the temperature is not positive, or the reduction is unknown.
        NonFiniteError: If an embedding is NaN or infinite.

    References:
        CPC, arXiv 1807.03748; both ways: CLIP, arXiv 2103.00020; of two sequences: BrainMVP, arXiv 2410.10604, at
        temperature 1.

    Example:
        >>> SymmetricInfoNCELoss()(torch.ones(4, 8), torch.ones(4, 8))  # log(B)
        tensor(1.3863)
    """

    def __init__(self, temperature: float = 1.0, gather: bool = False, *, reduction: str = "mean") -> None:
        super().__init__(temperature, gather=gather, reduction=reduction)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Compute the loss of rows that belong together, (B, D) twice."""
        require_rows(a=a)
        require_shape("b", b, tuple(a.shape))
        require_finite(a=a, b=b)
        with fixed_precision(a):
            ranks = find_ranks(a, gather=self.gather)
            mine = unit_rows(a), unit_rows(b)
            every = [gather_rows(rows, ranks) for rows in mine]
            own = ranks.start + torch.arange(len(a), device=a.device)
            costs = torch.stack([self._found(mine[0], every[1], own), self._found(mine[1], every[0], own)])
            return self.reduce(Costs(costs.mean(0), torch.ones_like(costs[0])), ranks)

    def _found(self, rows: Tensor, keys: Tensor, own: Tensor) -> Tensor:
        """Cost of each row: its key among all."""
        similarity = rows @ keys.T / self._divisor()
        return similarity.logsumexp(1) - similarity.gather(1, own[:, None])[:, 0]

    def _divisor(self) -> float | Tensor:
        """Temperature of the similarities."""
        return self.temperature
