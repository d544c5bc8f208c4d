"""Finding the same place in another image by the likeness of features: how far one lands from it."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from monai_cl.metrics._base import full_precision


def features_at(maps: Sequence[Tensor], places: Tensor, shape: Sequence[int]) -> Tensor:
    r"""Features of several scales at places of an image, each scale at unit length.

    Args:
        maps: Feature maps (C_l, \*S_l) of one image, each over its whole field of view.
        places: Places (N, nd) in voxels of the image; 0 is the centre of the first voxel.
        shape: Spatial shape of the image.

    Returns:
        Features (N, sum C_l), interpolated linearly.
    """
    size = torch.as_tensor(list(shape), device=places.device)
    # centre of voxel i of n at (2 i + 1) / n - 1, axes last to first as grid_sample wants them
    centres = ((2 * places + 1) / size - 1).flip(-1).float()
    grid = centres.reshape(1, len(places), *[1] * (len(size) - 1), len(size))
    rows = [
        F.grid_sample(level[None].float(), grid.to(level.device), padding_mode="border", align_corners=False)
        for level in maps
    ]
    return torch.cat([F.normalize(row.reshape(row.shape[1], -1).T, dim=1) for row in rows], dim=1)


@full_precision
def correspondence_errors(
    source: Sequence[Tensor],
    target: Sequence[Tensor],
    points: Tensor,
    candidates: Tensor,
    *,
    shape: Sequence[int],
    spacing: Sequence[float],
    chunk_size: int = 16384,
) -> Tensor:
    r"""Distance between points and the matches of their features in a second, co-registered image.

    For the features $q$ of a point in the first image, the candidate of the second image with the largest cosine,
    $\hat y = \arg\max_y \cos(q, k_y)$, is taken, and $\lVert \hat y - x \rVert$ in mm is the error. The points
    themselves need not be among the candidates; then a part of the error is their grid.

    Args:
        source: Feature maps (C_l, \*S_l) of the first image, any number of scales.
        target: Map of the second image, of the same channels.
        points: Places (N, nd) in voxels of the images, which lie on one grid.
        candidates: Places (M, nd) of the second image to search.
        shape: Spatial shape of the images.
        spacing: Voxel size in mm along each axis.
        chunk_size: Candidates compared at a time; bounds the memory at ``(N + D) * chunk_size`` values.

    Returns:
        Errors in mm (N,).

    Raises:
        ValueError: If points or candidates are missing, or the channels of the maps differ.

    Example:
        >>> maps = [torch.eye(4).reshape(4, 4, 1)]   # four voxels in a row, each with a feature of its own
        >>> places = torch.tensor([[0.0, 0.0], [3.0, 0.0]])
        >>> row = torch.tensor([[i, 0.0] for i in range(4)])
        >>> correspondence_errors(maps, [maps[0].flip(1)], places, row, shape=(4, 1), spacing=(2.0, 1.0)).tolist()
        [6.0, 6.0]
    """
    if not len(points) or not len(candidates):
        raise ValueError(f"points and candidates must not be empty, got {len(points)} and {len(candidates)}")
    if [m.shape[0] for m in source] != [m.shape[0] for m in target]:
        raise ValueError(
            f"source and target need the same channels, got {[m.shape[0] for m in source]} and "
            f"{[m.shape[0] for m in target]}"
        )
    queries = features_at(source, points, shape)
    best = queries.new_full((len(points),), -torch.inf)
    result = torch.zeros(len(points), dtype=torch.long, device=queries.device)
    for start in range(0, len(candidates), chunk_size):
        keys = features_at(target, candidates[start : start + chunk_size], shape)
        # the length is the same for all queries and keys, one a scale, so the product orders as the cosine
        similarity, index = (queries @ keys.T).max(1)
        better = similarity > best
        best = torch.where(better, similarity, best)
        result = torch.where(better, index + start, result)
    offset = (candidates.to(points)[result.to(points.device)] - points) * torch.tensor(list(spacing)).to(points)
    distance: Tensor = offset.norm(dim=1)
    return distance
