"""Seeding a chain of random transforms anew for each item."""

from typing import TypeVar

import numpy as np
from monai.transforms import Compose, Randomizable

Chain = TypeVar("Chain", bound=Randomizable)


def reseed(transform: Chain, seed: int) -> Chain:
    """Let a random transform and all within it draw from one new generator, and return it.

    MONAI's ``Compose.set_random_state`` makes a generator for each transform of a chain. Twenty of them take longer
    than the chain takes for a slice.

    Args:
        transform: Transform or chain of transforms.
        seed: Seed of the generator, from 0 to 2 ** 32 - 1.

    Example:
        >>> from monai.transforms import RandFlip, RandGaussianNoise
        >>> chain = reseed(Compose([RandFlip(), Compose([RandGaussianNoise()])]), 3)
        >>> chain.transforms[0].R is chain.transforms[1].transforms[0].R
        True
    """
    _share(transform, np.random.RandomState(seed))
    return transform


def _share(transform: Randomizable, state: np.random.RandomState) -> None:
    if not isinstance(transform, Compose):
        transform.set_random_state(state=state)
        return
    transform.R = state
    for one in transform.transforms:
        if isinstance(one, Randomizable):
            _share(one, state)
