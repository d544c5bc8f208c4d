"""Alignment of a dimension with an attribute: images of similar values attract each other."""

import torch
from torch import Tensor

from monai_cl.losses._checks import require_finite, require_positive, require_shape
from monai_cl.losses._gather import find_ranks, gather_rows
from monai_cl.losses._plain import PlainLoss
from monai_cl.losses._rows import fixed_precision

DISCRETE = 1e-5  # a temperature under which only equal values count as alike


class AttributeLoss(PlainLoss):
    r"""Alignment of one dimension of a space with an attribute that is known of some images.

    .. math::
        L = \operatorname{mean}_{i<j} e^{-(y_i - y_j)^2 / (2\tau)} (x_i - x_j)^2

    over the images whose attribute is known. It draws together only: what keeps the dimension from shrinking to a
    point is the uniformity of the space beside it.

    Args:
        temperature: :math:`\tau`, in the square of the attribute's unit: 0.025 for one scaled to [0, 1], 1e-5 for one
            with few values, of which equal ones count alone.
        gather: Take the rows of all processes, with gradients.

    Shapes:
        ``x`` (N,), the dimension; ``y`` (N,), the attribute, NaN where it is not known.

    Raises:
        ValueError: If shapes disagree or the temperature is not positive.
        NonFiniteError: If ``x`` is NaN or infinite.

    References:
        The supervised attributes of SepCLR, arXiv 2402.11928.

    Example:
        >>> AttributeLoss(1e-5)(torch.tensor([0.0, 0.0, 5.0]), torch.tensor([1.0, 1.0, 0.0])).item()
        0.0
    """

    def __init__(self, temperature: float = 0.025, gather: bool = False) -> None:
        super().__init__()
        require_positive(temperature=temperature)
        self.temperature = temperature
        self.gather = gather

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Compute the loss of a dimension (N,) and an attribute (N,)."""
        require_shape("x", x, (len(x),))
        require_shape("y", y, (len(x),))
        require_finite(x=x)
        with fixed_precision(x):
            dtype = torch.promote_types(x.dtype, torch.float32)
            both = torch.stack([x.to(dtype), y.to(x.device, dtype)], dim=1)
            both = gather_rows(both, find_ranks(both, gather=self.gather))
            known = both[~both[:, 1].isnan()]
            if len(known) < 2:
                return x.to(dtype).sum() * 0.0
            x, y = known.unbind(1)
            alike = ((y[:, None] - y).square() / (-2 * self.temperature)).exp()  # i = j adds 0
            return (alike * (x[:, None] - x).square()).sum() / (len(x) * (len(x) - 1))
