"""Alignment: how close the embeddings of two views of the same thing are."""

from typing import Any

import torch
from torch import Tensor

from monai_cl.losses._checks import require_positive, require_shape
from monai_cl.metrics._base import BufferedMetric, as_maps, as_rows, full_precision, unit


@full_precision
def alignment(x: Tensor, y: Tensor, alpha: float = 2.0) -> Tensor:
    r"""Mean distance between partners: :math:`\operatorname{mean}_i \lVert x_i - y_i \rVert_2^\alpha` on the sphere.

    0 when both views of everything are the same point, which collapse reaches too: read it beside uniformity. For
    independent uniform embeddings and ``alpha=2`` it is 2 on average.

    Args:
        x: Embeddings of one view, (N, D); brought to unit length here.
        y: Embeddings of the other view, (N, D); row ``i`` is the partner of row ``i`` of ``x``.
        alpha: Exponent, positive.

    Returns:
        0-dim float32 (float64 for float64 inputs), at least 0.

    Raises:
        ValueError: If shapes disagree or ``alpha`` is not positive.
        NonFiniteError: If an embedding holds NaN or infinity.

    References:
        Wang and Isola, arXiv 2005.10242.

    Example:
        >>> x, y = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 5.0]])
        >>> round(alignment(x, x).item(), 4), round(alignment(x, y).item(), 4)
        (0.0, 2.0)
    """
    return _partner_distances(x, y, alpha).mean()


@full_precision
def dense_alignment(
    z1: Tensor, z2: Tensor, idx1: Tensor | None = None, idx2: Tensor | None = None, alpha: float = 2.0
) -> Tensor:
    r"""Alignment of the voxels of two feature maps that show the same anatomy.

    :math:`\operatorname{mean}_{b,m} \lVert z_1[b, :, i_m] - z_2[b, :, j_m] \rVert_2^\alpha` with each voxel brought
    to unit length over its channels. The correspondence undoes the augmentation: without it a flipped view is
    compared with the wrong side of the body. This project's definition.

    Args:
        z1: Feature maps of one view, (B, C, *S1).
        z2: Feature maps of the other view, (B, C, *S2).
        idx1: Voxels of ``z1`` as indices into its flattened spatial axes, (B, M), or (M,) for all images alike.
            A pair with a negative index on either side has no partner and is left out.
        idx2: Their partners in ``z2``, like ``idx1``. Both left out: same position, for maps of one shape.
        alpha: Exponent, positive.

    Returns:
        0-dim mean over all pairs of all images, at least 0.

    Raises:
        ValueError: If shapes disagree, an index lies outside its map, or no pair is left.
        NonFiniteError: If a map holds NaN or infinity.

    Example:
        >>> z = torch.randn(1, 4, 3)
        >>> straight, mirrored = torch.tensor([0, 1, 2]), torch.tensor([2, 1, 0])
        >>> dense_alignment(z, z.flip(2), straight, mirrored).item()
        0.0
        >>> bool(dense_alignment(z, z.flip(2)) > 0)
        True
    """
    sums, counts = _dense_sums(z1, z2, idx1, idx2, alpha)
    return _pair_mean(sums, counts)


@full_precision
@torch.no_grad()
def nearest_matches(z1: Tensor, z2: Tensor, chunk_size: int = 1024) -> Tensor:
    r"""Most similar voxel of ``z2`` for each voxel of ``z1``: :math:`\arg\max_j \cos(z_1[:, i], z_2[:, j])`.

    A correspondence for :func:`dense_alignment` where none is known; beside the known one, the share of voxels that
    agree measures how well features locate their place.

    Args:
        z1: Feature maps, (B, C, *S1).
        z2: Feature maps, (B, C, *S2).
        chunk_size: Voxels of ``z1`` compared at a time; bounds the memory at ``B * chunk_size * voxels``.

    Returns:
        Flat voxel indices into ``z2``, (B, V1).

    Example:
        >>> z = torch.eye(3)[None]
        >>> nearest_matches(z, z.flip(2)).tolist()
        [[2, 1, 0]]
    """
    require_positive(chunk_size=chunk_size)
    a, b = unit(as_maps("z1", z1), dim=1), unit(as_maps("z2", z2), dim=1)
    require_shape("z2 without its spatial axes", b[:, :, 0], (a.shape[0], a.shape[1]))
    return torch.cat([(part.mT @ b).argmax(-1) for part in a.split(chunk_size, dim=2)], dim=1)


