"""Terms of whole images: a projector on the pooled maps of the encoder, and a contrast of its embeddings."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from monai_cl.losses import NTXentLoss, PartitionContrastiveLoss, PositionalContrastiveLoss
from monai_cl.methods._embedding_health import ENOUGH, EmbeddingHealth
from monai_cl.methods.extraction import FeatureExtractor, Maps
from monai_cl.methods.term import Term, of_batch, require_positive, views_of
from monai_cl.metrics import KNNProbeMetric, RetrievalMetric, retrieval_at_k
from monai_cl.networks import Projector, pool_pyramid

CONTRASTS = ("gd", "gd-", "nt_xent", "position")
_NEIGHBOURS = 5


class ImageTerm(Term):
    r"""Projector on the pooled maps of the encoder: views (B, V, C, \*S) become embeddings (B, V, D).

    Args:
        loss: The loss of embeddings.
        key: Key of the views in a batch.
        levels: Encoder maps that are pooled, ``"deepest"`` or ``"all"``.
        pool_size: Cells an axis to which they are averaged; see :func:`monai_cl.networks.pool_pyramid`.
        hidden: Width of the projector's hidden layers.
        embedding: Width of the embedding.
        norm: Normalisation in the projector: ``"batch"``, with the statistics of a process' batch, or ``"layer"``, with
            which any number of processes gives the same result, but all embeddings start out nearly alike.

    Raises:
        ValueError: If an option is out of range.
    """

    image = "crop"  # what an image is called in a message

    def __init__(
        self,
        loss: nn.Module,
        *,
        key: str = "image",
        levels: str = "all",
        pool_size: int = 2,
        hidden: int = 512,
        embedding: int = 128,
        norm: str = "batch",
    ) -> None:
        super().__init__()
        require_positive(pool_size=pool_size, hidden=hidden, embedding=embedding)
        if levels not in ("all", "deepest"):
            raise ValueError(f"levels must be 'all' or 'deepest', got {levels!r}")
        self.loss = loss
        self.key = key
        self.levels = levels
        self.needs = frozenset({"encoder" if levels == "all" else "deepest"})
        self.pool_size = pool_size
        self.hidden = hidden
        self.embedding = embedding
        self.norm = norm
        self.projector: nn.Module

    def build(self, network: nn.Module, maps: Maps) -> None:
        """Make the projector."""
        self.projector = Projector(self._pool(maps).shape[1], self.hidden, self.embedding, norm=self.norm)

    def _pool(self, maps: Maps) -> Tensor:
        return pool_pyramid(maps.encoder[-1:] if self.levels == "deepest" else maps.encoder, self.pool_size)

    def embed(self, extract: FeatureExtractor, batch: Mapping[str, Any]) -> Tensor:
        """Embeddings (B, V, D) of the views."""
        images = views_of(batch, self.key).images
        z: Tensor = self.projector(self._pool(extract(images))).unflatten(0, images.shape[:2])
        return z

    def causes_of_collapse(self) -> list[str]:
        """Settings of this term under which embeddings become alike."""
        if self.pool_size > 1:
            return []
        return [f"pool_size=1: the global average of a normalised map is nearly the same for every {self.image}; use 2"]


class InstanceTerm(ImageTerm):
    """Contrast of images: the two views of one are drawn together, those of others of the batch apart.

    Args:
        loss: Loss of two sets of embeddings, (B, D) twice; NT-Xent at temperature 0.5 when left out.
        options: Options of :class:`ImageTerm`.

    References:
        SimCLR, arXiv 2002.05709; of two MR sequences, arXiv 2501.12057.
    """

    def __init__(self, loss: nn.Module | None = None, **options: Any) -> None:
        super().__init__(NTXentLoss(temperature=0.5) if loss is None else loss, **options)

    def forward(self, extract: FeatureExtractor, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of a batch of pairs of views.

        Returns:
            The loss; ``retrieval``, the share of images that are nearest to their other view among those of the batch,
            and ``embedding_std`` (near 1 when embeddings fill the sphere, 0 when they have collapsed).

        Raises:
            ValueError: If a batch holds a single image, which has no negatives, or not two views of each.
        """
        b, v = views_of(batch, self.key).images.shape[:2]
        if b < 2:
            raise ValueError(
                f"batch_size must be at least 2 with the global term, which contrasts the crops of a batch, got "
                f"{b}; take a larger batch_size or set global_weight to 0"
            )
        if v != 2:
            raise ValueError(f"pairs of views are contrasted, got {v} views of each image; set num_views to 2")
        z1, z2 = self.embed(extract, batch).unbind(1)
        loss: Tensor = self.loss(z1, z2)
        with torch.no_grad():
            result = retrieval_at_k(z1.float(), z2.float())
            return loss, {"retrieval": result, "embedding_std": spread(torch.cat([z1, z2]))}

    def probe(self, extract: FeatureExtractor, batch: Mapping[str, Any]) -> Any:
        """Embeddings of the two views."""
        return self.embed(extract, batch).unbind(1)

    def summary(self, records: Sequence[Any]) -> Mapping[str, float | Tensor]:
        """Retrieval accuracy of images, and the health of their embeddings.

        Returns:
            ``retrieval`` (share of images whose other view is the nearest of all), ``chance_retrieval``, ``alignment``
            of the two views and, of enough of them, ``uniformity``, ``effective_rank`` and ``dead_dimensions``.
        """
        health, retrieval = EmbeddingHealth(fewest=ENOUGH), RetrievalMetric()
        for z1, z2 in records:
            retrieval(z1, z2)
            health(z1, z2, rows=torch.cat([z1, z2]))
        count = sum(len(z1) for z1, _ in records)
        result = {"retrieval": float(retrieval.aggregate()), "chance_retrieval": 1 / count}
        return result | {name: float(value) for name, value in health.values().items()}


