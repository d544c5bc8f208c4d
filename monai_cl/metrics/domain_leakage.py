"""Leakage of the domain: accuracy of predicting the site or scanner of an image from its embedding."""

from typing import TypeVar

import torch
from torch import Tensor

from monai_cl.metrics._base import as_numbers, as_rows, full_precision
from monai_cl.metrics.linear_probe import LinearProbeMetric, cross_validated_probe_accuracy

Number = TypeVar("Number", float, Tensor)


@full_precision
@torch.no_grad()
def domain_leakage(
    x: Tensor, domains: Tensor, *, groups: Tensor | None = None, folds: int = 5, max_iter: int = 1000
) -> Tensor:
    r"""Share of the information on the domain that a linear probe reads off embeddings.

    .. math:: \ell = \frac{a - c}{1 - c}

    with :math:`a` the cross-validated accuracy of a linear probe of the domain and :math:`c` the share of the most
    frequent one: 1 when every image gives its site away, about 0 when none does, below 0 when the probe is worse than
    always predicting the most frequent. Sites whose patients differ leak through what is wrong with them, too: compare
    sites of like patients, or one kind of patient at a time.

    This project's definition.

    Args:
        x: Embeddings, (N, D).
        domains: Domain of each, (N,), whole numbers of at least two values.
        groups: Patient of each, (N,), whole numbers; a patient is judged by a probe that has not seen it.
        folds: Number of folds.
        max_iter: Largest number of iterations of each fit.

    Returns:
        0-dim float32, at most 1.

    Raises:
        ValueError: If only one domain is given, shapes disagree or ``folds`` is out of range.
        NonFiniteError: If an embedding holds NaN or infinity.

    Example:
        >>> x, sites = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]]), torch.tensor([0, 0, 1, 1])
        >>> domain_leakage(x, sites, folds=2).item()
        1.0
    """
    rows = as_rows("x", x, at_least=2)
    known = as_numbers("domains", domains, len(rows))
    counts = known.unique(return_counts=True)[1]
    if len(counts) < 2:
        raise ValueError(f"domains must be of at least two kinds, got {known.unique().tolist()}; add another site")
    chance = float(counts.max()) / len(known)
    accuracy = cross_validated_probe_accuracy(rows, known, groups=groups, folds=folds, max_iter=max_iter)
    return share_above_chance(accuracy, chance)


def share_above_chance(accuracy: Number, chance: float) -> Number:
    """Accuracy of a probe scaled from chance, 0, to a perfect one, 1.

    Args:
        accuracy: Share of samples that are predicted rightly.
        chance: Share of the most frequent value, below 1.

    Example:
        >>> share_above_chance(0.75, 0.5)
        0.5
    """
    return (accuracy - chance) / (1 - chance)


class DomainLeakage(LinearProbeMetric):
    """:func:`domain_leakage` over an epoch: call with embeddings (B, D), domains (B,) and ``groups`` (B,) by name.

    Args:
        folds: Number of folds, at least 2.
        max_iter: Largest number of iterations of each fit.
    """

    def aggregate(self) -> Tensor:
        """Leakage over all samples, 0-dim."""
        rows, domains, groups = self._all()
        return domain_leakage(rows, domains, groups=groups, folds=self.folds, max_iter=self.max_iter)
