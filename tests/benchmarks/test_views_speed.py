"""Views with the places of their voxels against the plain chain run as often: ``pytest -m benchmark -s``."""

from typing import Any

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Rand2DElasticd, RandAffined, RandFlipd, RandGaussianNoised, RandSpatialCropd
from stopwatch import best_of

from monai_cl.transforms import RandViewsd

pytestmark = pytest.mark.benchmark

NOISE = RandGaussianNoised("image", prob=1.0)
CHAINS = {
    "crop and flip, 3-D": (
        (128, 128, 96),
        [RandSpatialCropd("image", (64, 64, 64), random_size=False), RandFlipd("image", prob=0.5), NOISE],
    ),
    "crop and affine, 3-D": (
        (128, 128, 96),
        [
            RandSpatialCropd("image", (64, 64, 64), random_size=False),
            RandAffined("image", prob=1.0, rotate_range=0.3, scale_range=0.1),
            NOISE,
        ],
    ),
    "affine and elastic, 2-D": (
        (192, 192),
        [
            RandAffined("image", prob=1.0, rotate_range=0.3, scale_range=0.1),
            Rand2DElasticd("image", (24, 24), (1, 2), prob=1.0),
            NOISE,
        ],
    ),
}


@pytest.mark.parametrize("name", CHAINS)
def test_views_with_places_against_the_chain_alone(benchmark: Any, name: str) -> None:
    torch.set_num_threads(1)
    shape, steps = CHAINS[name]
    item, chain = {"image": MetaTensor(torch.rand(1, *shape))}, Compose(steps)
    views = RandViewsd("image", chain)
    alone = best_of(lambda: (chain(item), chain(item)), 4)
    together = best_of(lambda: views(item), 4)
    benchmark.extra_info["times the plain chain"] = round(together / alone, 1)
    benchmark.pedantic(lambda: views(item), rounds=1)
    assert together < 8 * alone