class InstanceAlignmentMetric(BufferedMetric):
    """:func:`alignment` over an epoch: call with both views' embeddings, (B, D) and (B, D).

    Args:
        alpha: Exponent, positive.

    Example:
        >>> metric = InstanceAlignmentMetric()
        >>> _ = metric(torch.eye(2), torch.eye(2)), metric(torch.eye(2)[:1], torch.eye(2)[1:])
        >>> round(metric.aggregate().item(), 4)
        0.6667
    """

    def __init__(self, alpha: float = 2.0) -> None:
        super().__init__()
        require_positive(alpha=alpha)
        self.alpha = alpha

    @full_precision
    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **kwargs: Any) -> Tensor:
        return _partner_distances(y_pred, _second_view(y), self.alpha)

    def aggregate(self) -> Tensor:
        """Mean over all pairs, 0-dim."""
        return self.gathered()[0].mean()


class DenseAlignmentMetric(BufferedMetric):
    """:func:`dense_alignment` over an epoch: call with two batches of maps and, by name, ``idx1`` and ``idx2``.

    The mean is over all pairs of voxels, so an image with more pairs weighs more.

    Args:
        alpha: Exponent, positive.
    """

    def __init__(self, alpha: float = 2.0) -> None:
        super().__init__()
        require_positive(alpha=alpha)
        self.alpha = alpha

    @full_precision
    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **kwargs: Any) -> list[Tensor]:
        return list(_dense_sums(y_pred, _second_view(y), kwargs.get("idx1"), kwargs.get("idx2"), self.alpha))

    def aggregate(self) -> Tensor:
        """Mean over all pairs of voxels of all images, 0-dim."""
        sums, counts = self.gathered()
        return _pair_mean(sums, counts)


def _partner_distances(x: Tensor, y: Tensor, alpha: float) -> Tensor:
    require_positive(alpha=alpha)
    x, y = as_rows("x", x), as_rows("y", y)
    require_shape("y", y, tuple(x.shape))
    distance: Tensor = torch.linalg.vector_norm(unit(x) - unit(y), dim=-1)
    return distance.pow(alpha)


def _dense_sums(
    z1: Tensor, z2: Tensor, idx1: Tensor | None, idx2: Tensor | None, alpha: float
) -> tuple[Tensor, Tensor]:
    """Per image the sum of the distances of its pairs and their number, (B,) and (B,)."""
    require_positive(alpha=alpha)
    if (idx1 is None) != (idx2 is None):
        raise ValueError("idx1 and idx2 must be given together, got one of them; leave both out for the same grid")
    a, b = as_maps("z1", z1), as_maps("z2", z2)
    require_shape("z2 without its spatial axes", b[:, :, 0], (a.shape[0], a.shape[1]))
    if idx1 is None or idx2 is None:
        require_shape("z2", z2, tuple(z1.shape))
        valid = torch.ones_like(a[:, 0], dtype=torch.bool)
    else:
        i, j = _voxels("idx1", idx1, a), _voxels("idx2", idx2, b)
        require_shape("idx2", j, tuple(i.shape))
        valid = (i >= 0) & (j >= 0)
        a, b = _take(a, i), _take(b, j)
    # b = image, c = channel, m = pair of voxels
    distance = torch.linalg.vector_norm(unit(a, dim=1) - unit(b, dim=1), dim=1).pow(alpha)
    return (distance * valid).sum(1), valid.sum(1).to(distance.dtype)


def _voxels(name: str, index: Tensor, maps: Tensor) -> Tensor:
    index = index.as_subclass(Tensor).to(maps.device)
    index = index.expand(len(maps), -1) if index.ndim == 1 else index
    if index.ndim != 2 or len(index) != len(maps) or index.is_floating_point():
        raise ValueError(
            f"{name} must be whole numbers of shape ({len(maps)}, M) or (M,), got {index.dtype} {tuple(index.shape)}"
        )
    if index.numel() and int(index.max()) >= maps.shape[2]:
        raise ValueError(f"{name} must be below the map's {maps.shape[2]} voxels, got {int(index.max())}")
    return index.long()


def _take(maps: Tensor, index: Tensor) -> Tensor:
    return maps.gather(2, index.clamp_min(0)[:, None].expand(-1, maps.shape[1], -1))


def _pair_mean(sums: Tensor, counts: Tensor) -> Tensor:
    if not bool(counts.sum() > 0):
        raise ValueError(
            "dense alignment needs at least one pair of voxels, got none; the views do not overlap, "
            "or every index is negative"
        )
    return sums.sum() / counts.sum()


def _second_view(y: Tensor | None) -> Tensor:
    if y is None:
        raise ValueError("alignment needs the second view, got None; call the metric with both views")
    return y
