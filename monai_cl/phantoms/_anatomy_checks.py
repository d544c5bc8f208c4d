"""Checks of the ranges that random anatomies are drawn from."""

from __future__ import annotations

import math
from typing import Any


def require_probabilities(options: Any, *names: str) -> None:
    """Raise ``ValueError`` unless attributes are between 0 and 1."""
    for name in names:
        value = getattr(options, name)
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must be a probability from 0 to 1, got {value!r}")


def require_counts(options: Any, *names: str, least: int = 1) -> None:
    """Raise ``ValueError`` unless attributes are pairs of whole numbers in order; lists become pairs."""
    for name in names:
        low, high = _pair(options, name)
        if low != int(low) or high != int(high) or not least <= low <= high:
            raise ValueError(f"{name} must be two whole numbers of at least {least} in order, got {(low, high)}")


def require_ranges(options: Any, *names: str, least: float = -math.inf, above: float = -math.inf) -> None:
    """Raise ``ValueError`` unless attributes are pairs of finite numbers in order; lists become pairs."""
    for name in names:
        low, high = _pair(options, name)
        if not (math.isfinite(low) and math.isfinite(high) and low <= high and low >= least and low > above):
            limit = f" above {above:g}" if above > -math.inf else f" of at least {least:g}" if least > -math.inf else ""
            raise ValueError(f"{name} must be two finite numbers{limit} in order, got {(low, high)}")


def _pair(options: Any, name: str) -> tuple[Any, Any]:
    value = getattr(options, name)
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise ValueError(f"{name} must be a pair, the least and the greatest, got {value!r}")
    object.__setattr__(options, name, tuple(value))  # of a frozen dataclass, as configurations give lists
    return value[0], value[1]
