"""Ranges that protocols are drawn from: a number is fixed, a pair draws uniformly, others have names."""

import math
from dataclasses import dataclass
from typing import Protocol as Interface, TypeVar

from monai_cl.qmri.constraints import ConstraintError

Self = TypeVar("Self", bound="Range")


class RandomSource(Interface):
    """Interface of a random state: :class:`numpy.random.RandomState` and ``Generator`` both have it."""

    def uniform(self, low: float, high: float) -> float:
        """A number between two."""

    def standard_normal(self) -> float:
        """A number with mean 0 and variance 1."""


@dataclass(frozen=True)
class Range:
    """Numbers between two ends, drawn uniformly.

    Args:
        low: Lower end.
        high: Upper end, not below the lower one.

    Raises:
        ValueError: If the ends are not finite and ordered.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not -math.inf < self.low <= self.high < math.inf:
            raise ValueError(f"a range needs finite ends with low <= high, got {self.low!r} and {self.high!r}")

    def draw(self, random_state: RandomSource) -> float:
        """Draw one number."""
        return float(random_state.uniform(self.low, self.high))

    def limited(self: Self, low: float = -math.inf, high: float = math.inf) -> Self:
        """The part of the range between two further limits.

        Raises:
            ConstraintError: If nothing is left.
        """
        if max(self.low, low) > min(self.high, high):
            raise ConstraintError(
                f"nothing of the range {self.low:.6g} to {self.high:.6g} lies between {low:.6g} and {high:.6g}"
            )
        return type(self)(max(self.low, low), min(self.high, high))


class Uniform(Range):
    """Another name for :class:`Range`, which draws uniformly."""


class LogUniform(Range):
    """Positive numbers whose logarithm is uniform."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.low <= 0:
            raise ValueError(f"a logarithmic range needs a positive low end, got {self.low!r}")

    def draw(self, random_state: RandomSource) -> float:
        """Draw one number."""
        exponent = float(random_state.uniform(math.log(self.low), math.log(self.high)))
        return min(max(math.exp(exponent), self.low), self.high)


class WholeNumbers(Range):
    """Whole numbers including both ends, each as likely as another."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if math.ceil(self.low) > math.floor(self.high):
            raise ConstraintError(f"no whole number lies between {self.low!r} and {self.high!r}")

    def draw(self, random_state: RandomSource) -> int:
        """Draw one number."""
        first, last = math.ceil(self.low), math.floor(self.high)
        return min(first + int(random_state.uniform(0, last - first + 1)), last)


def as_range(value: object) -> object:
    """Turn a number or a pair, as a config writes them, into a range; leave everything else."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return Uniform(value, value)
    if isinstance(value, (tuple, list)) and len(value) == 2:
        return Uniform(*value)
    return value
