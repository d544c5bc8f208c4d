"""Label volumes as files hold them: whole numbers, whatever type they are stored in."""

import torch
from torch import Tensor

NEAR = 0.05  # as far as a value may lie from a whole number: what resampling and old tools leave
_ROUNDING = 1e-6  # of a value: 0.95 in single precision lies further from 1 than 0.05
SAID = 1e-4  # rounding by more than this is worth a line
NOT_FINITE = -32768  # stands for NaN and infinities, which no integer type holds
_LARGEST = 32767  # of int16, which recipes turn labels into
_SHOWN = 5


def whole_labels(values: Tensor) -> tuple[Tensor, float]:
    """Round labels to whole numbers.

    Args:
        values: Labels as read, in floating point.

    Returns:
        Whole numbers, with ``NOT_FINITE`` in the place of NaN and infinities; and how far the others were from them.

    Raises:
        ValueError: If a value is further than ``NEAR`` from a whole number, or beyond 32767; names values.

    Example:
        >>> whole_labels(torch.tensor([0.0, 0.9882, 2.0235, float("nan")]))[0].tolist()
        [0.0, 1.0, 2.0, -32768.0]
    """
    finite = torch.isfinite(values)
    known = torch.where(finite, values, torch.zeros_like(values))
    rounded = known.round()
    distance = (known - rounded).abs()
    furthest = float(distance.max()) if values.numel() else 0.0
    far = distance > NEAR + _ROUNDING * rounded.abs()
    if far.any():
        wrong = known[far]
        raise ValueError(
            f"labels must be whole numbers, {len(wrong)} of {values.numel()} voxels are more than {NEAR:g} from one "
            f"({_listed(wrong)}); resample labels by nearest neighbour, or store classes and not probabilities"
        )
    large = rounded[rounded.abs() > _LARGEST]
    if len(large):
        raise ValueError(
            f"labels must be within {-_LARGEST} and {_LARGEST}, {len(large)} voxels have others ({_listed(large)}); "
            "store what is to be ignored as 255 or -1"
        )
    return torch.where(finite, rounded, torch.full_like(rounded, NOT_FINITE)), furthest


def _listed(values: Tensor) -> str:
    result = torch.unique(values)
    shown = ", ".join(f"{value:g}" for value in result[:_SHOWN].tolist())
    return shown + (", ..." if len(result) > _SHOWN else "")
