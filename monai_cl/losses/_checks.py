"""Input checks shared by the losses."""

import torch
from torch import Tensor

_ROUNDING = 1e-3  # half precision


class NonFiniteError(ValueError):
    """A tensor that must be finite holds NaN or infinity; training stops on it rather than averaging it away."""


def require_finite(**tensors: Tensor | None) -> None:
    """Raise :class:`NonFiniteError` naming the first tensor that holds NaN or infinity."""
    for name, tensor in tensors.items():
        if tensor is not None and not bool(tensor.isfinite().all()):
            bad = int((~tensor.isfinite()).sum())
            raise NonFiniteError(
                f"{name} must be finite, got {bad} of {tensor.numel()} values NaN or infinite; "
                "look at the images of this batch, lower the learning rate or train in fp32"
            )


def require_whole(**ids: Tensor) -> None:
    """Raise ``ValueError`` naming the first tensor of ids that are no whole numbers, and would be cut off."""
    for name, tensor in ids.items():
        broken = tensor[tensor != tensor.trunc()] if tensor.is_floating_point() else tensor[:0]
        if broken.numel():
            raise ValueError(
                f"{name} must be whole numbers, got fractions such as {broken[0].item():.4g}; "
                "number partitions, images and volumes"
            )


def require_shares(**shares: Tensor) -> None:
    """Raise ``ValueError`` naming the first tensor with values outside [0, 1], but for rounding."""
    for name, tensor in shares.items():
        low, high = (float(value) for value in tensor.aminmax())
        if low < -_ROUNDING or high > 1 + _ROUNDING:
            raise ValueError(
                f"{name} must be shares of a crop between 0 and 1, got values from {low:.4g} to {high:.4g}; "
                "see monai_cl.transforms.overlap_fractions"
            )


def require_indices(count: int, **indices: Tensor) -> None:
    """Raise ``ValueError`` naming the first tensor that holds anything but integers from 0 to ``count - 1``."""
    for name, tensor in indices.items():
        if tensor.is_floating_point() or tensor.dtype == torch.bool:
            raise ValueError(f"{name} must be integers, got {tensor.dtype}")
        if tensor.numel() and (int(tensor.min()) < 0 or int(tensor.max()) >= count):
            raise ValueError(f"{name} must be indices from 0 to {count - 1}, got {tensor.tolist()}")


def require_positive(**values: float) -> None:
    """Raise ``ValueError`` naming the first value that is not positive."""
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name} must be positive, got {value!r}")


def require_shape(name: str, tensor: Tensor, expected: tuple[int, ...]) -> None:
    """Raise ``ValueError`` unless ``tensor`` has the expected shape."""
    if tuple(tensor.shape) != expected:
        raise ValueError(f"{name} must have shape {expected}, got {tuple(tensor.shape)}")
