"""Encoding of prepared values for storage, and the error it makes."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

DTYPES = ("int16", "float16", "float32")
_LEVELS = 65532  # steps of int16 used, with room at both ends for rounding the zero point
_EXACT = 1 << 24  # integers up to here are exact in float32


@dataclass(frozen=True)
class Encoded:
    """A volume as it is stored: a value is ``(stored + shift) * scale``, channel by channel.

    Args:
        stored: ``(C, *S)``.
        scale: Factor of each channel; empty where values are stored as they are.
        shift: Added before the factor.
        error: Largest difference between a value and what is read for it.
    """

    stored: NDArray[Any]
    scale: tuple[float, ...]
    shift: tuple[float, ...]
    error: float


def encode(volume: NDArray[Any], dtype: str) -> Encoded:
    r"""Store ``volume`` (C, *S) of finite values as ``dtype``.

    Integers that fit are kept exactly. Otherwise ``int16`` divides the range of a channel into 65532 steps :math:`a`,
    :math:`q = \mathrm{round}(x / a) - s`, with an integer :math:`s` where the range holds zero, so that zero stays
    zero; the error is at most :math:`a / 2` and the rounding of float32. Masks and other integer volumes are stored as
    the smallest integer type that holds them, whatever ``dtype``.

    Raises:
        ValueError: If a value is not finite, or too large for float16.
    """
    if not np.issubdtype(volume.dtype, np.floating):
        return Encoded(_smallest(volume), (), (), 0.0)
    finite = np.isfinite(volume)
    if not finite.all():
        raise ValueError(f"{int((~finite).sum())} of {volume.size} prepared values are not finite")
    if dtype == "int16":
        return _to_int16(volume)
    if dtype == "float16" and np.abs(volume).max(initial=0) > np.finfo(np.float16).max:
        raise ValueError(f"values must be within 65504 for float16, got {np.abs(volume).max()}; use int16 or float32")
    stored = volume.astype(dtype)
    return Encoded(stored, (), (), _error(stored, volume))


def _to_int16(volume: NDArray[Any]) -> Encoded:
    stored = np.empty(volume.shape, np.int16)
    scale, shift, error = [], [], 0.0
    for channel, values in enumerate(volume):
        step, zero = _step(values)
        # float64: the quotient must not be off by a step of float32
        stored[channel] = np.rint(values / np.float64(step) - zero)
        restored = (stored[channel].astype(np.float32) + np.float32(zero)) * np.float32(step)
        error = max(error, _error(restored, values))
        scale.append(step)
        shift.append(zero)
    return Encoded(stored, tuple(scale), tuple(shift), error)


def _step(values: NDArray[Any]) -> tuple[float, float]:
    """Step and shift of one channel."""
    low, high = float(values.min()), float(values.max())
    middle = (low + high) / 2
    if max(-low, high) < _EXACT and high - low < _LEVELS and bool(np.array_equal(values, np.rint(values))):
        return 1.0, 0.0 if low >= -32768 and high <= 32767 else float(round(middle))
    if low == high:
        return abs(low), float(np.sign(low))
    # a step of float32, as it is read
    step = float(np.float32((high - low) / _LEVELS))
    if step == 0:  # a range below what float32 holds
        return 1.0, middle
    return step, float(round(middle / step)) if low <= 0 <= high else middle / step


def _smallest(volume: NDArray[Any]) -> NDArray[Any]:
    low, high = int(volume.min(initial=0)), int(volume.max(initial=0))
    for dtype in (np.uint8, np.int16, np.int32):
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return volume.astype(dtype)
    return volume.astype(np.int64)


def _error(restored: NDArray[Any], values: NDArray[Any]) -> float:
    return float(np.abs(restored.astype(np.float32) - values).max(initial=0))
