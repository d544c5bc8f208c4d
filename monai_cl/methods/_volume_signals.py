"""Signals of volume contrast: position accuracy, similarities, dead pairs, distance to the teacher."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from monai_cl.losses import VolumeContrastLoss
from monai_cl.methods._embedding_health import EmbeddingHealth
from monai_cl.metrics import PositionMetric
from monai_cl.metrics._base import BufferedMetric


class Embedded(NamedTuple):
    """Embeddings of a batch: crops (B, S, D) and bases (B, K, D)."""

    crops: Tensor
    bases: Tensor


@torch.no_grad()
def step_signals(
    loss: VolumeContrastLoss, student: Embedded, teacher: Embedded | None, overlap: Tensor
) -> dict[str, Tensor]:
    """Signals of one training step, 0-dim; comparisons with a teacher are omitted without one."""
    known = student if teacher is None else teacher
    x, z = F.normalize(student.crops.float(), dim=-1), F.normalize(known.bases.float(), dim=-1)
    predicted = (x @ z.mT).argmax(-1, keepdim=True)
    # ties between equally overlapping bases count as right whichever of them is chosen
    right = overlap.gather(-1, predicted) >= overlap.amax(-1, keepdim=True) - 1e-6
    flat = z.flatten(0, 1)
    rows = pair_rows(loss, student, teacher, overlap)
    cosine, positive, dead = rows.unbind(1)
    signals = {
        "position_accuracy": right.float().mean(),
        "embedding_std": flat.std(dim=0).mean() * flat.shape[1] ** 0.5,
        "positive_cosine": _mean_where(cosine, positive),
        "negative_cosine": _mean_where(cosine, 1 - positive),
        "dead_pairs": _mean_where(dead, positive),
    }
    return signals if teacher is None else {**signals, "teacher_gap": gaps(student, teacher).mean()}


@torch.no_grad()
def pair_rows(loss: VolumeContrastLoss, student: Embedded, teacher: Embedded | None, overlap: Tensor) -> Tensor:
    """Similarity of every pair in the loss, its overlap flag and its dead flag: (N, 3)."""
    known = (None, None) if teacher is None else teacher
    cosine = loss.similarities(*student, *known)  # (M, B, S, K)
    positive = (overlap > loss.form.zero_overlap).expand_as(cosine)
    columns = (cosine, positive, loss.dead_pairs(cosine, overlap))
    return torch.stack([column.flatten().to(cosine.dtype) for column in columns], dim=1)


@torch.no_grad()
def gaps(student: Embedded, teacher: Embedded) -> Tensor:
    """One minus the cosine between student's and teacher's embedding of each view, (B (S + K),)."""
    pairs = zip(student, teacher, strict=True)
    near = [F.cosine_similarity(a.float(), b.float(), dim=-1).flatten() for a, b in pairs]
    return 1 - torch.cat(near)


class ProbeSignals:
    """Signals over the batches of a probe, those of the other processes included."""

    def __init__(self) -> None:
        self.position, self.health = PositionMetric(), EmbeddingHealth()
        self.pairs, self.gaps = _Rows(), _Rows()

    def __call__(
        self,
        loss: VolumeContrastLoss,
        student: Embedded,
        teacher: Embedded | None,
        views: dict[str, Tensor],
        changed: Tensor,
    ) -> None:
        """Take a batch.

        Args:
            loss: The loss that training minimises.
            student: Embeddings by the student.
            teacher: Embeddings by the teacher, which is judged if one exists.
            views: The views.
            changed: Embeddings of the crops with other intensities, (B, S, D).
        """
        crops, bases = student if teacher is None else teacher
        self.position(crops, bases, overlap=views["overlap"], centers=views["base_centers"])
        self.health(crops.flatten(0, 1), changed.flatten(0, 1), rows=bases.flatten(0, 1))
        self.pairs(pair_rows(loss, student, teacher, views["overlap"]))
        if teacher is not None:
            self.gaps(gaps(student, teacher)[:, None])

    def values(self, *, with_teacher: bool) -> dict[str, float | Tensor]:
        """Everything by name; call it in every process alike."""
        where = self.position.aggregate()
        cosine, positive, dead = self.pairs.aggregate().unbind(1)
        numbers = {
            "position_accuracy": where["accuracy"],
            "chance_accuracy": where["chance_accuracy"],
            "position_error_mm": where["distance_mm"],
            "chance_error_mm": where["chance_distance_mm"],
            **self.health.values(),
            "dead_pairs": _mean_where(dead, positive),
            **({"teacher_gap": self.gaps.aggregate().mean()} if with_teacher else {}),
        }
        samples = {"positive_cosine": cosine[positive > 0], "negative_cosine": cosine[positive == 0]}
        return {**{name: float(value) for name, value in numbers.items()}, **samples}


class _Rows(BufferedMetric):
    """Rows of all processes."""

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **kwargs: object) -> Tensor:
        return y_pred

    def aggregate(self) -> Tensor:
        return self.gathered()[0]


def _mean_where(values: Tensor, weight: Tensor) -> Tensor:
    """Mean of the values with weight one, 0 without any."""
    return (values * weight).sum() / weight.sum().clamp_min(1)
