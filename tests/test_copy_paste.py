"""Copy-paste between two batches, bit by bit."""

import itertools
import re

import numpy as np
import pytest
import torch

from monai_cl.transforms.copy_paste import Box, copy_paste, draw_box, outside_of

SIZES = [(7,), (6, 9), (5, 4, 8)]
RATIOS = [0.01, 1 / 3, 0.5, 2 / 3, 1.0]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("ratio", RATIOS)
def test_mask_and_both_mixes_are_those_of_loops(size: tuple[int, ...], ratio: float) -> None:
    random, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    outer, inner = (torch.randn(2, 3, *size, generator=generator) for _ in range(2))
    inner[0, 0] = torch.nan  # nothing is computed with what is not taken
    for _ in range(10):
        box = draw_box(size, ratio, random)
        outside = outside_of(box, size)
        found, other = copy_paste(outer, inner, outside), copy_paste(inner, outer, outside)
        for place in itertools.product(*map(range, size)):
            inside = all(s <= p < s + e for p, s, e in zip(place, box.start, box.edges, strict=True))
            assert bool(outside[place]) is not inside
            taken, left = (inner, outer) if inside else (outer, inner)
            index = (slice(None), slice(None), *place)
            assert torch.equal(found[index].nan_to_num(9), taken[index].nan_to_num(9))
            assert torch.equal(other[index].nan_to_num(9), left[index].nan_to_num(9))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("ratio", RATIOS)
def test_edges_are_the_share_of_each_side(size: tuple[int, ...], ratio: float) -> None:
    box = draw_box(size, ratio, np.random.default_rng(0))
    assert box.edges == tuple(max(1, round(side * ratio)) for side in size)


def test_the_box_reaches_every_place_as_often_the_last_one_too() -> None:
    random = np.random.default_rng(0)
    starts = [draw_box((4, 5), 0.5, random).start for _ in range(3000)]
    counts = {place: starts.count(place) for place in set(starts)}
    assert set(counts) == set(itertools.product(range(3), range(4)))
    assert all(abs(count - 250) < 5 * 250**0.5 for count in counts.values())


@pytest.mark.parametrize("ratio", [0.0, -1.0, 1.1, float("nan")])
def test_a_ratio_out_of_range_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match=re.escape(f"ratio must be above 0 and at most 1, got {ratio!r}")):
        draw_box((4, 4), ratio, np.random.default_rng(0))


def test_integer_labels_stay_integers() -> None:
    labels = torch.arange(6).reshape(1, 1, 2, 3)
    found = copy_paste(labels, -torch.ones_like(labels), outside_of(Box((0, 1), (2, 1)), (2, 3)))
    assert found.dtype == torch.int64
    assert found.tolist() == [[[[0, -1, 2], [3, -1, 5]]]]
