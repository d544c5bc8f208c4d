"""Contrast around the centre of the features of normal images."""

import torch
from torch import Tensor

from monai_cl.losses._checks import require_finite, require_shape
from monai_cl.losses._gather import find_ranks, gather_rows
from monai_cl.losses._plain import PlainLoss
from monai_cl.losses._rows import fixed_precision, require_rows, unit_rows
from monai_cl.losses.nt_xent import NTXentLoss


class MeanShiftedContrastiveLoss(PlainLoss):
    r"""NT-Xent of the directions in which features lie from their centre, to learn anomalies from normal images alone.

    With unit features :math:`\varphi = x / \lVert x \rVert` of two views of each image and their centre :math:`c`, the
    mean of :math:`\varphi` over the training images by the network as it was pretrained,

    .. math::
        L = \operatorname{NTXent}_\tau(\theta_1, \theta_2) \; \big[+ \operatorname{mean} \lVert \varphi_1 - c \rVert^2
            + \operatorname{mean} \lVert \varphi_2 - c \rVert^2\big], \qquad
            \theta = \frac{\varphi - c}{\lVert \varphi - c \rVert}

    the bracket with ``angular=True`` alone, in which :math:`c` is brought to unit length first. Features of a
    pretrained network lie in a narrow cone, where plain NT-Xent pushes normal images away from the centre. The score of
    an image is computed from :math:`\varphi`, not from :math:`\theta`.

    Args:
        center: :math:`c`, (D,): ``torch.nn.functional.normalize(features).mean(0)``. A buffer, saved with the loss.
        temperature: :math:`\tau`.
        gather: Take the rows of all processes, with gradients.
        angular: Hold features near the centre as well.

    Shapes:
        ``z1``, ``z2`` (B, D), features of the network, as they are.

    Raises:
        ValueError: If shapes disagree or the temperature is not positive.
        NonFiniteError: If a feature or the centre is NaN or infinite.

    References:
        Mean-shifted contrastive loss for anomaly detection, arXiv 2106.03844.

    Example:
        >>> z = torch.eye(3)
        >>> shifted, plain = MeanShiftedContrastiveLoss(torch.zeros(3)), NTXentLoss(temperature=0.25)
        >>> torch.equal(shifted(z, z), plain(z, z))
        True
    """

    center: Tensor

    def __init__(
        self, center: Tensor, temperature: float = 0.25, gather: bool = False, *, angular: bool = False
    ) -> None:
        super().__init__()
        center = torch.as_tensor(center).detach()
        if center.ndim != 1 or not center.is_floating_point():
            raise ValueError(f"center must be one feature vector (D,), got {center.dtype} {tuple(center.shape)}")
        require_finite(center=center)
        center = center.to(torch.promote_types(center.dtype, torch.float32)).clone()
        self.register_buffer("center", unit_rows(center) if angular else center)
        self.contrast = NTXentLoss(temperature, gather)
        self.gather = gather
        self.angular = angular

    def forward(self, z1: Tensor, z2: Tensor) -> Tensor:
        """Compute the loss of features that belong together, (B, D) twice."""
        require_rows(z1=z1)
        require_shape("z2", z2, tuple(z1.shape))
        require_shape("center", self.center, tuple(z1.shape[1:]))
        require_finite(z1=z1, z2=z2)
        with fixed_precision(z1):
            both = torch.stack([unit_rows(z1), unit_rows(z2)], dim=1)
            shifted = both - self.center.to(both)
            loss: Tensor = self.contrast(*shifted.unbind(1))
            if not self.angular:
                return loss
            every = gather_rows(shifted, find_ranks(shifted, gather=self.gather))
            return loss + every.square().sum(-1).mean(0).sum()  # mean over images, sum of both views
