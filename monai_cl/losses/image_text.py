"""Contrast of images with texts that belong to them, with a temperature that is learnt."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monai_cl.losses._anchored import AnchoredLoss
from monai_cl.losses._checks import require_finite, require_positive, require_shape
from monai_cl.losses._directed import Costs
from monai_cl.losses._gather import find_ranks, gather_rows
from monai_cl.losses._rows import fixed_precision, require_rows, unit_rows
from monai_cl.losses.info_nce import SymmetricInfoNCELoss


def _require_pairs(image: Tensor, text: Tensor) -> None:
    require_rows(image=image)
    require_shape("text", text, tuple(image.shape))
    require_finite(image=image, text=text)


class _LogScale(nn.Module):
    """Logarithm of the factor of cosines, bounded from above wherever a step of the optimiser left it."""

    def __init__(self, temperature: float, max_scale: float, *, learnable: bool) -> None:
        super().__init__()
        require_positive(temperature=temperature, max_scale=max_scale)
        if temperature * max_scale < 1 - 1e-6:
            raise ValueError(
                f"temperature must be at least 1 / max_scale = {1 / max_scale:.4g}, got {temperature!r}; "
                "raise max_scale"
            )
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)), requires_grad=learnable)
        self.bound = math.log(max_scale)

    def forward(self) -> Tensor:
        """The factor."""
        with torch.no_grad():
            self.log_scale.clamp_(max=self.bound)  # not in the graph: at the bound a gradient still leads back
        return self.log_scale.exp()


class ClipLoss(SymmetricInfoNCELoss):
    r"""Cross-entropy of finding the text of an image among those of all images, and the image of a text.

    With unit rows :math:`v_i, t_i` of images and texts and :math:`s_{ij} = v_i^\top t_j / \tau`,

    .. math::
        L = \frac{1}{2B} \sum_i \Big[\log \sum_j e^{s_{ij}} + \log \sum_j e^{s_{ji}} - 2 s_{ii}\Big]

    that is :class:`SymmetricInfoNCELoss` whose temperature is learnt: :math:`\tau = e^{-\gamma}` with the parameter
    :math:`\gamma`, and :math:`1/\tau` at most ``max_scale``. Give its parameter to the optimiser, without weight decay.

    Args:
        temperature: The first :math:`\tau`.
        gather: Take the negatives of all processes, with gradients; the value is then that of all processes.
        learnable: False keeps the temperature.
        max_scale: The bound of :math:`1 / \tau`.
        reduction: ``"mean"``; ``"sum"`` over images; or ``"none"``, one value an image.

    Shapes:
        ``image``, ``text`` (B, D), half precision or more; the result is float32 (float64 for float64).

    Raises:
        ValueError: If shapes disagree, the temperature is not positive or below the bound, or the reduction is unknown.
        NonFiniteError: If an embedding is NaN or infinite.

    References:
        CLIP, arXiv 2103.00020.

    Example:
        >>> ClipLoss()(torch.ones(4, 8), torch.ones(4, 8)).item()  # log(B)
        1.386294...
    """

    def __init__(
        self,
        temperature: float = 0.07,
        gather: bool = False,
        *,
        learnable: bool = True,
        max_scale: float = 100.0,
        reduction: str = "mean",
    ) -> None:
        super().__init__(temperature, gather, reduction=reduction)
        self.scale = _LogScale(temperature, max_scale, learnable=learnable)
        self.learnable = learnable  # read off by the record of a run, which passes parameters over

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        """Compute the loss of images and texts that belong together, (B, D) twice."""
        _require_pairs(image, text)
        return super().forward(image, text)

    def _divisor(self) -> float | Tensor:
        factor: Tensor = self.scale()
        return factor.reciprocal()


class SigLipLoss(AnchoredLoss):
    r"""Each pair of an image and a text by itself: do they belong together?

    With unit rows :math:`v_i, t_j` of images and texts, :math:`y_{ij} = 1` where they belong together, else -1,

    .. math::
        L = \operatorname{mean}_{i,j} -\log \sigma\big(y_{ij} (v_i^\top t_j / \tau + b)\big)

    with :math:`\tau = e^{-\gamma}` and :math:`b` learnt. It is a mean over pairs; the sum over pairs and mean over
    images of the paper is B times as large. Give its parameters to the optimiser, without weight decay.

    Args:
        temperature: The first :math:`\tau`.
        bias: The first :math:`b`: most pairs do not belong together.
        gather: Take the texts of all processes, with gradients; the value is then that of all processes.
        learnable: False keeps the temperature and the bias.
        max_scale: The bound of :math:`1 / \tau`.
        reduction: ``"mean"``; ``"sum"`` over pairs; or ``"none"``, the mean over the texts for each image.

    Shapes:
        ``image``, ``text`` (B, D), half precision or more; the result is float32 (float64 for float64).

    Raises:
        ValueError: If shapes disagree, the temperature is not positive or below the bound, or the reduction is unknown.
        NonFiniteError: If an embedding is NaN or infinite.

    References:
        Sigmoid loss for language image pre-training (SigLIP), arXiv 2303.15343.

    Example:
        >>> loss = SigLipLoss(temperature=1.0, bias=-1.0)
        >>> round(loss(torch.ones(2, 4), torch.ones(2, 4)).item(), 4)  # log 2: a cosine of 1 is undecided
        0.6931
    """

    def __init__(
        self,
        temperature: float = 0.1,
        bias: float = -10.0,
        gather: bool = False,
        *,
        learnable: bool = True,
        max_scale: float = 100.0,
        reduction: str = "mean",
    ) -> None:
        super().__init__(temperature, gather=gather, reduction=reduction)
        self.scale = _LogScale(temperature, max_scale, learnable=learnable)
        self.learnable = learnable  # read off by the record of a run, which passes parameters over
        self.first_bias = bias
        self.bias = nn.Parameter(torch.tensor(float(bias)), requires_grad=learnable)

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        """Compute the loss of images and texts that belong together, (B, D) twice."""
        _require_pairs(image, text)
        with fixed_precision(image):
            ranks = find_ranks(image, gather=self.gather)
            texts = gather_rows(unit_rows(text), ranks)
            logits = unit_rows(image) @ texts.mT * self.scale() + self.bias  # (image, text)
            own = ranks.start + torch.arange(len(image), device=image.device)
            together = own[:, None] == torch.arange(len(texts), device=image.device)
            cost = F.softplus(torch.where(together, -logits, logits), threshold=40).sum(1)
            return self.reduce(Costs(cost, torch.full_like(cost, len(texts))), ranks)
