"""Feature maps on another grid, and heads that turn them into embeddings."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# By the axes of a map, (B, C, *S).
_POOLS: dict[int, Callable[[Tensor, Any], Tensor]] = {
    3: F.adaptive_avg_pool1d,
    4: F.adaptive_avg_pool2d,
    5: F.adaptive_avg_pool3d,
}
_MODES = {3: "linear", 4: "bilinear", 5: "trilinear"}


def pool_pyramid(maps: Sequence[Tensor], size: int) -> Tensor:
    """Average each map to ``size`` cells an axis and join them: (B, C_l, *S_l) for each level -> (B, sum C_l size^nd).

    ``size=1`` is global average pooling. After instance normalisation a global average is (nearly) the same for
    every image; two cells an axis keep the coarse layout and with it the information.
    """
    return torch.cat([_POOLS[m.ndim](m, size).flatten(1) for m in maps], dim=1)


def resized(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps (B, C, *S) on a grid of ``size``: averaged where it is coarser, interpolated where it is finer."""
    if tuple(maps.shape[2:]) == tuple(size):
        return maps
    coarse = [min(n, m) for n, m in zip(maps.shape[2:], size, strict=True)]
    maps = _POOLS[maps.ndim](maps, coarse)
    if coarse == list(size):
        return maps
    return F.interpolate(maps, size=list(size), mode=_MODES[maps.ndim], align_corners=False)


class Projector(nn.Sequential):
    """Three-layer perceptron from pooled features to the space in which embeddings are compared.

    Args:
        in_features: Width of the pooled features.
        hidden: Width of the two hidden layers.
        out_features: Width of the embedding.
        norm: ``"batch"`` (statistics of the batch at hand, always, without affine parameters) or ``"layer"``
            (independent of the batch: for batches of one volume, and for equal results across processes).

    Raises:
        ValueError: If ``norm`` is neither.
    """

    def __init__(self, in_features: int, hidden: int, out_features: int, *, norm: str = "batch") -> None:
        if norm not in ("batch", "layer"):
            raise ValueError(f"norm must be 'batch' or 'layer', got {norm!r}")

        def normalise() -> nn.Module:
            if norm == "layer":
                return nn.LayerNorm(hidden)
            return nn.BatchNorm1d(hidden, affine=False, track_running_stats=False)

        super().__init__(
            nn.Linear(in_features, hidden),
            normalise(),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            normalise(),
            nn.ReLU(),
            nn.Linear(hidden, out_features),
        )


class PrototypeHead(nn.Module):
    r"""Likeness of features to learned directions: what a student and its teacher answer in self-distillation.

    A perceptron of three layers, its output at unit length, and the cosines with :math:`D` directions: a last layer
    whose weights are normalised and whose lengths are fixed.

    Args:
        in_features: Width of the features.
        hidden: Width of the two hidden layers.
        bottleneck: Width in which cosines are taken.
        out_features: Number of directions :math:`D`.

    References:
        DINO, arXiv 2104.14294.

    Example:
        >>> PrototypeHead(6, 8, 4, 5)(torch.rand(2, 3, 6)).shape
        torch.Size([2, 3, 5])
    """

    def __init__(self, in_features: int, hidden: int, bottleneck: int, out_features: int) -> None:
        super().__init__()
        self.perceptron = nn.Sequential(
            nn.Linear(in_features, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, bottleneck),
        )
        self.directions = nn.Parameter(torch.randn(out_features, bottleneck))

    def forward(self, features: Tensor) -> Tensor:
        """Cosines (..., D) of features (..., in_features) with the directions."""
        rows = F.normalize(self.perceptron(features), dim=-1)
        return F.linear(rows, F.normalize(self.directions, dim=-1))
