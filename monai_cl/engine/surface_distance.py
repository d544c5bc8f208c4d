"""Distances between the surfaces of masks and labels, in millimetres."""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.handlers.ignite_metric import IgniteMetricHandler
from monai.metrics import CumulativeIterationMetric, compute_average_surface_distance, compute_hausdorff_distance
from torch import Tensor


class SurfaceDistance(IgniteMetricHandler):
    r"""Distance in millimetres between the surfaces of prediction and truth, for every case and class.

    With :math:`d(a, B)` the distance of a surface voxel to the other surface, it is the average symmetric distance
    :math:`\frac{\sum_{a \in A} d(a, B) + \sum_{b \in B} d(b, A)}{|A| + |B|}` or, where ``percentile`` is given, the
    larger of the two percentiles of :math:`d(a, B)` and :math:`d(b, A)` (95: the Hausdorff distance without its
    outliers). MONAI's own handlers take no spacing; this one takes each case's own, from the affine of its label.

    A class that the truth lacks has no distance: NaN. A class that only the prediction lacks gets the diagonal of the
    volume, the largest possible distance, so that leaving a class out is never rewarded.

    Args:
        percentile: Percentile of the distances, in (0, 100]; ``None`` averages them.
        output_transform: Takes lists of one-hot, channel-first predictions and labels out of the engine's output.

    Raises:
        ValueError: If ``percentile`` is out of range or, while running, a label does not know its spacing.

    References:
        MONAI computes the distances, after DeepMind's surface-distance.
    """

    def __init__(
        self, *, percentile: float | None = None, output_transform: Callable[[Any], Any] = lambda x: x
    ) -> None:
        super().__init__(metric_fn=_SurfaceMetric(percentile), output_transform=output_transform)

    def update(self, output: Sequence[Sequence[Tensor]]) -> None:
        """Add the cases of a batch.

        Args:
            output: Predictions and labels, each a list of one-hot tensors ``(C, *S)``.
        """
        for prediction, label in zip(*output, strict=True):
            self.metric_fn(prediction[None], label[None], spacing=_spacing(label))


class _SurfaceMetric(CumulativeIterationMetric):
    def __init__(self, percentile: float | None) -> None:
        super().__init__()
        if percentile is not None and not 0 < percentile <= 100:
            raise ValueError(f"percentile must be above 0 and at most 100, or None, got {percentile!r}")
        self.percentile = percentile

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, *, spacing: Sequence[float]) -> Tensor:
        """Distances (1, C - 1) of one case."""
        truth = torch.as_tensor(y) > 0
        prediction = torch.as_tensor(y_pred) > 0
        diagonal = math.hypot(*(n * s for n, s in zip(truth.shape[2:], spacing, strict=True)))
        result = [
            math.nan
            if not bool(truth[:, c].any())
            else diagonal
            if not bool(prediction[:, c].any())
            else self._distance(prediction[:, c : c + 1], truth[:, c : c + 1], spacing)
            for c in range(1, truth.shape[1])
        ]
        return torch.tensor([result])

    def _distance(self, prediction: Tensor, truth: Tensor, spacing: Sequence[float]) -> float:
        common = {"include_background": True, "spacing": list(spacing)}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*always_return_as_numpy", FutureWarning)  # MONAI's own call of its own
            if self.percentile is None:
                return float(compute_average_surface_distance(prediction, truth, symmetric=True, **common))
            return float(compute_hausdorff_distance(prediction, truth, percentile=self.percentile, **common))

    def aggregate(self) -> Tensor:
        """Mean over the cases and classes that have a distance."""
        return torch.nanmean(torch.as_tensor(self.get_buffer()))


def _spacing(label: Tensor) -> list[float]:
    if not isinstance(label, MetaTensor):
        raise ValueError(
            f"a distance in mm needs labels that know their spacing (MONAI's MetaTensor), got {type(label).__name__}; "
            "load them with a recipe and keep the meta data"
        )
    return [float(size) for size in label.pixdim[: label.ndim - 1]]
