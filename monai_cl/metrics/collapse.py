"""MONAI's collapse indicators over an epoch and over processes."""

from collections.abc import Sequence
from typing import Any

import torch
from monai.metrics import EmbeddingCollapseMetric
from torch import Tensor

from monai_cl.metrics._base import BufferedMetric, as_numbers, as_rows

LABELLED = ("centroid_similarity", "per_class_rank", "separation")
INDICATORS = ("effective_rank", *LABELLED)
REDUCTIONS = ("none", "max", "mean")


class BufferedCollapseMetric(BufferedMetric):
    """MONAI's ``EmbeddingCollapseMetric`` on all samples of an epoch: call with embeddings (B, D) and labels (B,).

    Every score lies between 0 (healthy) and 1 (collapsed). The indicators to compute must be named: MONAI's
    default takes in ``domain_shift``, which is refused here because it calls two domains with the *same*
    representation collapsed. MONAI's ``effective_rank_score`` is 1 - rank / min(N - 1, D) of the centred embeddings;
    :class:`EffectiveRankMetric` gives the number of directions itself.

    Args:
        include_indicators: One or more of ``"effective_rank"`` (needs no labels), ``"centroid_similarity"``,
            ``"per_class_rank"``, ``"separation"``.
        reduction: ``"none"``, or ``"max"`` or ``"mean"`` for an additional ``aggregate``.

    Raises:
        ValueError: If an indicator or the reduction is unknown, or none is named.

    Example:
        >>> metric = BufferedCollapseMetric(["effective_rank"])
        >>> _ = metric(torch.ones(2, 4)), metric(torch.ones(3, 4))
        >>> {name: value.item() for name, value in metric.aggregate().items()}
        {'effective_rank_score': 1.0}
    """

    def __init__(self, include_indicators: Sequence[str], reduction: str = "none") -> None:
        super().__init__()
        names = [include_indicators] if isinstance(include_indicators, str) else list(include_indicators)
        unknown = [name for name in names if name not in INDICATORS]
        if unknown or not names:
            raise ValueError(f"include_indicators must be one or more of {INDICATORS}, got {unknown or names}")
        if reduction not in REDUCTIONS:
            raise ValueError(f"reduction must be one of {REDUCTIONS}, got {reduction!r}")
        self.include_indicators = names
        self.collapse = EmbeddingCollapseMetric(reduction=reduction, include_indicators=names)

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **kwargs: Any) -> list[Tensor]:
        rows = as_rows("embeddings", y_pred)
        needs = [name for name in self.include_indicators if name in LABELLED]
        if y is None and needs:
            raise ValueError(f"{', '.join(needs)} needs labels, got None; give them with every batch or leave it out")
        return [rows] if not needs else [rows, as_numbers("labels", y, len(rows))]

    def aggregate(self) -> dict[str, Tensor]:
        """Scores by name, 0-dim; NaN where MONAI has none, such as a separation of fewer than two classes.

        Raises:
            ValueError: If fewer than two samples in all are given.
        """
        rows, *labels = self.gathered()
        rows = as_rows("embeddings", rows, at_least=2)
        scores: dict[str, Tensor | None] = self.collapse(rows, labels[0] if labels else None)
        return {name: rows.new_tensor(torch.nan) if score is None else score for name, score in scores.items()}
