"""Volumes that are the same, nearly the same, or parts of each other."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from monai_cl.data.curation.volume_marks import FINGERPRINT_BITS, VolumeMarks

NEAR_SHARE = 0.06  # of the bits of a fingerprint
NEAR_CORRELATION = 0.9995  # of coarse pictures: time points and noisy copies are above, phases of a heart below
_RESAMPLED = 0.995  # the same of a copy that was resampled or clipped, and has the fingerprint, too
PART_SHARE = 0.5  # of the slices with content of the smaller volume
PART_SLICES = 3
_CHUNK = 2048


@dataclass(frozen=True)
class Pair:
    """Pair of volumes with the same content.

    Args:
        first: Index of the one earlier in the list.
        second: Index of the other.
        kind: ``exact``, ``near``, ``part``, or ``alike``: coarse pictures with the same edges, but another content, as
            phases of a heart, which belong together and are worth keeping.
        detail: How alike they are.
    """

    first: int
    second: int
    kind: str
    detail: str


def find_pairs(marks: Sequence[VolumeMarks], subjects: Sequence[str] | None = None) -> list[Pair]:
    """Find pairs of volumes that are exact duplicates, near duplicates, alike, or share slices.

    Near duplicates have coarse pictures that correlate by 0.9995 (time points of one series, copies with noise), or by
    0.995 with the same fingerprint and of different patients (copies that were resampled or clipped). A volume with the
    same fingerprint alone is alike.

    Args:
        marks: Of each volume.
        subjects: Patient of each volume; without it all are different.

    Returns:
        One entry a pair, in order: exact before near before alike before part.
    """
    patients = list(map(str, range(len(marks)))) if subjects is None else subjects
    pairs: dict[tuple[int, int], Pair] = {}
    for group in _by(enumerate(one.content for one in marks)):
        for other in group[1:]:
            pairs[group[0], other] = Pair(group[0], other, "exact", "the same voxels")
    pictures = [one.coarse for one in marks]
    for first, second, likeness in near_pictures(pictures):
        detail = f"coarse pictures correlate by {likeness:.5f}"
        pairs.setdefault((first, second), Pair(first, second, "near", detail))
    for first, second, share in near_fingerprints([one.fingerprint for one in marks]):
        detail = f"{100 * share:.1f} % of the bits of the coarse picture differ"
        close = correlation(pictures[first], pictures[second]) >= _RESAMPLED
        kind = "near" if close and patients[first] != patients[second] else "alike"
        pairs.setdefault((first, second), Pair(first, second, kind, detail))
    for pair in _shared_slices(marks):
        pairs.setdefault((pair.first, pair.second), pair)
    return [pairs[key] for key in sorted(pairs)]


def near_pictures(
    pictures: Sequence[NDArray[np.uint8]], others: Sequence[NDArray[np.uint8]] | None = None
) -> list[tuple[int, int, float]]:
    """Pairs whose coarse pictures correlate by at least 0.9995.

    Args:
        pictures: Coarse pictures.
        others: Second list; without it pairs within the first are returned, each once.

    Returns:
        Index in the first list, in the second, and the correlation.
    """
    return _alike(pictures, others, _standard, NEAR_CORRELATION)


def correlation(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Correlation of two pictures; 0 where one is uniform.

    Example:
        >>> ramp = np.arange(9, dtype=np.uint8)
        >>> round(correlation(ramp, 2 * ramp), 6), correlation(ramp, 0 * ramp)
        (1.0, 0.0)
    """
    left, right = _standard([one, other])
    return float(left @ right)


def _standard(pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """Rows of mean 0 and length 1, whose products are correlations; a uniform one is 0."""
    rows = np.stack(list(pictures)).astype(np.float32)
    rows -= rows.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    standard: NDArray[np.float32] = (rows / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    return standard


def near_fingerprints(
    prints: Sequence[NDArray[np.uint8]], others: Sequence[NDArray[np.uint8]] | None = None
) -> list[tuple[int, int, float]]:
    """Pairs whose fingerprints differ in at most 6 % of their bits.

    Args:
        prints: Packed fingerprints.
        others: Second list; without it pairs within the first are returned, each once.

    Returns:
        Index in the first list, in the second, and the share of bits that differ.
    """
    least = FINGERPRINT_BITS * (1 - 2 * NEAR_SHARE)  # of signs, the product is (equal bits) - (different bits)
    return [(i, j, (1 - product / FINGERPRINT_BITS) / 2) for i, j, product in _alike(prints, others, _signs, least)]


def _alike(
    ours: Sequence[NDArray[np.uint8]],
    theirs: Sequence[NDArray[np.uint8]] | None,
    rows: Callable[[Sequence[NDArray[np.uint8]]], NDArray[np.float32]],
    least: float,
) -> list[tuple[int, int, float]]:
    """Indices of pairs whose rows have a product of at least ``least``, and that product."""
    if not len(ours) or (theirs is not None and not len(theirs)):
        return []
    left = rows(ours)
    right = left if theirs is None else rows(theirs)
    result = []
    for start in range(0, len(left), _CHUNK):
        products = left[start : start + _CHUNK] @ right.T
        for row, column in np.argwhere(products >= least):
            if theirs is not None or start + row < column:
                result.append((int(start + row), int(column), float(products[row, column])))
    return result


def _signs(prints: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
    signs: NDArray[np.float32] = np.unpackbits(np.stack(list(prints)), axis=1).astype(np.float32) * 2 - 1
    return signs


def _shared_slices(marks: Sequence[VolumeMarks]) -> list[Pair]:
    """Volumes of which half the slices of the smaller one are, by their hashes, in the other."""
    own = [set(one.hashes[one.informative].tolist()) for one in marks]
    holders: dict[int, list[int]] = {}
    for index, hashes in enumerate(own):
        for value in hashes:
            holders.setdefault(value, []).append(index)
    common: dict[tuple[int, int], int] = {}
    for indices in holders.values():
        if len(indices) <= 50:  # a picture that everybody has identifies nobody
            for place, first in enumerate(indices):
                for second in indices[place + 1 :]:
                    common[first, second] = common.get((first, second), 0) + 1
    pairs = []
    for (first, second), count in common.items():
        smaller = min(len(own[first]), len(own[second]))
        if count >= PART_SLICES and count >= PART_SHARE * smaller:
            pairs.append(Pair(first, second, "part", f"{count} of {smaller} slices have their like in the other"))
    return pairs


def _by(marks: Iterable[tuple[int, Hashable]]) -> list[list[int]]:
    groups: dict[Hashable, list[int]] = {}
    for index, mark in marks:
        groups.setdefault(mark, []).append(index)
    return [group for group in groups.values() if len(group) > 1]


def join_groups(subjects: Sequence[str], pairs: Iterable[Pair]) -> list[int]:
    """Number of the group of each volume: one patient, or joined by duplicates, makes one group.

    Example:
        >>> join_groups(["a", "b", "a", "c"], [Pair(1, 3, "near", "")])
        [0, 1, 0, 1]
    """
    first: dict[str, int] = {}
    links = [(first.setdefault(subject, index), index) for index, subject in enumerate(subjects)]
    ends = np.array([*links, *((pair.first, pair.second) for pair in pairs)], dtype=np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(ends)), ends.T), shape=(len(subjects), len(subjects)))
    _, numbers = connected_components(graph, directed=False)
    return [int(number) for number in numbers]
