"""Rows of the same label together, all others apart; and the same with a position in place of a label."""

from collections.abc import Callable

import torch
from torch import Tensor

from monai_cl.losses._anchored import AnchoredLoss, require_choice
from monai_cl.losses._checks import require_finite, require_positive, require_shape
from monai_cl.losses._directed import Pairs, contrast
from monai_cl.losses._gather import find_ranks, gather_rows
from monai_cl.losses._rows import fixed_precision, require_rows, unit_rows

Same = Callable[[Tensor, Tensor], Tensor]  # marks of anchors (A, 1) and of keys (K,) to (A, K)


class _MarkedLoss(AnchoredLoss):
    """Rows with a mark each: which are positives follows from two marks."""

    def _contrast(self, z: Tensor, mark: Tensor, same: Same, *, far: bool) -> Tensor:
        with fixed_precision(z):
            ranks, z = find_ranks(z, gather=self.gather), unit_rows(z)
            keys, mark_of_key = gather_rows(z, ranks), gather_rows(mark, ranks)
            number = torch.arange(len(keys), device=z.device)

            def pairs(rows: Tensor) -> Pairs:
                itself = number == (ranks.start + rows)[:, None]
                alike = same(mark[rows, None], mark_of_key)
                return Pairs(alike & ~itself, ~(alike | itself) if far else ~itself)

            costs = contrast(z, keys, pairs, temperature=self.temperature, softplus=far)
            return self.reduce(costs, ranks, per_anchor=True)


class SupConLoss(_MarkedLoss):
    r"""Supervised contrast: rows of the same label are positives, all other rows negatives.

    With :math:`P(a)` the other rows of the label of :math:`a`, over the rows that have any,

    .. math::
        L = \operatorname{mean}_a \frac{1}{|P(a)|} \sum_{p \in P(a)}
            \left[\log \sum_{k \ne a} e^{s_{ak}} - s_{ap}\right]

    Rows that are alone with their label are skipped as anchors and counted in ``skipped``.

    With ``relu`` rows lose their negative parts before they are brought to unit length. Classes then come to lie at
    right angles, whatever their sizes: for :math:`n` rows in classes of :math:`n_c`, the least sum over anchors is
    :math:`\sum_c n_c \log(n_c - 1 + (n - n_c) e^{-1/\tau})`.

    Args:
        temperature: Divisor of the cosine similarities.
        gather: Take positives and negatives from all processes, with gradients; labels are then those of all.
        reduction: ``"mean"``; ``"sum"`` over anchors; or ``"none"``, one value a row, 0 for a skipped one.
        relu: Take the positive part of the rows, for classes of unequal size.

    Shapes:
        ``z`` (N, D); ``labels`` (N,) integers.

    Raises:
        ValueError: If shapes disagree, the temperature is not positive, or the reduction is unknown.
        NonFiniteError: If an embedding is NaN or infinite.

    References:
        Supervised contrastive learning, arXiv 2004.11362 (the sum outside of the logarithm); with ``relu``:
        symmetric neural-collapse representations with supervised contrastive loss, arXiv 2306.07960.

    Example:
        >>> loss = SupConLoss()
        >>> bool(loss(torch.eye(3)[[0, 0, 1, 1, 2]], torch.tensor([0, 0, 1, 1, 2])) < 1e-3)
        True
        >>> int(loss.skipped)
        1
    """

    def __init__(
        self, temperature: float = 0.1, gather: bool = False, *, reduction: str = "mean", relu: bool = False
    ) -> None:
        super().__init__(temperature, gather=gather, reduction=reduction)
        self.relu = relu

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """Compute the loss of rows (N, D) with labels (N,)."""
        require_rows(z=z)
        require_shape("labels", labels, (len(z),))
        require_finite(z=z)
        return self._contrast(z.relu() if self.relu else z, labels, torch.eq, far=False)


class PositionalContrastiveLoss(_MarkedLoss):
    r"""Rows from about the same position along the body are positives, whoever they come from.

    Positives of :math:`a` are :math:`P(a) = \{p \ne a : |x_p - x_a| < \delta\}`; the value is that of
    :class:`SupConLoss`, with all other rows in the denominator. ``denominator="far"`` holds only what is farther in
    it, and the positive itself: positives then do not push each other away. A row that has nothing farther is skipped
    as an anchor, as one without positives is: neither counts in the mean.

    Args:
        threshold: The distance :math:`\delta`, as a share of the whole length.
        temperature: Divisor of the cosine similarities.
        gather: Take positives and negatives from all processes, with gradients.
        denominator: ``"all"``, as published, or ``"far"``.
        reduction: As of :class:`SupConLoss`.

    Shapes:
        ``z`` (N, D); ``position`` (N,) in [0, 1].

    Raises:
        ValueError: If shapes disagree, a position is outside of [0, 1], or an option is out of range.
        NonFiniteError: If an embedding or a position is NaN or infinite.

    References:
        Positional contrastive learning, arXiv 2106.09157 (its code multiplies by temperature / 0.07, which is not
        done here).

    Example:
        >>> z, position = torch.eye(2)[[0, 0, 1, 1]], torch.tensor([0.1, 0.15, 0.8, 0.85])
        >>> bool(PositionalContrastiveLoss()(z, position) < 1e-3)
        True
    """

    def __init__(
        self,
        threshold: float = 0.1,
        temperature: float = 0.1,
        gather: bool = False,
        *,
        denominator: str = "all",
        reduction: str = "mean",
    ) -> None:
        super().__init__(temperature, gather=gather, reduction=reduction)
        require_positive(threshold=threshold)
        require_choice("denominator", denominator, ("all", "far"))
        self.threshold = threshold
        self.denominator = denominator

    def forward(self, z: Tensor, position: Tensor) -> Tensor:
        """Compute the loss of rows (N, D) at positions (N,)."""
        require_rows(z=z)
        require_shape("position", position, (len(z),))
        require_finite(z=z, position=position)
        if bool(((position < 0) | (position > 1)).any()):
            low, high = position.min().item(), position.max().item()
            raise ValueError(f"position must be in [0, 1], got values from {low:.4g} to {high:.4g}")
        place = position.detach().to(torch.float64 if position.device.type != "mps" else torch.float32)
        return self._contrast(
            z, place, lambda mine, theirs: (mine - theirs).abs() < self.threshold, far=self.denominator == "far"
        )
