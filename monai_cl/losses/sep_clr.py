"""Healthy and patients: what they have in common in one space, what patients alone have in another."""

import math

import torch
from torch import Tensor

from monai_cl.losses._checks import require_finite, require_positive, require_shape
from monai_cl.losses._gather import find_ranks, gather_rows
from monai_cl.losses._pair_potential import log_potential_sums
from monai_cl.losses._plain import PlainLoss
from monai_cl.losses._rows import fixed_precision, require_rows, unit_rows
from monai_cl.losses.joint_entropy import negative_entropy


class SepCLRLoss(PlainLoss):
    r"""Common and salient space from two views of images that are healthy (0) or of patients (1).

    With :math:`c` rows of the common space at unit length, :math:`s` those of the salient one as they are, :math:`s'`
    the same with those of the healthy set to 0, and

    .. math::
        A(x, y) = \operatorname{mean}_i \frac{\lVert x_i - y_i \rVert^2}{2\tau}, \qquad
        U(x) = \log \operatorname{mean}_{i<j} e^{-\lVert x_i - x_j \rVert^2 / (2\tau)},

    the loss is :math:`L_c + \beta_s L_s + \beta_r L_0 + \lambda L_J` with

    - :math:`L_c = A(c_1, c_2) + U(c_1) + U(c_2)`: images apart, views together, for all;
    - :math:`L_s = A(s_1, s_2 \mid y = 1) + U(s_1') + U(s_2')`: the same for patients, with the healthy at 0;
    - :math:`L_0 = \frac12 \sum_v A(0, s_v \mid y = 0)`: the salient space holds no information on the healthy;
    - :math:`L_J`: the mean over views of :class:`monai_cl.losses.KernelJointEntropyLoss` of :math:`c_v, s_v'`.

    A mean over no rows is 0, so that a batch without healthy or without patients has a finite loss; ``missing`` counts
    such means. With larger :math:`\lambda` the common space holds less of the disease, and in the end less of what is
    common too: it is a setting to be tried, not a constant.

    Args:
        salient_weight: :math:`\beta_s`. Published with ``information_less_weight`` and ``joint_entropy_weight``: 1, 10
            and 10 for radiographs of the chest, 1000, 1000 and 10 for faces, 100, none and 10 for shapes.
        information_less_weight: :math:`\beta_r`.
        joint_entropy_weight: :math:`\lambda`.
        temperature: :math:`\tau`.
        gather: Take the rows of all processes, with gradients.

    Shapes:
        ``c1``, ``c2`` (N, C); ``s1``, ``s2`` (N, S); ``labels`` (N,), 0 or 1. At least two rows over all processes.

    Returns:
        ``loss`` and its parts before they are weighted, ``common``, ``salient``, ``information_less`` and
        ``joint_entropy``; ``patients``, the number of rows with label 1, and ``missing``. All 0-dim.

    Raises:
        ValueError: If shapes disagree, a label is neither 0 nor 1, only one row is given, or an option is out of range.
        NonFiniteError: If an embedding is NaN or infinite.

    References:
        Separating common from salient patterns with contrastive representation learning (SepCLR), arXiv 2402.11928.

    Example:
        >>> c, s = torch.eye(4), torch.tensor([[0.0, 0.0], [0.0, 0.0], [3.0, 0.0], [0.0, 3.0]])
        >>> terms = SepCLRLoss()(c, c, s, s, torch.tensor([0, 0, 1, 1]))
        >>> terms["information_less"].item(), int(terms["patients"]), int(terms["missing"])
        (0.0, 2, 0)
    """

    def __init__(
        self,
        salient_weight: float = 1.0,
        information_less_weight: float = 10.0,
        joint_entropy_weight: float = 10.0,
        *,
        temperature: float = 0.5,
        gather: bool = False,
    ) -> None:
        super().__init__()
        weights = {
            "salient": salient_weight,
            "information_less": information_less_weight,
            "joint_entropy": joint_entropy_weight,
        }
        for name, weight in weights.items():
            if not 0 <= weight < math.inf:
                raise ValueError(f"{name}_weight must be at least 0, got {weight!r}")
        require_positive(temperature=temperature)
        self.weights = {"common": 1.0, **weights}
        self.temperature = temperature
        self.gather = gather

    def forward(self, c1: Tensor, c2: Tensor, s1: Tensor, s2: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Compute the terms of two views of N images in both spaces."""
        require_rows(c1=c1, c2=c2, s1=s1, s2=s2)
        require_shape("c2", c2, tuple(c1.shape))
        require_shape("s1", s1, (len(c1), s1.shape[1]))
        require_shape("s2", s2, tuple(s1.shape))
        require_weak_labels(labels, len(c1))
        require_finite(c1=c1, c2=c2, s1=s1, s2=s2)
        with fixed_precision(c1):
            views = [torch.cat([unit_rows(c), _full(s)], dim=1) for c, s in ((c1, s1), (c2, s2))]
            ranks = find_ranks(c1, gather=self.gather)
            if sum(ranks.counts) < 2:
                raise ValueError(
                    f"at least two rows are needed for negatives, got {sum(ranks.counts)}; use a larger batch"
                )
            rows = gather_rows(torch.stack(views, dim=1), ranks)  # (N, 2, C + S)
            patients = gather_rows(labels.to(rows.device), ranks) == 1
            return self._terms(rows, patients, c1.shape[1])

    def _terms(self, rows: Tensor, patients: Tensor, width: int) -> dict[str, Tensor]:
        c, s = rows[..., :width].unbind(1), rows[..., width:].unbind(1)
        kept = [one * patients[:, None] for one in s]  # s': the healthy at 0
        nothing = [self._together(x, torch.zeros_like(x), ~patients) for x in s]
        joint = [negative_entropy(torch.cat(pair, dim=1), self.temperature) for pair in zip(c, kept, strict=True)]
        terms = {
            "common": self._apart(*c) + self._together(c[0], c[1], torch.ones_like(patients)),
            "salient": self._apart(*kept) + self._together(s[0], s[1], patients),
            "information_less": torch.stack(nothing).mean(),
            "joint_entropy": torch.stack(joint).mean(),
        }
        loss = torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()
        number = patients.sum()
        missing = (number == 0).int() + (number == len(patients)).int()
        return {"loss": loss, **terms, "patients": number, "missing": missing}

    def _together(self, x: Tensor, y: Tensor, which: Tensor) -> Tensor:
        """Alignment of those rows that ``which`` marks; 0 where it marks none."""
        squared = (x - y).square().sum(dim=1) * which
        return squared.sum() / which.sum().clamp_min(1) / (2 * self.temperature)

    def _apart(self, *views: Tensor) -> Tensor:
        """Sum over the views of their uniformity."""
        n = len(views[0])
        sums = [log_potential_sums(x, temperature=self.temperature, itself=False).logsumexp(0) for x in views]
        return torch.stack(sums).sum() - len(views) * math.log(n * (n - 1))


def require_weak_labels(labels: Tensor, number: int) -> None:
    """Raise ``ValueError`` unless ``number`` labels are given, each 0 (healthy) or 1 (patient)."""
    require_shape("labels", labels, (number,))
    other = labels[(labels != 0) & (labels != 1)]
    if len(other):
        raise ValueError(
            f"labels must be 0 (healthy) or 1 (patient), got {sorted(set(other.tolist()))[:5]}; "
            "see monai_cl.data.weak_labels"
        )


def _full(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
