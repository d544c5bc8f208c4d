"""What is looked at in embeddings of slices and of their places, on volumes that are not trained on."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from monai_cl.methods._contrast_terms import places
from monai_cl.methods._dense_maps import dense_rows
from monai_cl.methods._embedding_health import EmbeddingHealth
from monai_cl.metrics import KNNProbeMetric

_VOXELS = 256  # of each image, evenly spread
_NEIGHBOURS = 5


class Probe:
    """Collects embeddings batch by batch."""

    def __init__(self) -> None:
        self._health = EmbeddingHealth()
        self._partition = KNNProbeMetric(k=_NEIGHBOURS)
        self._partitions: list[Tensor] = []
        self._volumes: list[Tensor] = []
        self._errors: list[Tensor] = []
        self._voxel = float("inf")

    def add_images(self, z: Tensor, batch: Mapping[str, Any]) -> None:
        """Embeddings (B, V, D)."""
        self._health(z[:, 0], z[:, 1], rows=z[:, 0])
        if "partition" in batch and "volume" in batch:
            partition, volume = (torch.as_tensor(batch[key]).cpu() for key in ("partition", "volume"))
            self._partition(z[:, 0].cpu(), partition, groups=volume)
            self._partitions.append(partition)
            self._volumes.append(volume)

    def add_maps(self, f: Tensor, batch: Mapping[str, Any], *, count: bool) -> None:
        """Embedded maps (B, V, C, *s); ``count`` their voxels in the measures of health."""
        size = f.shape[3:]
        coords, valid = places(batch, size, f.device)
        if coords is None or valid is None:
            axes = [torch.arange(n, device=f.device, dtype=torch.float32) for n in size]
            coords = torch.stack(torch.meshgrid(*axes, indexing="ij")).expand(len(f), 2, -1, *size)
            valid = torch.ones(len(f), 2, *size, dtype=torch.bool, device=f.device)
        found = dense_rows((f[:, 0], f[:, 1]), coords[:, :2], valid[:, :2], count=_VOXELS)
        self._errors.append(found.error.cpu())
        self._voxel = min(self._voxel, _voxel(coords))
        if count and len(found.first):
            self._health(found.first, found.second, rows=found.first)

    def values(self) -> dict[str, float | Tensor]:
        """All that there was something to tell about."""
        found: dict[str, Tensor | float] = {}
        if self._health.rows:
            found |= self._health.values()
        if self._partitions:
            partition, volume = torch.cat(self._partitions), torch.cat(self._volumes)
            others = len(volume) - int(volume.unique(return_counts=True)[1].max())
            if others >= _NEIGHBOURS and len(partition.unique()) > 1:
                found["partition_accuracy"] = self._partition.aggregate()
                found["chance_partition"] = float(partition.unique(return_counts=True)[1].max()) / len(partition)
        if self._errors and len(error := torch.cat(self._errors)):
            found["place_error"] = error.median()
            found["place_accuracy"] = (error <= 1.001 * self._voxel).float().mean()
        return {name: float(value) for name, value in found.items()}


def _voxel(coords: Tensor) -> float:
    """Smallest distance of neighbours in a map, from coordinates (B, V, nd, *s)."""
    steps = [coords.diff(dim=3 + axis).norm(dim=2) for axis in range(coords.ndim - 3) if coords.shape[3 + axis] > 1]
    return min((float(step.min()) for step in steps), default=0.0)
