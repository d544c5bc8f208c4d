"""Uniformity: how evenly embeddings fill the unit sphere."""

import math
from typing import Any

import torch
from torch import Tensor

from monai_cl.losses._checks import require_positive
from monai_cl.metrics._base import BufferedMetric, as_maps, as_rows, full_precision, unit

SCOPES = ("batch", "image")


@full_precision
def uniformity(x: Tensor, t: float = 2.0, chunk_size: int = 1024) -> Tensor:
    r"""Mean pair potential: :math:`\log \operatorname{mean}_{i<j} e^{-t \lVert x_i - x_j \rVert^2}` on the sphere.

    0 when all embeddings are one point (collapse), lower the more evenly they spread; not below :math:`-4t`, and
    about :math:`-2t` for many uniform embeddings in many dimensions. Computed in chunks with log-sum-exp: no array
    is larger than ``chunk_size`` x N.

    Args:
        x: Embeddings, (N, D), at least two; brought to unit length here.
        t: Sharpness of the potential, positive.
        chunk_size: Rows compared at a time.

    Returns:
        0-dim float32 (float64 for float64 inputs), between -4t and 0.

    Raises:
        ValueError: If fewer than two embeddings are given: no pair, no value.
        NonFiniteError: If an embedding holds NaN or infinity.

    References:
        Wang and Isola, arXiv 2005.10242.

    Example:
        >>> round(uniformity(torch.ones(5, 3)).item(), 4)
        0.0
        >>> round(uniformity(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])).item(), 4)
        -8.0
    """
    require_positive(t=t, chunk_size=chunk_size)
    rows = unit(as_rows("x", x, at_least=2))
    n = len(rows)
    # the last row has no later partner, so every chunk holds at least one pair
    parts = [_log_potential(rows, i, min(i + chunk_size, n - 1), t) for i in range(0, n - 1, chunk_size)]
    return torch.stack(parts).logsumexp(0) - math.log(n * (n - 1) / 2)


@full_precision
def dense_uniformity(z: Tensor, scope: str = "batch", t: float = 2.0, chunk_size: int = 1024) -> Tensor:
    """Uniformity of the voxels of feature maps, each brought to unit length over its channels.

    This project's definition. The work grows with the square of the number of voxels: pick some first where maps
    are large, as :class:`DenseUniformityMetric` does.

    Args:
        z: Feature maps, (B, C, *S).
        scope: ``"batch"`` puts the voxels of all images on one sphere; ``"image"`` is the mean of one value an image,
            which neither rewards nor blames differences between images.
        t: Sharpness of the potential, positive.
        chunk_size: Voxels compared at a time.

    Returns:
        0-dim, between -4t and 0.

    Raises:
        ValueError: If ``scope`` is unknown, or a sphere holds fewer than two voxels.
        NonFiniteError: If a map holds NaN or infinity.

    Example:
        >>> z = torch.eye(2).reshape(2, 2, 1).expand(2, 2, 4)   # constant inside each image, orthogonal between them
        >>> round(dense_uniformity(z, "image").item(), 4), bool(dense_uniformity(z, "batch") < -0.5)
        (0.0, True)
    """
    _check_scope(scope)
    rows = as_maps("z", z).mT  # (B, V, C)
    if scope == "batch":
        return uniformity(rows.flatten(0, 1), t, chunk_size)
    return torch.stack([uniformity(image, t, chunk_size) for image in rows]).mean()


class InstanceUniformityMetric(BufferedMetric):
    """:func:`uniformity` over an epoch: call with embeddings (B, D); a second argument is ignored.

    Args:
        t: Sharpness of the potential, positive.
        chunk_size: Rows compared at a time.

    Example:
        >>> metric = InstanceUniformityMetric()
        >>> _ = metric(torch.ones(1, 3)), metric(torch.ones(1, 3))
        >>> round(metric.aggregate().item(), 4)
        0.0
    """

    def __init__(self, t: float = 2.0, chunk_size: int = 1024) -> None:
        super().__init__()
        require_positive(t=t, chunk_size=chunk_size)
        self.t = t
        self.chunk_size = chunk_size

    def aggregate(self) -> Tensor:
        """Uniformity of all embeddings, 0-dim."""
        return uniformity(self.gathered()[0], self.t, self.chunk_size)


class DenseUniformityMetric(BufferedMetric):
    """:func:`dense_uniformity` over an epoch: call with maps (B, C, *S); a second argument is ignored.

    Of each map ``num_voxels`` are taken. Which ones follows from ``seed`` and the number of voxels alone, so the
    value does not depend on how images are spread over batches and processes.

    Args:
        scope: ``"batch"``: one sphere for the voxels of the whole epoch; ``"image"``: mean of one value an image.
        t: Sharpness of the potential, positive.
        num_voxels: Voxels taken of a map, at least 2; ``None`` takes all.
        seed: Seed of the choice of voxels.
        chunk_size: Voxels compared at a time.
    """

    def __init__(
        self,
        scope: str = "batch",
        t: float = 2.0,
        *,
        num_voxels: int | None = 128,
        seed: int = 0,
        chunk_size: int = 1024,
    ) -> None:
        super().__init__()
        _check_scope(scope)
        require_positive(t=t, chunk_size=chunk_size)
        if num_voxels is not None and num_voxels < 2:
            raise ValueError(f"num_voxels must be at least 2, or None for all voxels, got {num_voxels}")
        self.scope = scope
        self.t = t
        self.num_voxels = num_voxels
        self.seed = seed
        self.chunk_size = chunk_size

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **kwargs: Any) -> Tensor:
        rows = self._pick(as_maps("maps", y_pred)).mT  # (B, V, C)
        if self.scope == "batch":
            return rows.flatten(0, 1)
        return torch.stack([uniformity(image, self.t, self.chunk_size) for image in rows])

    def aggregate(self) -> Tensor:
        """Uniformity of all voxels taken, or its mean over images, 0-dim."""
        values = self.gathered()[0]
        return values.mean() if self.scope == "image" else uniformity(values, self.t, self.chunk_size)

    def _pick(self, maps: Tensor) -> Tensor:
        if self.num_voxels is None or maps.shape[2] <= self.num_voxels:
            return maps
        order = torch.randperm(maps.shape[2], generator=torch.Generator().manual_seed(self.seed))
        return maps[:, :, order[: self.num_voxels].to(maps.device)]


def _log_potential(x: Tensor, start: int, stop: int, t: float) -> Tensor:
    """Log of the sum of the potentials of rows ``start:stop`` with all later rows."""
    length = x.square().sum(1)  # 1, and 0 for a vector of zeros, which has no direction
    squared = length[start:stop, None] + length[start + 1 :] - 2 * x[start:stop] @ x[start + 1 :].mT
    later = torch.ones_like(squared, dtype=torch.bool).triu()
    return (-t * squared.clamp_min(0)).masked_fill(~later, -math.inf).flatten().logsumexp(0)


def _check_scope(scope: str) -> None:
    if scope not in SCOPES:
        raise ValueError(f"scope must be one of {SCOPES}, got {scope!r}")
