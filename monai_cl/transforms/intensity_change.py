"""The change of intensities that one image underwent, for another image."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.utils import convert_to_tensor
from torch import Tensor

_PAIRS = 8192  # of intensities, at least, that a change is read off


class IntensityChange(NamedTuple):
    """Change of intensities, taken to be a monotone function of each voxel.

    The effect of a recipe on an image depends on the image: its percentiles, its mean. A part of it that went through
    the recipe by itself, or the same without noise, would come out brighter or darker than in the whole.

    Attributes:
        before: Intensities in rising order (N,).
        after: Their values afterwards (N,).
        nothing: Value of exact zeros afterwards (background); they may change otherwise
            (``NormalizeIntensity(nonzero=True)`` leaves them). None without zeros.
    """

    before: np.ndarray
    after: np.ndarray
    nothing: float | None

    @classmethod
    def between(cls, before: Tensor, after: Tensor) -> "IntensityChange":
        """The change of an image of any shape, whose voxels ``before`` became ``after``."""
        x, y = before.flatten().double(), after.flatten().double()
        empty = x == 0
        nothing = float(y[empty][0]) if empty.any() else None
        if not empty.all():
            x, y = x[~empty], y[~empty]
        ends = torch.stack([x.argmin(), x.argmax()])
        at = torch.cat([torch.arange(0, len(x), max(len(x) // _PAIRS, 1)), ends])
        at = at[x[at].argsort()]
        return cls(x[at].numpy(), y[at].numpy(), nothing)

    @classmethod
    def of_subject(
        cls,
        scan: Callable[[Tensor, Mapping[str, Any]], Tensor],
        maps: Tensor,
        record: Mapping[str, Any],
        intensities: Callable[[Tensor], Tensor],
    ) -> "IntensityChange":
        """The change of a simulated scan of a whole subject, without its artefacts, for the scan of a part.

        Args:
            scan: Simulates the image of maps by a record, as ``RandMRContrast.apply``.
            maps: Maps of the whole subject (M, *S).
            record: Record of the scan.
            intensities: Array transform that changes the image.
        """
        before = convert_to_tensor(scan(maps, {**record, "artefacts": {}}), track_meta=False)
        return cls.between(before, convert_to_tensor(intensities(before), track_meta=False))

    def __call__(self, image: Tensor) -> Tensor:
        """``image``, of any shape, changed alike: linear between values that were seen, beyond them as at the ends."""
        result = torch.as_tensor(np.interp(image.double().numpy(), self.before, self.after))
        if self.nothing is not None:
            result = torch.where(image == 0, self.nothing, result)
        return result.to(image.dtype)
