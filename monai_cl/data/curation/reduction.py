"""Greedy choice of slices: each kept one differs from those kept before it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_cl.data.curation.slice_hash import difference_hash, hamming

METHODS = ("hash", "ssim", "mi", "embedding", "every-n")
THRESHOLDS = {
    "hash": (0, 2, 4, 6, 8, 10, 12),
    "ssim": (0.99, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5),
    "mi": (0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4),
    "embedding": (0.999, 0.99, 0.98, 0.95, 0.9, 0.8, 0.7),
    "every-n": (1, 2, 3, 4, 6, 8, 12),
}
_BINS = 32
Embed = Callable[[NDArray[np.float32]], NDArray[Any]]
Close = Callable[[int, NDArray[np.intp]], NDArray[np.bool_]]


def greedy_reduce(count: int, close: Close) -> NDArray[np.intp]:
    """Keep the first slice that is left, drop all that are close to it, and so on.

    Every dropped slice is close to a kept one before it, and no two kept ones are close. The order decides: slices are
    taken from one end of the stack to the other.

    Args:
        count: Number of slices.
        close: For a slice and an array of others, which of these are close to it.

    Returns:
        For each slice the one that stands for it: itself where it is kept.

    Example:
        >>> values = np.array([0, 1, 5, 6, 20])
        >>> greedy_reduce(5, lambda one, others: abs(values[others] - values[one]) <= 2).tolist()
        [0, 0, 2, 2, 4]
    """
    stands_for = np.full(count, -1, dtype=np.intp)
    left = np.arange(count)
    while left.size:
        first, rest = int(left[0]), left[1:]
        stands_for[first] = first
        dropped = close(first, rest)
        stands_for[rest[dropped]] = first
        left = rest[~dropped]
    return stands_for


@dataclass(frozen=True)
class Criterion:
    """A method of comparing slices, ready for some slices.

    Args:
        method: One of :data:`METHODS`.
        features: Compared vectors, one row a slice.
    """

    method: str
    features: NDArray[Any]

    @classmethod
    def of(cls, method: str, grey: NDArray[np.uint8], embed: Embed | None = None) -> Criterion:
        """Prepare a criterion.

        Args:
            method: ``hash`` (difference hash), ``ssim`` (structural similarity), ``mi`` (normalised mutual
                information), ``embedding`` (cosine of ``embed``'s rows) or ``every-n``.
            grey: ``(n, rows, columns)`` 8-bit slices.
            embed: For ``embedding``, from slices in [0, 1] to rows of numbers.
        """
        if method == "hash":
            return cls(method, difference_hash(grey))
        if method == "embedding":
            if embed is None:
                raise ValueError("method 'embedding' needs a network: give embed, on the command line --embedding FILE")
            rows = np.asarray(embed((grey / 255).astype(np.float32)), dtype=np.float32)
            return cls(method, rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))
        if method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
        return cls(method, grey)

    def reduce(self, threshold: float) -> NDArray[np.intp]:
        """The slice that stands for each one at a threshold."""
        return greedy_reduce(len(self.features), lambda one, others: self.close(one, others, threshold))

    def close(self, one: int, others: NDArray[np.intp], threshold: float) -> NDArray[np.bool_]:
        """Slices that are redundant beside one."""
        if not others.size:
            return np.zeros(0, dtype=bool)
        mine, theirs = self.features[one], self.features[others]
        if self.method == "hash":
            return hamming(mine, theirs) <= threshold
        if self.method == "every-n":
            return others < one + int(threshold)
        if self.method == "embedding":
            return np.asarray(theirs @ mine >= threshold)
        similarity = _ssim(mine, theirs) if self.method == "ssim" else _mutual_information(mine, theirs)
        return np.asarray(similarity >= threshold)


def check_threshold(method: str, threshold: float | None) -> float:
    """The threshold to use; 6 bits for the hash, as published. The others have no published one.

    Raises:
        ValueError: If the method is unknown, or the threshold is missing or out of range.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    if threshold is None:
        if method == "hash":
            return 6
        raise ValueError(
            f"method {method!r} needs a threshold, none was published; see what each keeps with dry_run (--dry-run)"
        )
    low, high = {"hash": (0, 64), "every-n": (1, 10_000)}.get(method, (-1, 1))
    if not low <= threshold <= high:
        raise ValueError(f"threshold of method {method!r} must be between {low} and {high}, got {threshold}")
    return threshold


def _ssim(one: NDArray[np.uint8], others: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Mean structural similarity, by MONAI."""
    import torch
    from monai.metrics.regression import compute_ssim_and_cs

    theirs = torch.from_numpy(others.astype(np.float32))[:, None]
    mine = torch.from_numpy(one.astype(np.float32))[None, None].expand_as(theirs)
    ssim, _ = compute_ssim_and_cs(mine, theirs, 2, (11, 11), (1.5, 1.5), data_range=255.0)
    result: NDArray[np.float64] = ssim.flatten(1).mean(1).double().numpy()
    return result


def _mutual_information(one: NDArray[np.uint8], others: NDArray[np.uint8]) -> NDArray[np.float64]:
    """2 I(a; b) / (H(a) + H(b)) over histograms of 32 bins; 1 for two uniform slices."""
    # scikit-learn's normalized_mutual_info_score gives the same, three hundred times as slowly
    mine = (one // (256 // _BINS)).ravel().astype(np.int64)
    result = np.empty(len(others))
    for index, other in enumerate(others):
        joint = np.bincount(mine * _BINS + (other // (256 // _BINS)).ravel(), minlength=_BINS**2) / mine.size
        table = joint.reshape(_BINS, _BINS)
        a, b, both = _entropy(table.sum(1)), _entropy(table.sum(0)), _entropy(joint)
        result[index] = 2 * (a + b - both) / (a + b) if a + b > 0 else 1.0
    return result


def _entropy(probabilities: NDArray[np.float64]) -> float:
    positive = probabilities[probabilities > 0]
    return float(-(positive * np.log(positive)).sum())
