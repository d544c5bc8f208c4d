"""Dense contrast: each voxel of a view against all others, with the same place in the other view as positive."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from monai_cl.losses._anchored import AnchoredLoss
from monai_cl.losses._checks import require_finite, require_shape
from monai_cl.losses._directed import Costs, added, log_sum
from monai_cl.losses._gather import find_ranks
from monai_cl.losses._rows import fixed_precision, unit_rows

_WHOLE = 1e-3  # a place nearer than this to a voxel is that voxel


class _View(NamedTuple):
    rows: Tensor  # (L, C) of unit length
    places: Tensor  # (L, nd) where voxels lie, in the source if it is known
    valid: Tensor  # (L,)


class DenseContrastiveLoss(AnchoredLoss):
    r"""Contrast of a voxel against all voxels of both views, with its place in the other view as positive.

    With an anchor :math:`a` at source place :math:`x_a`, the feature :math:`p` of the other view at that place and
    :math:`s` the cosine over the temperature,

    .. math::
        L = \operatorname{mean}_a \left[-\log \frac{e^{s_{ap}}}{e^{s_{ap}} + \sum_{k \in N(a)} e^{s_{ak}}}\right],
        \qquad N(a) = \{k \ne a, p:\ \lVert x_k - x_a \rVert > r\}

    Anchors are voxels of both views. Without coordinates the same index is the same place. With them the place is
    found in the other view to first order about its nearest voxel, which is no negative then, and features are
    interpolated before they are normalised; an anchor whose place is not wholly inside of the other view's valid part
    is skipped. Similarities are computed in chunks of anchors and again in the backward pass, so that the memory is
    ``chunk_size`` times the number of voxels. No map leaves its process: the loss is one of each image.

    Args:
        spatial_dims: 2 or 3.
        temperature: Divisor of the cosine similarities.
        num_anchors: Anchors drawn in each view of each image, where the other view may show the same place; None, or as
            many as voxels exist, takes all.
        exclusion_radius: The radius :math:`r` within which nothing is a negative, in voxels of the map, or in the unit
            of the coordinates where they are given; 0 excludes nothing more.
        chunk_size: Anchors a step.
        gather: Count anchors over all processes, so that the mean is theirs where they have different numbers.
        reduction: ``"mean"`` or ``"sum"`` over anchors, or ``"none"``, (B, 2, anchors), in an order that is drawn.

    Shapes:
        ``f1``, ``f2`` (B, C, *S); ``coords1``, ``coords2`` (B, nd, *S); ``valid`` (B, *S) for both views, or
        (B, 2, *S) for each.

    Raises:
        ValueError: If shapes disagree, one of the coordinates is missing, or an option is out of range.
        NonFiniteError: If a feature or a coordinate is NaN or infinite.

    References:
        Contrastive learning of global and local features, arXiv 2006.10511; DenseCL, arXiv 2011.09157.

    Example:
        >>> DenseContrastiveLoss(2)(torch.ones(1, 3, 2, 2), torch.ones(1, 3, 2, 2))  # log(2 L - 1)
        tensor(1.9459)
    """

    def __init__(
        self,
        spatial_dims: int,
        temperature: float = 0.1,
        num_anchors: int | None = 1024,
        exclusion_radius: float = 0,
        chunk_size: int = 512,
        *,
        gather: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(temperature, gather=gather, reduction=reduction)
        if spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims must be 2 or 3, got {spatial_dims!r}")
        for name, value in (("num_anchors", num_anchors), ("chunk_size", chunk_size)):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value!r}")
        if not exclusion_radius >= 0:
            raise ValueError(f"exclusion_radius must be at least 0, got {exclusion_radius!r}")
        self.spatial_dims = spatial_dims
        self.num_anchors = num_anchors
        self.exclusion_radius = exclusion_radius
        self.chunk_size = chunk_size

    def forward(
        self,
        f1: Tensor,
        f2: Tensor,
        coords1: Tensor | None = None,
        coords2: Tensor | None = None,
        valid: Tensor | None = None,
    ) -> Tensor:
        """Compute the loss.

        Args:
            f1: Feature maps of the first view, (B, C, *S).
            f2: Feature maps of the second view.
            coords1: Where each voxel of the first map lies in the source, (B, nd, *S).
            coords2: The same of the second map.
            valid: Which voxels take part, (B, *S) or (B, 2, *S).
        """
        self._check(f1, f2, coords1, coords2, valid)
        both = f1.new_ones((len(f1), 2, *f1.shape[2:]), dtype=torch.bool) if valid is None else valid.bool()
        both = both if both.ndim == f1.ndim else torch.stack([both, both], dim=1)
        with fixed_precision(f1):
            maps = [f if f.dtype == torch.float64 else f.float() for f in (f1, f2)]
            coords = [None if c is None else c.detach().to(maps[0].dtype) for c in (coords1, coords2)]
            costs, weights = [], []
            for b in range(len(f1)):
                views = [_view(m[b], None if c is None else c[b], both[b, v])
                         for v, (m, c) in enumerate(zip(maps, coords, strict=True))]  # fmt: skip
                for v in range(2):
                    there = coords[1 - v]
                    result = self._one_way(
                        views[v], views[1 - v], maps[1 - v][b], None if there is None else there[b]
                    )  # fmt: skip
                    costs.append(result.cost)
                    weights.append(result.weight)
            shape = (len(f1), 2, -1)
            result = Costs(torch.stack(costs).reshape(shape), torch.stack(weights).reshape(shape))
            return self.reduce(result, find_ranks(f1, gather=self.gather))

    def _one_way(self, here: _View, there: _View, other_map: Tensor, other_coords: Tensor | None) -> Costs:
        anchors = self._draw(here.valid if other_coords is None else here.valid & _within_reach(here, there))
        if other_coords is None:
            same, positive, known = anchors, there.rows[anchors], there.valid[anchors]
        else:
            at, same = find_places(here.places[anchors], other_coords, chunk=self.chunk_size)
            positive = unit_rows(sample(other_map, at))
            inside = sample(there.valid.to(at.dtype).reshape(1, *other_map.shape[1:]), at)[:, 0]
            known = (inside > 1 - 1e-3) & there.valid[same]
        known = known & here.valid[anchors]
        keys = torch.cat([here.rows, there.rows])
        cost, weight = [], []
        for index in torch.arange(len(anchors), device=keys.device).split(self.chunk_size):
            part = _chunk if len(anchors) <= self.chunk_size else _checkpointed
            result = part(keys, positive[index], anchors[index], same[index], here, there,
                         self.temperature, float(self.exclusion_radius))  # fmt: skip
            cost.append(result[0] * known[index])
            weight.append(result[1] * known[index])
        return Costs(torch.cat(cost), torch.cat(weight))

    def _draw(self, valid: Tensor) -> Tensor:
        if self.num_anchors is None or self.num_anchors >= len(valid):
            return torch.arange(len(valid), device=valid.device)
        score = torch.rand(len(valid), device=valid.device).masked_fill(~valid, -1.0)
        return score.topk(self.num_anchors).indices

    def _check(
        self, f1: Tensor, f2: Tensor, coords1: Tensor | None, coords2: Tensor | None, valid: Tensor | None
    ) -> None:
        if f1.ndim != self.spatial_dims + 2 or not f1.is_floating_point():
            raise ValueError(
                f"f1 must be feature maps (B, C, *S) with {self.spatial_dims} spatial axes, got {tuple(f1.shape)}"
            )
        if not f1.numel():
            raise ValueError(f"f1 must hold an image, a channel and a voxel at least, got shape {tuple(f1.shape)}")
        require_shape("f2", f2, tuple(f1.shape))
        if (coords1 is None) != (coords2 is None):
            raise ValueError("coords1 and coords2 must be given together")
        for name, coords in (("coords1", coords1), ("coords2", coords2)):
            if coords is not None:
                require_shape(name, coords, (len(f1), self.spatial_dims, *f1.shape[2:]))
        if valid is not None:
            expected = (len(f1), *f1.shape[2:])
            require_shape("valid", valid, expected if valid.ndim < f1.ndim else (len(f1), 2, *f1.shape[2:]))
        require_finite(f1=f1, f2=f2, coords1=coords1, coords2=coords2)


def _view(maps: Tensor, coords: Tensor | None, valid: Tensor) -> _View:
    if coords is None:
        axes = [torch.arange(n, device=maps.device, dtype=maps.dtype) for n in maps.shape[1:]]
        coords = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    return _View(unit_rows(maps.flatten(1).mT), coords.flatten(1).mT, valid.flatten())


def _within_reach(here: _View, there: _View) -> Tensor:
    """Find places of one view in the box around those of the other: no anchor is drawn in vain far from it."""
    low, high = (there.places.masked_fill(~there.valid[:, None], inf) for inf in (torch.inf, -torch.inf))
    return ((here.places >= low.amin(0)) & (here.places <= high.amax(0))).all(1)


def _checkpointed(*inputs: object) -> tuple[Tensor, Tensor]:
    result: tuple[Tensor, Tensor] = checkpoint(_chunk, *inputs, use_reentrant=False)
    return result


def _chunk(
    keys: Tensor, positive: Tensor, anchors: Tensor, same: Tensor, here: _View, there: _View, t: float, radius: float
) -> tuple[Tensor, Tensor]:
    rows, count = here.rows[anchors] / t, torch.arange(len(anchors), device=keys.device)
    others = torch.cat([here.valid, there.valid]).repeat(len(anchors), 1)
    others[count, anchors] = False
    others[count, len(here.valid) + same] = False
    if radius > 0:
        for start, view in ((0, here), (len(here.valid), there)):
            others[:, start : start + len(view.valid)] &= torch.cdist(here.places[anchors], view.places) > radius
    total = log_sum(rows @ keys.mT, others)
    weight = others.any(1).to(keys.dtype)
    return added(total - (rows * positive).sum(1)) * weight, weight


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
    result = F.grid_sample(maps[None], grid, padding_mode="zeros", align_corners=False)
    return result.reshape(len(maps), len(places)).mT
