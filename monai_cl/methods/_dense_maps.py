"""Feature maps of any network on the grid of a dense contrast, and the retrieval of their voxels."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from monai.networks.layers import Conv, Norm
from torch import Tensor, nn

from monai_cl.metrics import nearest_matches
from monai_cl.networks import resized


def hypercolumns(maps: Sequence[Tensor], size: Sequence[int]) -> Tensor:
    """Join all levels on one grid, each voxel of each level at unit length: (B, sum C_l, *size)."""
    return torch.cat([F.normalize(resized(m, size), dim=1) for m in maps], dim=1)


def pointwise(spatial_dims: int, channels: int, out_channels: int, *, bias: bool = True) -> nn.Module:
    """A linear map in each voxel."""
    conv: nn.Module = Conv[Conv.CONV, spatial_dims](channels, out_channels, kernel_size=1, bias=bias)
    return conv


class DenseHead(nn.Sequential):
    """Head of a map whose voxels are compared: linear, batch norm, ReLU, linear, in each voxel.

    Features of a decoder are positive and vary about a mean: any two point much the same way, and more so after a head
    without a norm. A contrast that starts out blind learns first what is easiest, where in the crop a voxel lies.
    """

    def build(self, spatial_dims: int, channels: int, hidden: int, out_channels: int) -> None:
        """Make the layers; where another term has made them, nothing is changed."""
        if len(self):
            return
        self.append(pointwise(spatial_dims, channels, hidden, bias=False))
        self.append(Norm[Norm.BATCH, spatial_dims](hidden))
        self.append(nn.ReLU())
        self.append(pointwise(spatial_dims, hidden, out_channels, bias=False))


class MatchedVoxels(NamedTuple):
    """Voxels of the first view that the second one shows too.

    Attributes:
        first: Their embeddings (N, D).
        second: Features at their places in the second view (N, D), nearest voxel.
        error: Distance of the most similar voxel of the second view from the place, in mm (N,).
        blind: Distance of the voxel of the second view that has the same index, in mm (N,): the error of a network
            that knows where in the crop a voxel lies and nothing of what it shows.
    """

    first: Tensor
    second: Tensor
    error: Tensor
    blind: Tensor


def dense_rows(maps: Sequence[Tensor], coords: Tensor, valid: Tensor, *, count: int) -> MatchedVoxels:
    """Look for voxels of the first view in the second, by the likeness of their embeddings.

    Args:
        maps: Embeddings of both views, (B, D, *S) twice.
        coords: Source coordinates of their voxels in mm, (B, 2, nd, *S).
        valid: Which voxels count, (B, 2, *S).
        count: Most voxels of each image, evenly spread.
    """
    parts = []
    for b in range(len(coords)):
        (p1, p2), (ok1, ok2) = coords[b].flatten(2).movedim(1, 2), valid[b].flatten(1)
        q1, q2 = (m[b].flatten(1).float() for m in maps)
        there, where = p2[ok2], q2[:, ok2]
        if not len(there):
            continue
        pick = ok1.nonzero()[:, 0]
        pick = pick[torch.linspace(0, len(pick) - 1, min(count, len(pick))).long().to(pick.device)]
        distance, same = torch.cdist(p1[pick], there).min(1)
        step = torch.cdist(there[:1], there)[0]
        shown = distance <= step[step > 0].min() if len(there) > 1 else distance >= 0  # within a voxel of the grid
        pick, same = pick[shown], same[shown]
        if not len(pick):
            continue
        match = nearest_matches(q1[None, :, pick], where[None])[0]
        error = (there[match] - p1[pick]).norm(dim=1)
        blind = (p2[pick] - p1[pick]).norm(dim=1)
        parts.append(MatchedVoxels(q1[:, pick].T, where[:, same].T, error, blind))
    if not parts:
        empty = maps[0].new_zeros(0)
        rows = maps[0].new_zeros(0, maps[0].shape[1])
        return MatchedVoxels(rows, rows, empty, empty)
    return MatchedVoxels(*(torch.cat(each) for each in zip(*parts, strict=True)))
