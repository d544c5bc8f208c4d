"""Supervised contrast across domains: rows of a label are drawn together where they come from different sites."""

import torch
from torch import Tensor

from monai_cl.losses._anchored import AnchoredLoss, require_choice
from monai_cl.losses._checks import require_finite, require_shape
from monai_cl.losses._directed import Pairs, contrast
from monai_cl.losses._gather import find_ranks, gather_rows
from monai_cl.losses._rows import fixed_precision, require_rows, unit_rows

FALLBACKS = ("error", "same_domain", "skip")


class CrossDomainSupConLoss(AnchoredLoss):
    r"""Supervised contrast whose positives are rows of the same label from another domain.

    With :math:`P(a)` the rows of the label of :math:`a` from other domains, over the rows that have any,

    .. math::
        L = \operatorname{mean}_a \frac{1}{|P(a)|} \sum_{p \in P(a)}
            \left[\log \sum_{k \in K(a)} e^{s_{ak}} - s_{ap}\right]

    Rows of the label and the domain of an anchor are neither drawn to it nor pushed away: :math:`K(a)` holds its
    positives and all rows of other labels. Where no two rows share a domain this is :class:`SupConLoss`.

    The paper has no public code and states no formula that could be compared: this is our reading of it.

    Args:
        temperature: Divisor of the cosine similarities.
        gather: Take positives and negatives from all processes, with gradients; labels and domains are those of all.
        fallback: For rows of a label that all rows of the batch with it share a domain: ``"error"``;
            ``"same_domain"``, the others of the label are positives, as of :class:`SupConLoss`; ``"skip"`` counts them
            in ``skipped``. A row that is alone with its label is skipped in any case.
        reduction: As of :class:`SupConLoss`.

    Shapes:
        ``z`` (N, D); ``labels`` and ``domains`` (N,) whole numbers.

    Raises:
        ValueError: If shapes disagree, an option is out of range, or several rows of a label share their only domain
            and ``fallback`` is ``"error"``.
        NonFiniteError: If an embedding is NaN or infinite.

    References:
        MammoDG, arXiv 2308.01057; supervised contrastive learning, arXiv 2004.11362.

    Example:
        >>> z, labels = torch.eye(2)[[0, 0, 1, 1]], torch.tensor([0, 0, 1, 1])
        >>> bool(CrossDomainSupConLoss()(z, labels, torch.tensor([0, 1, 0, 1])) < 1e-3)
        True
    """

    def __init__(
        self, temperature: float = 0.1, gather: bool = False, *, fallback: str = "error", reduction: str = "mean"
    ) -> None:
        super().__init__(temperature, gather=gather, reduction=reduction)
        require_choice("fallback", fallback, FALLBACKS)
        self.fallback = fallback

    def forward(self, z: Tensor, labels: Tensor, domains: Tensor) -> Tensor:
        """Compute the loss of rows (N, D) with labels (N,) from domains (N,)."""
        require_rows(z=z)
        require_shape("labels", labels, (len(z),))
        require_shape("domains", domains, (len(z),))
        require_finite(z=z)
        with fixed_precision(z):
            ranks, z = find_ranks(z, gather=self.gather), unit_rows(z)
            mine = torch.stack([labels.to(z.device).long(), domains.to(z.device).long()], dim=1)
            keys, marks = gather_rows(z, ranks), gather_rows(mine, ranks)
            lone = self._lone(marks)[ranks.start : ranks.start + len(z)]
            number = torch.arange(len(keys), device=z.device)

            def pairs(rows: Tensor) -> Pairs:
                others = number != (ranks.start + rows)[:, None]
                label, domain = (mine[rows, None] == marks).unbind(-1)  # (anchors, keys) each
                positive = label & (~domain | lone[rows, None]) & others
                return Pairs(positive, (~label | positive) & others)

            costs = contrast(z, keys, pairs, temperature=self.temperature, softplus=False)
            return self.reduce(costs, ranks, per_anchor=True)

    def _lone(self, marks: Tensor) -> Tensor:
        """Rows (N,) whose label sits in one domain and that fall back to the positives of it."""
        pairs, counts = marks.unique(dim=0, return_counts=True)
        label, sites = pairs[:, 0].unique(return_counts=True)
        single = label[sites == 1]
        if self.fallback == "skip" or not len(single):
            return torch.zeros_like(marks[:, 0], dtype=torch.bool)
        several = pairs[torch.isin(pairs[:, 0], single) & (counts > 1), 0].tolist()
        if self.fallback == "error" and several:
            raise ValueError(
                f"each label must come from at least two domains, labels {several[:5]} sit in one; draw batches over "
                "domains, or set fallback to 'same_domain' or 'skip'"
            )
        return torch.isin(marks[:, 0], single)
