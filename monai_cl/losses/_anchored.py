"""Base of contrastive losses over anchors: their options, and the reduction of costs to one value."""

import warnings

import torch
from torch import Tensor

from monai_cl.losses._checks import require_positive
from monai_cl.losses._directed import Costs
from monai_cl.losses._gather import Ranks, sum_over
from monai_cl.losses._plain import PlainLoss

REDUCTIONS = ("mean", "sum", "none")


class AnchoredLoss(PlainLoss):
    """A loss that is a mean over anchors, or over ordered pairs of anchor and positive.

    Attributes:
        skipped: Number of anchors of this process that the last call left out, since they had no positives or nothing
            to be contrasted with; a 0-dim tensor. None before the first call. They count in no mean: an anchor without
            negatives costs 0, and the mean would fall with the number of such anchors.
    """

    skipped: Tensor | None

    def __init__(self, temperature: float, *, gather: bool = False, reduction: str = "mean") -> None:
        super().__init__()
        require_positive(temperature=temperature)
        require_choice("reduction", reduction, REDUCTIONS)
        self.temperature = temperature
        self.gather = gather
        self.reduction = reduction
        self.skipped = None

    def extra_repr(self) -> str:
        """Temperature and whether keys come from all processes."""
        return f"temperature={self.temperature}, gather={self.gather}"

    def reduce(self, costs: Costs, ranks: Ranks, *, per_anchor: bool = False) -> Tensor:
        """Make one value of costs of any shape.

        Over several processes each has the value of all, and a gradient that is exact once averaged over processes.

        Args:
            costs: Sums over the positives of each anchor.
            ranks: Who takes part.
            per_anchor: Mean over the positives of an anchor first, then over anchors; else over ordered pairs.
        """
        kept = costs.weight > 0
        self.skipped = (~kept).sum().detach()
        each = torch.where(kept, costs.cost / costs.weight.where(kept, torch.ones_like(costs.weight)), 0.0)
        if self.reduction == "none":
            return each
        local = each.sum() if per_anchor else costs.cost.sum()
        number = kept.sum().to(local.dtype) if per_anchor else costs.weight.sum()
        total, number = sum_over(torch.stack([local, number]), ranks).unbind()
        if not bool(number > 0):
            warnings.warn(
                "no anchor of this batch has both a positive and a negative: the loss is zero; "
                "look at the labels, partitions or volumes that are drawn together",
                stacklevel=3,
            )
            return local * 0.0
        divisor = number if self.reduction == "mean" else torch.ones_like(number)
        loss = local * (ranks.world / divisor)
        # the value of all processes, the gradient of this one
        return loss if ranks.world == 1 else loss + (total / divisor - loss).detach()


def require_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise ``ValueError`` unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {choices}, got {value!r}")
