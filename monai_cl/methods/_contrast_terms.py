"""The three contrasts of global and local features, each with its head: embeddings of images, of regions, of voxels."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from monai_cl.losses import (
    CrossVolumeLocalContrastiveLoss,
    DenseContrastiveLoss,
    LocalRegionContrastiveLoss,
    NTXentLoss,
    PartitionContrastiveLoss,
    PositionalContrastiveLoss,
)
from monai_cl.methods._dense_maps import dense_projector
from monai_cl.networks import Projector, pool_pyramid, resized

CONTRASTS = ("gd", "gd-", "nt_xent", "position")


class GlobalTerm(nn.Module):
    """Projector on the encoder's maps, and the contrast of whole images.

    Args:
        width: Width of the pooled maps.
        contrast: One of ``CONTRASTS``, or a loss of embeddings and metadata like
            :class:`monai_cl.losses.PartitionContrastiveLoss`.
        pool_size: Cells an axis to which maps are averaged.
        hidden: Width of the projector's hidden layers.
        embedding: Width of the embedding.
        norm: Normalisation in the projector.
        temperature: Of the loss, where ``contrast`` is a name.
    """

    def __init__(
        self,
        width: int,
        contrast: str | nn.Module,
        *,
        pool_size: int,
        hidden: int,
        embedding: int,
        norm: str,
        temperature: float,
    ) -> None:
        super().__init__()
        self.pool_size = pool_size
        self.projector = Projector(width, hidden, embedding, norm=norm)
        self.loss = _global_loss(contrast, temperature) if isinstance(contrast, str) else contrast

    def embed(self, maps: Sequence[Tensor], views: int) -> Tensor:
        """Embeddings (B, V, D) of maps of (B * V) images."""
        z: Tensor = self.projector(pool_pyramid(maps, self.pool_size)).unflatten(0, (-1, views))
        return z

    def forward(self, z: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Loss of embeddings (B, V, D)."""
        b, v = z.shape[:2]
        loss: Tensor
        if isinstance(self.loss, NTXentLoss):
            if v != 2:
                raise ValueError(f"nt_xent contrasts two views of each image, got {v}; set num_views to 2")
            loss = self.loss(z[:, 0], z[:, 1])
            return loss
        if isinstance(self.loss, PositionalContrastiveLoss):
            loss = self.loss(z.flatten(0, 1), _of_batch(batch, "position", z).float().repeat_interleave(v))
            return loss
        partition, volume = (_of_batch(batch, key, z).long() for key in ("partition", "volume"))
        # unique over processes whatever each counts from: those of process r are r modulo their number
        world = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
        rank = dist.get_rank() if world > 1 else 0
        image = torch.arange(b, device=z.device) * world + rank
        view = torch.arange(v, device=z.device).repeat(b)
        marks = [mark.repeat_interleave(v) for mark in (partition, image, volume * world + rank)]
        loss = self.loss(z.flatten(0, 1), *marks, view)
        return loss


class MapTerm(nn.Module):
    """Head on a map of the decoder, and the contrasts of its regions and voxels.

    Args:
        channels: Channels of the map.
        spatial_dims: Its spatial axes.
        local: Loss of regions of the two views, with its weight.
        across: Loss of regions of other volumes, with its weight.
        dense: Loss of voxels, with its weight.
    """

    def __init__(
        self,
        channels: int,
        spatial_dims: int,
        *,
        local: tuple[nn.Module, float],
        across: tuple[nn.Module, float],
        dense: tuple[nn.Module, float],
    ) -> None:
        super().__init__()
        self.head = dense_projector(spatial_dims, channels, channels, channels)
        terms = {"local": local, "across": across, "dense": dense}
        self.weights = {name: weight for name, (_, weight) in terms.items() if weight > 0}
        self.losses = nn.ModuleDict({name: terms[name][0] for name in self.weights})

    def embed(self, maps: Tensor, views: int) -> Tensor:
        """Embedded maps (B, V, C, *s)."""
        f: Tensor = self.head(maps).unflatten(0, (-1, views))
        return f

    def forward(self, f: Tensor, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Losses of embedded maps (B, V, C, *s), before they are weighted."""
        if f.shape[1] < 2:
            raise ValueError(f"contrast in the decoder needs two views of each image, got {f.shape[1]}")
        f1, f2 = f[:, 0], f[:, 1]
        found: dict[str, Tensor] = {}
        if "local" in self.losses or "across" in self.losses:
            _require_same_places(batch)
        if "local" in self.losses:
            found["local"] = self.losses["local"](f1, f2)
        if "across" in self.losses:
            marks = [_of_batch(batch, key, f).long() for key in ("partition", "volume")]
            found["across"] = self.losses["across"](f1, f2, *marks)
        if "dense" in self.losses:
            coords, valid = places(batch, f.shape[3:], f.device)
            if coords is None or valid is None:
                found["dense"] = self.losses["dense"](f1, f2)
            else:
                found["dense"] = self.losses["dense"](f1, f2, coords[:, 0], coords[:, 1], valid[:, :2])
        return found


def local_losses(
    spatial_dims: int, temperature: float, *, region_size: int, exclusion_radius: float, num_anchors: int | None
) -> dict[str, nn.Module]:
    """The losses of a map, by name of their term."""
    return {
        "local": LocalRegionContrastiveLoss(spatial_dims, region_size, temperature=temperature),
        "across": CrossVolumeLocalContrastiveLoss(spatial_dims, region_size, temperature=temperature),
        "dense": DenseContrastiveLoss(spatial_dims, temperature, num_anchors, exclusion_radius),
    }


def places(batch: Mapping[str, Any], size: Sequence[int], device: torch.device) -> tuple[Tensor | None, Tensor | None]:
    """Coordinates (B, V, nd, *size) and validity (B, V, *size) of the voxels of a map; nothing where a batch has none.

    The centre of a voxel of the map is the mean of the centres of the voxels it covers, so averages are exact for
    affine views; a voxel is valid if all that it covers are.
    """
    if "coords" not in batch or "valid" not in batch:
        return None, None
    coords, valid = batch["coords"].to(device).float(), batch["valid"].to(device)
    b, v = coords.shape[:2]
    coarse = resized(coords.flatten(0, 1), size)
    whole = resized(valid.flatten(0, 1)[:, None].float(), size)
    return coarse.unflatten(0, (b, v)), whole[:, 0].unflatten(0, (b, v)) > 1 - 1e-3


def _require_same_places(batch: Mapping[str, Any]) -> None:
    coords = batch.get("coords")
    if coords is not None and not torch.allclose(coords[:, 0], coords[:, 1], atol=0.01):
        raise ValueError(
            "regions are compared at the same index, so both views must show the same place there: leave flips, crops "
            "and deformations out of the chain of the views (before it they serve both), or use the dense term"
        )


def _global_loss(contrast: str, temperature: float) -> nn.Module:
    if contrast not in CONTRASTS:
        raise ValueError(f"contrast must be one of {CONTRASTS} or a loss, got {contrast!r}")
    if contrast == "nt_xent":
        return NTXentLoss(temperature, gather=True)
    if contrast == "position":
        return PositionalContrastiveLoss(temperature=temperature, gather=True)
    return PartitionContrastiveLoss(contrast, temperature, gather=True)


def _of_batch(batch: Mapping[str, Any], key: str, like: Tensor) -> Tensor:
    if key not in batch:
        raise ValueError(
            f"a batch must hold {key!r} of each image for this contrast, got {sorted(map(str, batch))}; draw slices "
            "with PartitionBatchSampler"
        )
    return torch.as_tensor(batch[key], device=like.device)
