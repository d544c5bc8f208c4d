"""Voxels outside of the picture, which a scanner fills with a padding value."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

AIR = -1024.0  # HU, the lowest value of most scanners
_REACHES_AIR = -200.0  # HU: every picture of a body in Hounsfield units has darker voxels
_LIGHTEST_AIR = -900.0  # HU
Padding = tuple[float, float]  # lowest and highest stored value that is padding


def is_padding(stored: NDArray[Any], padding: Padding) -> NDArray[np.bool_]:
    """Mask of the stored values that are padding."""
    low, high = padding
    return (stored >= low) & (stored <= high)


def is_rescaled_padding(
    values: NDArray[np.float32], padding: Padding, slope: float, intercept: float
) -> NDArray[np.bool_]:
    """Mask of the values that are padding after the rescale; half a step is for its rounding."""
    low, high = sorted(end * slope + intercept for end in padding)
    half = abs(slope) / 2
    return (values > low - half) & (values < high + half)


def set_background(volume: NDArray[np.float32], padded: NDArray[np.bool_], *, is_ct: bool) -> str:
    """Set padded voxels, in place, to air (-1024 HU) in CT, to the lowest of all other values elsewhere.

    Nothing changes where padding lies among the other values, so that it may be tissue as well, and where it is as dark
    as air already. CT of which no other voxel is as dark as air is not in Hounsfield units and treated as the rest.

    Args:
        volume: Values after the rescale.
        padded: Mask of its padded voxels.
        is_ct: Whether it is CT.

    Returns:
        ``"set"``, ``"among other values"``, or nothing where nothing had to change.
    """
    if not padded.any():
        return ""
    low = float(np.min(volume, where=~padded, initial=np.inf))
    high = float(np.max(volume, where=~padded, initial=-np.inf))
    darkest = float(np.min(volume, where=padded, initial=np.inf))
    lightest = float(np.max(volume, where=padded, initial=-np.inf))
    if low > high:  # nothing but padding
        low = darkest
    elif lightest > low and darkest < high:
        return "among other values"
    background = AIR if is_ct and low < _REACHES_AIR else low
    if darkest == lightest == background or (background == AIR and darkest >= AIR and lightest <= _LIGHTEST_AIR):
        return ""
    volume[padded] = background
    return "set"
