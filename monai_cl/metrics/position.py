"""Position: does a crop find the place in the volume that it was cut from?"""

from typing import Any

import torch
from torch import Tensor

from monai_cl.losses._checks import require_finite, require_shape
from monai_cl.metrics._base import BufferedMetric, as_float, full_precision, unit

TIE = 1e-6  # overlaps closer than this are equally good
NAMES = ("accuracy", "distance_mm", "chance_accuracy", "chance_distance_mm")


@full_precision
@torch.no_grad()
def position_error(crops: Tensor, bases: Tensor, overlap: Tensor, centers: Tensor) -> dict[str, Tensor]:
    r"""Distance between the true place of a crop and the place that the similarity of embeddings gives it.

    The prediction is the base most similar to the crop, :math:`\hat k = \arg\max_k \cos(x, z_k)`; right are the bases
    that share the most volume with it. The error is the distance from the predicted base's centre to the nearest
    right one's. A base drawn blindly gives the two chance values.

    Args:
        crops: Embeddings of crops, (B, S, D).
        bases: Embeddings of the base crops, (B, K, D).
        overlap: Share of each crop's volume inside each base, (B, S, K).
        centers: Centres of the bases in mm, (K, n) for a grid that all volumes share, or (B, K, n).

    Returns:
        ``accuracy`` (top-1, 0 to 1) and ``distance_mm``, and the same for a blind guess as ``chance_accuracy`` and
        ``chance_distance_mm``; means over all crops, 0-dim.

    Raises:
        ValueError: If shapes disagree, nothing is to be scored, or a crop overlaps no base.
        NonFiniteError: If an input holds NaN or infinity.

    Example:
        >>> bases, centers = torch.eye(2)[None], torch.tensor([[0.0], [30.0]])
        >>> overlap = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
        >>> crops = torch.tensor([[[2.0, 0.0], [1.0, 0.0]]])   # the second is taken for its neighbour
        >>> {name: value.item() for name, value in position_error(crops, bases, overlap, centers).items()}
        {'accuracy': 0.5, 'distance_mm': 15.0, 'chance_accuracy': 0.5, 'chance_distance_mm': 15.0}
    """
    return _named(_rows(crops, bases, overlap, centers))


class PositionMetric(BufferedMetric):
    """:func:`position_error` over an epoch: call with crops and bases, and ``overlap`` and ``centers`` by name.

    The means are over all crops, so a volume with more crops weighs more.

    Example:
        >>> metric = PositionMetric()
        >>> eye = torch.eye(3)[None]
        >>> _ = metric(eye, eye, overlap=eye, centers=torch.arange(3.0)[:, None])
        >>> metric.aggregate()["distance_mm"].item()
        0.0
    """

    @full_precision
    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **kwargs: Any) -> Tensor:
        missing = [name for name in ("overlap", "centers") if kwargs.get(name) is None]
        if y is None or missing:
            raise ValueError(
                f"the position metric needs crops, bases, overlap and centers, got no {', '.join(missing or ['bases'])}"
            )
        return _rows(y_pred, y, kwargs["overlap"], kwargs["centers"])

    def aggregate(self) -> dict[str, Tensor]:
        """The four values of :func:`position_error`, each a mean over all crops."""
        return _named(self.gathered()[0])


def _rows(crops: Tensor, bases: Tensor, overlap: Tensor, centers: Tensor) -> Tensor:
    """The four values of each crop, (B * S, 4)."""
    x, z, y = as_float("crops", crops), as_float("bases", bases), as_float("overlap", overlap)
    if x.ndim != 3 or z.ndim != 3 or not x.numel() or not z.numel():
        raise ValueError(
            f"crops must be (B, S, D) and bases (B, K, D), none empty, got {tuple(x.shape)} and {tuple(z.shape)}"
        )
    b, s, d = x.shape
    k = z.shape[1]
    require_shape("bases", z, (b, k, d))
    require_shape("overlap", y, (b, s, k))
    # b = volume, s = crop, k = true base, p = predicted base
    right = y >= y.amax(2, keepdim=True) - TIE
    if not bool((y.amax(2) > TIE).all()):
        count = int((y.amax(2) <= TIE).sum())
        raise ValueError(f"every crop must overlap a base, got {count} that overlap none; draw crops inside the grid")
    guess = (unit(x) @ unit(z).mT).argmax(2)
    distance = _distance_to_right(right, _between(centers, b, k, z)).to(x.dtype)
    values = (
        right.gather(2, guess[..., None])[..., 0].to(x.dtype),
        distance.gather(2, guess[..., None])[..., 0],
        right.to(x.dtype).mean(2),
        distance.mean(2),
    )
    return torch.stack(values, dim=2).flatten(0, 1)


def _between(centers: Tensor, b: int, k: int, like: Tensor) -> Tensor:
    """Distances between the centres of each volume's bases, (B, K, K)."""
    points = as_float("centers", centers).to(like)
    points = points.expand(b, -1, -1) if points.ndim == 2 else points
    if points.ndim != 3 or tuple(points.shape[:2]) != (b, k):
        raise ValueError(f"centers must be ({k}, n) or ({b}, {k}, n) in mm, got {tuple(centers.shape)}")
    between: Tensor = torch.linalg.vector_norm(points[:, :, None] - points[:, None], dim=-1)
    return between


def _distance_to_right(right: Tensor, between: Tensor) -> Tensor:
    """Distance from each predicted base to the nearest right base, for each crop, (B, S, K)."""
    return torch.where(right[:, :, None], between[:, None], torch.inf).amin(-1)


def _named(rows: Tensor) -> dict[str, Tensor]:
    require_finite(values=rows)
    return dict(zip(NAMES, rows.mean(0).unbind(), strict=True))
