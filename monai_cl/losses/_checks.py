"""Input checks shared by the losses."""

from torch import Tensor


class NonFiniteError(ValueError):
    """A tensor that must be finite holds NaN or infinity; training stops on it rather than averaging it away."""


def require_finite(**tensors: Tensor | None) -> None:
    """Raise :class:`NonFiniteError` naming the first tensor that holds NaN or infinity.

    Raises:
        NonFiniteError: If any value of any tensor is not finite.
    """
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


def require_positive(**values: float) -> None:
    """Raise ``ValueError`` naming the first value that is not positive."""
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name} must be positive, got {value!r}")


def require_shape(name: str, tensor: Tensor, expected: tuple[int, ...]) -> None:
    """Raise ``ValueError`` unless ``tensor`` has the expected shape."""
    if tuple(tensor.shape) != expected:
        raise ValueError(f"{name} must have shape {expected}, got {tuple(tensor.shape)}")
