"""Term of labels: voxels of one label of a volume are drawn together, whatever view they are from, others apart."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from monai_cl.losses import SupConLoss
from monai_cl.methods.extraction import FeatureExtractor, Maps
from monai_cl.methods.map_terms import last_block
from monai_cl.methods.term import Term, require_positive, views_of

_LABELS = 2**16  # of one volume
_VOLUMES = 2**16  # of one process


class LabelTerm(Term):
    r"""Contrast of voxels by their label.

    Rows of a head on the features of drawn voxels are contrasted by :class:`monai_cl.losses.SupConLoss`: a voxel's
    positives are the voxels of its label in all views of its volume. Labels of different volumes are different ones,
    as those of random shapes are; a voxel of a label of :math:`n` voxels is drawn with a weight of
    :math:`1 / \sqrt{n}`, so that small structures count.

    A batch holds views under ``key``, and beside them ``label`` (B, V, \*S), whole numbers, and if one exists
    ``valid`` (B, V, \*S): voxels outside of it are not drawn.

    Args:
        key: Key of the views in a batch.
        label_key: Key of their labels.
        blocks: Decoder blocks that run, counted from the bottom, the last of which is looked at; ``None`` is all.
        voxels: Voxels drawn of each view, anew each step; ``None`` takes all.
        hidden: Width of the head's hidden layer.
        embedding: Width of the embedding of a voxel.
        temperature: Divisor of the cosine similarities.
        gather: Take positives and negatives from all processes, with gradients.

    Raises:
        ValueError: If an option is out of range.

    References:
        Supervised contrastive learning, arXiv 2004.11362; on random shapes, arXiv 2411.02372.
    """

    def __init__(
        self,
        *,
        key: str = "image",
        label_key: str = "label",
        blocks: int | None = None,
        voxels: int | None = 160,
        hidden: int = 64,
        embedding: int = 32,
        temperature: float = 0.15,
        gather: bool = False,
    ) -> None:
        super().__init__()
        require_positive(voxels=1 if voxels is None else voxels, hidden=hidden, embedding=embedding)
        self.key = key
        self.label_key = label_key
        self.blocks = blocks
        self.needs = frozenset({"blocks"})
        self.voxels = voxels
        self.hidden = hidden
        self.embedding = embedding
        self.loss = SupConLoss(temperature, gather=gather)
        self.head: nn.Module

    def build(self, network: nn.Module, maps: Maps) -> None:
        """Make the head: linear, batch norm, ReLU, linear, of voxels."""
        self.head = nn.Sequential(
            nn.Linear(last_block(maps, self.blocks).shape[1], self.hidden, bias=False),
            nn.BatchNorm1d(self.hidden),
            nn.ReLU(),
            nn.Linear(self.hidden, self.embedding),
        )

    def forward(self, extract: FeatureExtractor, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of a batch of views.

        Raises:
            ValueError: If the batch has no labels, or none that fit the views.
        """
        rows, marks, _ = self._rows(extract, batch, None)
        return self.loss(self.head(rows), marks), {}

    def probe(self, extract: FeatureExtractor, batch: Mapping[str, Any]) -> Any:
        """Agreement in label of every drawn voxel of the first view with its most similar voxel of the second."""
        generator = torch.Generator().manual_seed(0)  # the same voxels at each look
        rows, marks, views = self._rows(extract, batch, generator)
        z = F.normalize(self.head(rows).float(), dim=1)
        volume, second = marks // _LABELS, views == 1
        result = []
        for index in volume.unique():
            here, other = (volume == index) & (views == 0), (volume == index) & second
            if here.any() and other.any():
                nearest = (z[here] @ z[other].T).argmax(1)
                known = torch.isin(marks[here], marks[other])
                result.append((marks[other][nearest] == marks[here])[known])
        return torch.cat(result).float().cpu() if result else torch.zeros(0)

    def summary(self, records: Sequence[Any]) -> Mapping[str, float | Tensor]:
        """Share of voxels whose most similar voxel of the other view has their label, as ``label_match``."""
        every = torch.cat(list(records))
        return {"label_match": float(every.mean())} if len(every) else {}

    def _rows(
        self, extract: FeatureExtractor, batch: Mapping[str, Any], generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Features (N, C) of drawn voxels, labels (N,) that no two volumes share, and numbers of their views (N,)."""
        views = views_of(batch, self.key)
        features = last_block(extract(views.images), self.blocks)
        labels, valid = self._labels(batch, views.images, views.valid, tuple(features.shape[2:]))
        number = views.images.shape[1]
        rows, marks, which = [], [], []
        for image, (one, label, counts) in enumerate(zip(features, labels, valid, strict=True)):
            chosen = draw_by_label(label.flatten(), counts.flatten(), self.voxels, generator=generator)
            rows.append(one.flatten(1)[:, chosen].T)
            marks.append(label.flatten()[chosen] + _LABELS * (image // number + _VOLUMES * _rank()))
            which.append(torch.full_like(chosen, image % number))
        return torch.cat(rows), torch.cat(marks), torch.cat(which)

    def _labels(
        self, batch: Mapping[str, Any], images: Tensor, valid: Tensor | None, size: tuple[int, ...]
    ) -> tuple[Tensor, Tensor]:
        """Labels and their validity at the voxels of a map, (B * V, *size)."""
        beside = batch[self.key] if isinstance(batch[self.key], Mapping) else batch
        if self.label_key not in beside:
            raise ValueError(
                f"a batch must hold {self.label_key!r} of each voxel for the contrast of labels, got "
                f"{sorted(map(str, beside))}; add it to the keys of the views"
            )
        given = torch.as_tensor(beside[self.label_key], device=images.device)
        expected = (*images.shape[:2], *images.shape[3:])
        if tuple(given.shape) != expected:
            raise ValueError(f"{self.label_key} must have shape {expected} of the views, got {tuple(given.shape)}")
        whole = given.flatten(0, 1).long()
        if whole.numel() and (whole.min() < 0 or whole.max() >= _LABELS):
            low, high = (int(value) for value in whole.aminmax())
            raise ValueError(f"{self.label_key} must be from 0 to {_LABELS - 1}, got values from {low} to {high}")
        counts = torch.ones_like(whole, dtype=torch.bool) if valid is None else valid.flatten(0, 1).bool()
        return _at(whole, size), _at(counts, size)


def draw_by_label(
    labels: Tensor, valid: Tensor, number: int | None, *, generator: torch.Generator | None = None
) -> Tensor:
    """Indices of voxels, without one twice, each drawn with a weight of one over the root of the size of its label.

    Args:
        labels: Labels (N,).
        valid: True where a voxel may be drawn (N,).
        number: Number drawn; all that are valid where they are fewer, or with ``None``.
        generator: Source of the draws on the CPU; the global one of the device when left out.
    """
    places = valid.nonzero()[:, 0]
    if number is None or len(places) <= number:
        return places
    _, which, sizes = labels[places].unique(return_inverse=True, return_counts=True)
    weights = sizes.double().rsqrt()[which]
    if generator is None:
        shares = torch.rand(len(places), dtype=torch.float64, device=labels.device)
    else:
        shares = torch.rand(len(places), dtype=torch.float64, generator=generator).to(labels.device)
    # the first of a race of exponential clocks with these rates are a draw without replacement
    return places[(-torch.log1p(-shares) / weights).topk(number, largest=False).indices]


def _at(values: Tensor, size: tuple[int, ...]) -> Tensor:
    """Values (N, *S) at the nearest voxels to those of a grid of another size."""
    for axis, (n, m) in enumerate(zip(values.shape[1:], size, strict=True), start=1):
        if n != m:
            centres = ((torch.arange(m, device=values.device) + 0.5) * n / m).long().clamp(max=n - 1)
            values = values.index_select(axis, centres)
    return values


def _rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
