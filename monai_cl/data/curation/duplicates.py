"""Volumes that are the same, nearly the same, or parts of each other."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monai_cl.data.curation.volume_marks import FINGERPRINT_BITS, VolumeMarks

NEAR_SHARE = 0.06  # of the bits of a fingerprint
PART_SHARE = 0.5  # of the telling slices of the smaller volume
PART_SLICES = 3
_CHUNK = 2048


@dataclass(frozen=True)
class Pair:
    """Two volumes that show the same.

    Args:
        first: Index of the one earlier in the list.
        second: Index of the other.
        kind: ``exact``, ``near`` or ``part``.
        detail: How alike they are.
    """

    first: int
    second: int
    kind: str
    detail: str


def find_pairs(marks: Sequence[VolumeMarks]) -> list[Pair]:
    """All pairs of volumes that are exact duplicates, near duplicates, or share their slices.

    Args:
        marks: Of each volume.

    Returns:
        One entry a pair, in order: exact before near before part.
    """
    pairs: dict[tuple[int, int], Pair] = {}
    for group in _by(enumerate(one.content for one in marks)):
        for other in group[1:]:
            pairs[group[0], other] = Pair(group[0], other, "exact", "the same voxels")
    for first, second, share in near_fingerprints([one.fingerprint for one in marks]):
        detail = f"{100 * share:.1f} % of the bits of the coarse picture differ"
        pairs.setdefault((first, second), Pair(first, second, "near", detail))
    for pair in _shared_slices(marks):
        pairs.setdefault((pair.first, pair.second), pair)
    return [pairs[key] for key in sorted(pairs)]


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
    if not len(prints) or (others is not None and not len(others)):
        return []
    left = _signs(prints)
    right = left if others is None else _signs(others)
    found = []
    for start in range(0, len(left), _CHUNK):
        # of signs, the product is (equal bits) - (different bits)
        share = (1 - left[start : start + _CHUNK] @ right.T / FINGERPRINT_BITS) / 2
        for row, column in np.argwhere(share <= NEAR_SHARE):
            if others is not None or start + row < column:
                found.append((int(start + row), int(column), float(share[row, column])))
    return found


def _signs(prints: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
    signs: NDArray[np.float32] = np.unpackbits(np.stack(list(prints)), axis=1).astype(np.float32) * 2 - 1
    return signs


def _shared_slices(marks: Sequence[VolumeMarks]) -> list[Pair]:
    """Volumes of which half the slices of the smaller one are, by their hashes, in the other."""
    own = [set(one.hashes[one.telling].tolist()) for one in marks]
    holders: dict[int, list[int]] = {}
    for index, hashes in enumerate(own):
        for value in hashes:
            holders.setdefault(value, []).append(index)
    common: dict[tuple[int, int], int] = {}
    for indices in holders.values():
        if len(indices) <= 50:  # a picture that everybody has tells nothing
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
    parent = list(range(len(subjects)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    first: dict[str, int] = {}
    links = [(first.setdefault(subject, index), index) for index, subject in enumerate(subjects)]
    for one, other in [*links, *((pair.first, pair.second) for pair in pairs)]:
        low, high = sorted((root(one), root(other)))
        parent[high] = low
    numbers: Mapping[int, int] = {
        top: number for number, top in enumerate(dict.fromkeys(root(index) for index in range(len(subjects))))
    }
    return [numbers[root(index)] for index in range(len(subjects))]
