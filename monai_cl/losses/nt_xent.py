"""Contrast of two views of each image against the batch, with and without the positive in the denominator."""

import torch
from torch import Tensor

from monai_cl.losses._anchored import AnchoredLoss
from monai_cl.losses._checks import require_finite, require_shape
from monai_cl.losses._directed import Pairs, contrast
from monai_cl.losses._gather import find_ranks, gather_rows
from monai_cl.losses._rows import fixed_precision, require_rows, unit_rows


class NTXentLoss(AnchoredLoss):
    r"""Normalised temperature-scaled cross-entropy (NT-Xent): the other view of an image is its positive.

    With the :math:`2B` rows :math:`z` of both views, :math:`s` their cosines over the temperature and :math:`p(a)` the
    other view of the image of row :math:`a`,

    .. math::
        L = \frac{1}{2B} \sum_a \left[\log \sum_{k \ne a} e^{s_{ak}} - s_{a\,p(a)}\right]

    Args:
        temperature: Divisor of the cosine similarities.
        gather: Take the negatives of all processes, with gradients; the value is then that of all processes.
            Batches may differ in size from process to process.
        reduction: ``"mean"``; ``"sum"`` over rows; or ``"none"``, one value a row, first views first.

    Shapes:
        ``z1``, ``z2`` (B, D), half precision or more; the result is float32 (float64 for float64).

    Raises:
        ValueError: If shapes disagree, the temperature is not positive, or the reduction is unknown.
        NonFiniteError: If an embedding is NaN or infinite.

    References:
        SimCLR, arXiv 2002.05709.

    Example:
        >>> z = torch.eye(3)
        >>> NTXentLoss(temperature=1.0)(torch.ones(4, 8), torch.ones(4, 8))  # log(2B - 1)
        tensor(1.9459)
        >>> bool(NTXentLoss()(z, z) < 1e-3)
        True
    """

    _softplus = True

    def __init__(self, temperature: float = 0.1, gather: bool = False, *, reduction: str = "mean") -> None:
        super().__init__(temperature, gather=gather, reduction=reduction)

    def forward(self, z1: Tensor, z2: Tensor) -> Tensor:
        """Compute the loss of rows that belong together, (B, D) twice."""
        require_rows(z1=z1)
        require_shape("z2", z2, tuple(z1.shape))
        require_finite(z1=z1, z2=z2)
        with fixed_precision(z1):
            images = find_ranks(z1, gather=self.gather)
            ranks, z = images.times(2), torch.cat([unit_rows(z1), unit_rows(z2)])
            image = (images.start + torch.arange(len(z1), device=z.device)).repeat(2)
            keys, image_of_key = gather_rows(z, ranks), gather_rows(image, ranks)
            number = torch.arange(len(keys), device=z.device)

            def pairs(rows: Tensor) -> Pairs:
                itself = number == (ranks.start + rows)[:, None]
                positive = (image_of_key == image[rows, None]) & ~itself
                return Pairs(positive, ~(positive | itself))

            costs = contrast(z, keys, pairs, temperature=self.temperature, softplus=self._softplus)
            return self.reduce(costs, ranks)


class DecoupledContrastiveLoss(NTXentLoss):
    r""":class:`NTXentLoss` without the positive in the denominator, which is less hungry for large batches.

    .. math::
        L = \frac{1}{2B} \sum_a \left[\log \sum_{k \ne a,\,p(a)} e^{s_{ak}} - s_{a\,p(a)}\right]

    The value may be negative. Arguments, shapes and errors are those of :class:`NTXentLoss`.

    References:
        Decoupled contrastive learning, arXiv 2110.06848.

    Example:
        >>> DecoupledContrastiveLoss(temperature=1.0)(torch.ones(4, 8), torch.ones(4, 8))  # log(2B - 2)
        tensor(1.7918)
    """

    _softplus = False
