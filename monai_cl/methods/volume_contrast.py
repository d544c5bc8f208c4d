"""Volume contrast as a pretraining method."""

from collections.abc import Iterable
from copy import deepcopy
from typing import Any

import torch
import torch.nn.functional as F
from monai.utils import ensure_tuple_rep
from torch import Tensor, nn

from monai_cl.losses import VolumeContrastLoss
from monai_cl.methods.base import Method
from monai_cl.metrics import (
    DeadDimensionsMetric,
    EffectiveRankMetric,
    InstanceAlignmentMetric,
    InstanceUniformityMetric,
    PositionMetric,
)
from monai_cl.networks import (
    MomentumTeacher,
    Projector,
    cosine_momentum,
    encoder_features,
    encoder_modules,
    input_channels,
    pool_pyramid,
)


class _Embedder(nn.Module):
    """Encoder, pooling, dropout and projector: crops in, embeddings out."""

    def __init__(self, network: nn.Module, projector: nn.Module, pool_size: int, dropout: float) -> None:
        super().__init__()
        self.network = network
        self.projector = projector
        self.pool_size = pool_size
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        pooled = pool_pyramid(encoder_features(self.network, x), self.pool_size)
        embedding: Tensor = self.projector(F.dropout(pooled, self.dropout, self.training))
        return embedding


