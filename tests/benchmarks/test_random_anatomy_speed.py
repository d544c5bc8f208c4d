"""Two views of a random anatomy on one core: ``pytest -m benchmark -s``."""

from typing import Any

import pytest
import torch
from stopwatch import best_of

from monai_cl.phantoms import RandomAnatomy

pytestmark = pytest.mark.benchmark

MOST = {(48, 48, 48): 0.09, (128, 128): 0.03}  # seconds of one core for an anatomy and two views, in the mean of ten


@pytest.mark.parametrize("size", MOST, ids=str)
def test_two_views_of_an_anatomy(benchmark: Any, size: tuple[int, ...]) -> None:
    torch.set_num_threads(1)
    anatomy = RandomAnatomy(size)

    def ten() -> None:
        anatomy.set_random_state(seed=0)
        for _ in range(10):
            anatomy({})

    seconds = best_of(ten, 3) / 10
    benchmark.extra_info["milliseconds"] = round(1000 * seconds, 1)
    benchmark.pedantic(ten, rounds=1)
    assert seconds < MOST[size]
