"""The terms of the volume contrast: similarities and overlaps in, one value out, each a mean over volumes.

Similarities and labels are (B, S, K): b = volume, s = crop, k = base. A term is a ratio of sums over the crops and
bases of one volume, then the mean over volumes.
"""

import torch
from torch import Tensor

EPS = 1e-6  # inside logarithms and in the denominators of the ratios
FLOOR = 1e-7  # no logarithm of less: a product in reduced precision (TF32) can exceed one by more than EPS


def positive_term(s: Tensor, target: Tensor, weight: Tensor, *, signed: bool) -> Tensor:
    r"""Distance of similarities to their targets, :math:`\sum -w \log(1 - d + \epsilon) / (\sum w + \epsilon)`.

    :math:`d = |t - s|`, for a target and a similarity in [0, 1], or :math:`|t - s|/(1 + t)` for a ``signed`` similarity
    in [-1, 1]: :math:`1 + t` is the largest distance it can have, so the logarithm's argument stays in [0, 1].
    """
    distance = (target - s).abs()
    if signed:
        distance = distance / (1 + target)
    cost = -torch.log((1 - distance + EPS).clamp_min(FLOOR))
    return _ratio(weight * cost, weight)


def negative_term(s: Tensor, negative: Tensor, *, form: str) -> Tensor:
    r"""Repulsion from bases without overlap: mean over ``negative`` pairs of a cost of :math:`r = \max(s, 0)`.

    The cost is :math:`-\log(1 - r + \epsilon)` in the form ``"log"`` and :math:`r^2` in the form ``"square"``.
    """
    r = s.relu()
    cost = r.square() if form == "square" else -torch.log((1 - r + EPS).clamp_min(FLOOR))
    return _ratio(cost * negative, negative.to(s.dtype))


def soft_term(s: Tensor, label: Tensor, *, temperature: float) -> Tensor:
    r"""Cross-entropy :math:`-\sum y_k \log\operatorname{softmax}_k(s/\tau) / (\sum y + \epsilon)`."""
    return _ratio(-label * torch.log_softmax(s / temperature, dim=-1), label)


def spread_term(z: Tensor, *, one_sided: bool = False) -> Tensor:
    r""":math:`\frac{2}{K(K-1)} \sum_{i<j} \max(z_i \cdot z_j, 0)^2` of the bases of a volume, (B, K, D) of unit length.

    ``one_sided`` sends the gradient of a pair to the first of the two only, and so none to the last base.
    """
    k = z.shape[1]
    if k < 2:
        return z.new_zeros(())
    if one_sided:
        pairs = (z @ z.detach().mT).relu().square().triu(diagonal=1)
        return (2 * pairs.sum(dim=(1, 2)) / (k * (k - 1))).mean()
    gram = (z @ z.mT).relu().square()
    off_diagonal = gram.sum(dim=(1, 2)) - gram.diagonal(dim1=1, dim2=2).sum(-1)
    return (off_diagonal / (k * (k - 1))).mean()


def _ratio(costs: Tensor, weights: Tensor) -> Tensor:
    return (costs.sum(dim=(1, 2)) / (weights.sum(dim=(1, 2)) + EPS)).mean()
