"""Checks that probes of labelled embeddings share."""

from typing import Any

from torch import Tensor

from monai_cl.metrics._base import BufferedMetric, as_numbers, as_rows


class LabelledMetric(BufferedMetric):
    """Buffers embeddings (B, D), labels (B,) and, where given by name, ``groups`` (B,)."""

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **kwargs: Any) -> list[Tensor]:
        rows = as_rows("embeddings", y_pred)
        groups = kwargs.get("groups")
        extra = [] if groups is None else [as_numbers("groups", groups, len(rows))]
        return [rows, as_numbers("labels", y, len(rows)), *extra]

    def _all(self) -> tuple[Tensor, Tensor, Tensor | None]:
        rows, labels, *groups = self.gathered()
        return rows, labels, groups[0] if groups else None
