"""The core of every contrast: each anchor with its positives against its others, in log space, in chunks if need be.

With similarities :math:`s` over the temperature, an ordered pair of an anchor ``a`` and a positive ``p`` costs
``softplus(LSE_k s_ak - s_ap)`` where the positive is to be counted with the others k, and ``LSE_k s_ak - s_ap`` where
it is among them already, or is to be left out.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

FULL = 1 << 24  # similarities that are held at once, with their gradients; above it chunks are computed twice
CHUNK = 1 << 22
_FAR = 1e30  # below every similarity


class Pairs(NamedTuple):
    """Candidates that some anchors are compared with.

    Attributes:
        weights: Weight of each key as a positive, 0 for none, (anchors, keys), bool or number.
        others: Whether a key stands in the sum of an anchor, (anchors, keys).
    """

    weights: Tensor
    others: Tensor


class Costs(NamedTuple):
    """Sum over the positives of each anchor, (anchors,).

    Attributes:
        cost: Weighted sum of costs.
        weight: Sum of weights; 0 for an anchor that has no positives or no others.
    """

    cost: Tensor
    weight: Tensor


def contrast(
    anchors: Tensor,
    keys: Tensor,
    pairs: Callable[[Tensor], Pairs],
    *,
    temperature: float,
    softplus: bool,
    full: int = FULL,
    chunk: int = CHUNK,
) -> Costs:
    """Costs of the anchors.

    Args:
        anchors: Rows of unit length, (A, D).
        keys: Rows of unit length, (K, D).
        pairs: From indices of anchors to their :class:`Pairs`; called again in the backward pass when in chunks.
        temperature: Divisor of the similarities.
        softplus: Whether a positive is to be added to the sum over the others.
        full: Number of similarities up to which they are held at once.
        chunk: Number of similarities in a chunk.
    """

    def part(rows: Tensor, anchors: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        return _part(anchors[rows], keys, pairs(rows), temperature=temperature, softplus=softplus)

    index = torch.arange(len(anchors), device=anchors.device)
    if index.numel() * len(keys) <= full:
        return Costs(*part(index, anchors, keys))
    size = max(chunk // len(keys), 1)
    done = [checkpoint(part, rows, anchors, keys, use_reentrant=False) for rows in index.split(size)]
    cost, weight = (torch.cat(column) for column in zip(*done, strict=True))
    return Costs(cost, weight)


def _part(anchors: Tensor, keys: Tensor, pairs: Pairs, *, temperature: float, softplus: bool) -> tuple[Tensor, Tensor]:
    s = (anchors / temperature) @ keys.mT
    total = log_sum(s, pairs.others)
    a, p = pairs.weights.nonzero(as_tuple=True)
    terms = total[a] - s[a, p]
    if softplus:
        terms = added(terms)
    w = pairs.weights[a, p].to(s.dtype) * pairs.others.any(dim=1)[a]
    zero = s.new_zeros(len(anchors))
    return zero.index_add(0, a, terms * w), zero.index_add(0, a, w)


def added(excess: Tensor) -> Tensor:
    """``log(1 + exp(x))``, to the last digit in float64 too: torch's own cuts the logarithm off at 20, 2e-9 early."""
    return F.softplus(excess, threshold=40)


def log_sum(s: Tensor, others: Tensor) -> Tensor:
    """Logarithm of the sum of exponentials over ``others`` in the last dimension; finite also without any.

    The gradient of a row without others is zero.
    """
    total: Tensor = _LogSum.apply(s, others)
    return total


class _LogSum(Function):
    """The sum, whose exponentials are kept for the gradient instead of being computed twice.

    Entries are left out by a product after the exponential, not by a fill before it: on a CPU the exponential of a very
    small number takes ten times as long, and a fill at scattered places as long as all the rest.
    """

    @staticmethod
    def forward(ctx: Any, s: Tensor, others: Tensor) -> Tensor:
        seen = others.to(s.dtype)
        top = torch.add(s, seen - 1, alpha=_FAR).amax(-1, keepdim=True)
        none = top < -_FAR / 2
        top = top.masked_fill_(none, 0.0)
        # those left out may lie above the top: bounded, so that none is infinite, which no product takes away
        kept = torch.sub(s, top).clamp_max_(0.0).exp_().mul_(seen)
        total = kept.sum(-1, keepdim=True)
        ctx.save_for_backward(kept, total.masked_fill(none, 1.0))
        return (total.log_() + top).masked_fill_(none, torch.finfo(s.dtype).min)[..., 0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        kept, total = ctx.saved_tensors
        return kept * (gradient[..., None] / total), None