class VolumeContrast(Method):
    """Learn where in the body a crop lies, by its likeness to a grid of base crops of the same volume.

    Takes the views of :class:`monai_cl.transforms.VolumeContrastCropsd`. The encoder of ``network`` is trained; its
    decoder is frozen and handed over untouched.

    Args:
        network: A MONAI encoder-decoder (see :func:`monai_cl.networks.encoder_features`).
        crop_size: Edge lengths of the crops in voxels, or one for all axes; checked against the network here, so
            that a crop it cannot take stops the run before it starts.
        key: Key of the views in a batch.
        loss: The loss; :class:`monai_cl.losses.VolumeContrastLoss` with its defaults when left out.
        pool_size: Cells an axis to which feature maps are averaged; see :func:`monai_cl.networks.pool_pyramid`.
        hidden: Width of the projector's hidden layers.
        embedding: Width of the embedding.
        norm: Normalisation in the projector, ``"batch"`` or ``"layer"``.
        dropout: Share of pooled features dropped in training, element by element.
        momentum: Momentum of the teacher at the start; it rises to 1 along a half cosine.

    Raises:
        ValueError: If the network is unknown or cannot take ``crop_size``.

    References:
        VoCo, arXiv 2402.17300; arXiv 2410.09890.
    """

    def __init__(
        self,
        network: nn.Module,
        crop_size: int | tuple[int, ...],
        *,
        key: str = "image",
        loss: VolumeContrastLoss | None = None,
        pool_size: int = 2,
        hidden: int = 512,
        embedding: int = 256,
        norm: str = "batch",
        dropout: float = 0.2,
        momentum: float = 0.99,
    ) -> None:
        super().__init__()
        self.key = key
        self.loss = VolumeContrastLoss() if loss is None else loss
        self.momentum = momentum
        width = _pooled_width(network, crop_size, pool_size)
        network.requires_grad_(False)
        for module in encoder_modules(network):
            module.requires_grad_(True)
        self.student = _Embedder(network, Projector(width, hidden, embedding, norm=norm), pool_size, dropout)
        self.teacher = MomentumTeacher(self.student)

    @property
    def network(self) -> nn.Module:  # type: ignore[override]
        """The network being pretrained."""
        return self.student.network

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Losses of a batch of views.

        Args:
            batch: ``batch[key]`` with ``crops`` (B, S, C, *r), ``bases`` (B, K, C, *r) and ``overlap`` (B, S, K).

        Returns:
            The parts of the loss, ``position_accuracy`` (share of crops whose most similar base is the one that
            overlaps them most) and ``embedding_std`` (spread of unit embeddings times the root of their width: near
            1 when they fill the sphere, 0 when they have collapsed).
        """
        views = batch[self.key]
        crops, bases, overlap = views["crops"], views["bases"], views["overlap"]
        x, z = self._embed(self.student, crops, bases)
        x_t, z_t = self._embed(self.teacher, crops, bases)
        losses: dict[str, Tensor] = self.loss(x, z, overlap, x_t, z_t)
        return {**losses, **_health(x.detach(), z_t, overlap)}

    def after_step(self, progress: float) -> None:
        """Move the teacher towards the student."""
        self.teacher.update(self.student, cosine_momentum(progress, self.momentum))

    @torch.no_grad()
    def probe(self, batches: Iterable[dict[str, Any]]) -> dict[str, float]:
        """Position accuracy and error, and the spread of the teacher's embeddings.

        Returns:
            ``position_accuracy`` and ``position_error_mm`` beside what a blind guess gives (``chance_accuracy``,
            ``chance_error_mm``); ``alignment`` (squared distance between a crop and its brightened, stretched copy),
            ``uniformity`` (lower is more spread, 0 is collapse), ``effective_rank`` and ``dead_dimensions`` of the
            bases' embeddings.
        """
        position, alignment, uniformity = PositionMetric(), InstanceAlignmentMetric(), InstanceUniformityMetric()
        rank, dead = EffectiveRankMetric(), DeadDimensionsMetric()
        for batch in batches:
            views = batch[self.key]
            x, z = self._embed(self.teacher, views["crops"], views["bases"])
            changed, _ = self._embed(self.teacher, 1.1 * views["crops"] + 0.05, views["bases"])
            position(x, z, overlap=views["overlap"], centers=views["base_centers"])
            alignment(x.flatten(0, 1), changed.flatten(0, 1))
            for metric in (uniformity, rank, dead):
                metric(z.flatten(0, 1))
        where = position.aggregate()
        values = {
            "position_accuracy": where["accuracy"],
            "chance_accuracy": where["chance_accuracy"],
            "position_error_mm": where["distance_mm"],
            "chance_error_mm": where["chance_distance_mm"],
            "alignment": alignment.aggregate(),
            "uniformity": uniformity.aggregate(),
            "effective_rank": rank.aggregate(),
            "dead_dimensions": dead.aggregate(),
        }
        return {name: float(value) for name, value in values.items()}

    def causes_of_collapse(self) -> list[str]:
        """Settings of this method under which embeddings become alike."""
        causes = []
        if self.student.pool_size == 1:
            causes.append(
                "pool_size=1: the global average of a normalised map is nearly the same for every crop; use 2"
            )
        if self.loss.regularizer_weight == 0:
            causes.append("regularizer_weight=0: nothing spreads the bases of a volume apart")
        return causes

    def _embed(self, embedder: nn.Module, crops: Tensor, bases: Tensor) -> tuple[Tensor, Tensor]:
        b, s, k = crops.shape[0], crops.shape[1], bases.shape[1]
        if crops.shape[2:] == bases.shape[2:]:  # one pass, so that batch statistics cover crops and bases alike
            both: Tensor = embedder(torch.cat([crops.flatten(0, 1), bases.flatten(0, 1)]))
            x, z = both.split([b * s, b * k])
        else:
            x, z = embedder(crops.flatten(0, 1)), embedder(bases.flatten(0, 1))
        return x.unflatten(0, (b, s)), z.unflatten(0, (b, k))


@torch.no_grad()
def _health(x: Tensor, z: Tensor, overlap: Tensor) -> dict[str, Tensor]:
    x, z = F.normalize(x.float(), dim=-1), F.normalize(z.float(), dim=-1)
    predicted = (x @ z.mT).argmax(-1, keepdim=True)
    # ties between equally overlapping bases count as right whichever of them is chosen
    right = overlap.gather(-1, predicted) >= overlap.amax(-1, keepdim=True) - 1e-6
    flat = z.flatten(0, 1)
    return {
        "position_accuracy": right.float().mean(),
        "embedding_std": flat.std(dim=0).mean() * flat.shape[1] ** 0.5,
    }


def _pooled_width(network: nn.Module, crop_size: int | tuple[int, ...], pool_size: int) -> int:
    # a copy in training mode: some networks take a size in evaluation that their normalisation refuses in training
    trial = deepcopy(network).cpu().train()
    nd = next(p.ndim for p in trial.parameters() if p.ndim > 2) - 2
    size = ensure_tuple_rep(crop_size, nd)
    try:
        with torch.no_grad():
            maps = encoder_features(trial, torch.zeros(2, input_channels(trial), *size))
    except (RuntimeError, ValueError) as error:
        if "network must be one of" in str(error):
            raise
        raise ValueError(
            f"crop_size {size} cannot pass through {type(network).__name__}: {error}; choose a larger crop whose "
            "sides the network's strides divide"
        ) from error
    return pool_pyramid(maps, pool_size).shape[1]