class PartitionTerm(ImageTerm):
    """Contrast of slices by their place along the body: those of one partition of different patients are alike.

    Args:
        contrast: ``"gd"`` and ``"gd-"``: :class:`monai_cl.losses.PartitionContrastiveLoss`; ``"nt_xent"``:
            :class:`monai_cl.losses.NTXentLoss` of two views; ``"position"``:
            :class:`monai_cl.losses.PositionalContrastiveLoss`; or a loss with the arguments of that of partitions. A
            batch holds ``partition`` and ``volume`` of each image, for ``"position"`` its ``position``.
        temperature: Of the loss, where ``contrast`` is a name.
        levels: Encoder maps that are pooled, ``"deepest"`` as published or ``"all"``.
        hidden: Width of the projector's hidden layers.
        options: The others of :class:`ImageTerm`.

    References:
        arXiv 2006.10511; positional contrastive learning, arXiv 2106.09157.
    """

    image = "slice"

    def __init__(
        self,
        contrast: str | nn.Module = "gd",
        *,
        temperature: float = 0.1,
        levels: str = "deepest",
        hidden: int = 1024,
        **options: Any,
    ) -> None:
        loss = _named_loss(contrast, temperature) if isinstance(contrast, str) else contrast
        super().__init__(loss, levels=levels, hidden=hidden, **options)

    def forward(self, extract: FeatureExtractor, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of a batch of views, and ``embedding_std`` (near 1 when embeddings fill the sphere, 0 when alike)."""
        z = self.embed(extract, batch)
        return self._loss(z, batch), {"embedding_std": spread(z.detach().flatten(0, 1))}

    def _loss(self, z: Tensor, batch: Mapping[str, Any]) -> Tensor:
        b, v = z.shape[:2]
        loss: Tensor
        if isinstance(self.loss, NTXentLoss):
            if v != 2:
                raise ValueError(f"nt_xent contrasts two views of each image, got {v}; set num_views to 2")
            loss = self.loss(z[:, 0], z[:, 1])
            return loss
        if isinstance(self.loss, PositionalContrastiveLoss):
            position = of_batch(batch, "position", z.device).float()
            loss = self.loss(z.flatten(0, 1), position.repeat_interleave(v))
            return loss
        partition, volume = (of_batch(batch, key, z.device).long() for key in ("partition", "volume"))
        # unique over processes whatever each counts from: those of process r are r modulo their number
        world = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
        rank = dist.get_rank() if world > 1 else 0
        image = torch.arange(b, device=z.device) * world + rank
        view = torch.arange(v, device=z.device).repeat(b)
        marks = [mark.repeat_interleave(v) for mark in (partition, image, volume * world + rank)]
        loss = self.loss(z.flatten(0, 1), *marks, view)
        return loss

    def probe(self, extract: FeatureExtractor, batch: Mapping[str, Any]) -> Any:
        """Embeddings of the views, with partition and volume of each image if known."""
        marks = tuple(torch.as_tensor(batch[key]).cpu() for key in ("partition", "volume") if key in batch)
        return self.embed(extract, batch), marks

    def summary(self, records: Sequence[Any]) -> Mapping[str, float | Tensor]:
        """Health of the embeddings, and their accuracy in predicting partitions.

        Returns:
            ``alignment`` of two views, ``uniformity``, ``effective_rank`` and ``dead_dimensions``; with partitions
            ``partition_accuracy``: how often the nearest slices of other volumes are of the same partition, beside
            ``chance_partition``.
        """
        health = EmbeddingHealth()
        for z, _ in records:
            health(z[:, 0], z[:, 1], rows=z[:, 0])
        marked = [(z[:, 0].cpu(), *marks) for z, marks in records if len(marks) == 2]
        result = {name: float(value) for name, value in health.values().items()}
        return {**result, **(_partitions(marked) if marked else {})}


def _partitions(marked: Sequence[tuple[Tensor, Tensor, Tensor]]) -> dict[str, float]:
    metric = KNNProbeMetric(k=_NEIGHBOURS)
    for z, partition, volume in marked:
        metric(z, partition, groups=volume)
    partition, volume = (torch.cat([one[i] for one in marked]) for i in (1, 2))
    others = len(volume) - int(volume.unique(return_counts=True)[1].max())
    if others < _NEIGHBOURS or len(partition.unique()) < 2:
        return {}
    most = int(partition.unique(return_counts=True)[1].max())
    return {"partition_accuracy": float(metric.aggregate()), "chance_partition": most / len(partition)}


def _named_loss(contrast: str, temperature: float) -> nn.Module:
    if contrast not in CONTRASTS:
        raise ValueError(f"contrast must be one of {CONTRASTS} or a loss, got {contrast!r}")
    if contrast == "nt_xent":
        return NTXentLoss(temperature, gather=True)
    if contrast == "position":
        return PositionalContrastiveLoss(temperature=temperature, gather=True)
    return PartitionContrastiveLoss(contrast, temperature, gather=True)


def spread(z: Tensor) -> Tensor:
    """Spread of unit embeddings (N, D) times the root of their width: near 1 on all of the sphere, 0 when alike."""
    flat = F.normalize(z.detach().float(), dim=-1)
    deviation: Tensor = flat.std(dim=0).mean() * flat.shape[1] ** 0.5
    return deviation
