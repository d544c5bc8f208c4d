"""Correspondence of the voxels of two views, from the source coordinates of both."""

import torch
import torch.nn.functional as F
from torch import Tensor

_WHOLE = 1e-3  # a place nearer than this to a voxel is that voxel


def find_places(points: Tensor, coords: Tensor, *, chunk: int) -> tuple[Tensor, Tensor]:
    """Fractional voxel index in a view of points of the source, to first order about the nearest voxel.

    Args:
        points: Source coordinates, (A, nd).
        coords: Source coordinates of the voxels of the view, (nd, *S).
        chunk: Points a step.

    Returns:
        Places (A, nd), in voxels, and the flat index of the nearest voxel (A,).
    """
    size, flat = coords.shape[1:], coords.flatten(1).mT
    nearest = torch.cat([torch.cdist(part, flat).argmin(1) for part in points.split(chunk)])
    slopes = torch.stack([_slope(coords, axis) for axis in range(len(size))], dim=-1)  # (nd, *S, nd)
    slopes = slopes.flatten(1, -2).movedim(1, 0)[nearest]
    step = (torch.linalg.pinv(slopes) @ (points - flat[nearest])[..., None])[..., 0]
    places = torch.stack(torch.unravel_index(nearest, size), dim=1) + step
    return torch.where((places - places.round()).abs() < _WHOLE, places.round(), places), nearest


def _slope(coords: Tensor, axis: int) -> Tensor:
    if coords.shape[axis + 1] == 1:
        return torch.zeros_like(coords)
    return torch.gradient(coords, dim=axis + 1)[0]


def sample(maps: Tensor, places: Tensor) -> Tensor:
    """Values of a map (C, *S) at places (A, nd) in voxels, linear between voxels, zero outside: (A, C)."""
    size = torch.tensor(maps.shape[1:], device=maps.device, dtype=places.dtype)
    grid = ((2 * places + 1) / size - 1).flip(1)
    grid = grid.reshape(1, len(places), *(1,) * (len(size) - 1), len(size)).to(maps.dtype)
    found = F.grid_sample(maps[None], grid, padding_mode="zeros", align_corners=False)
    return found.reshape(len(maps), len(places)).mT
