"""Correspondence by an affine registration of two volumes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from monai.utils import convert_to_tensor
from numpy.typing import NDArray
from torch import Tensor

from monai_cl.data.pairs.anatomy import Anatomy
from monai_cl.data.pairs.correspondence import Matches, body, inside
from monai_cl.networks import resized


class AffineRegistration:
    r"""Places by the affine map that makes two volumes share most information, once for each ordered pair.

    Volumes are compared on a coarse grid: mutual information of Mattes, all voxels, regular steps, from the centres of
    both on; one thread, so that a pair always gives the same map. Likeness is the correlation of the first volume with
    the second one as mapped, over their common voxels: a pair below the threshold is rejected whole, and so are places
    outside of the second volume.

    Args:
        volumes: Prepared volumes, by index.
        anatomies: Their bodies.
        key: Key of the image.
        grid_mm: Distance of voxels of the coarse grid in mm.
        threshold: Least likeness, in [-1, 1].
        iterations: Most steps of the optimiser.

    Raises:
        ValueError: If an option is out of range.

    References:
        Mattes et al. 2001, through SimpleITK.
    """

    def __init__(
        self,
        volumes: Any,
        anatomies: Sequence[Anatomy | None],
        *,
        key: str = "image",
        grid_mm: float = 4.0,
        threshold: float = 0.3,
        iterations: int = 100,
    ) -> None:
        if not grid_mm > 0 or iterations < 1:
            raise ValueError(f"grid_mm and iterations must be positive, got {grid_mm!r} and {iterations!r}")
        if not -1 <= threshold <= 1:
            raise ValueError(f"threshold must be a correlation between -1 and 1, got {threshold!r}")
        self.grid_mm = grid_mm
        self.threshold = threshold
        self.iterations = iterations
        self._volumes = volumes
        self._anatomies = anatomies
        self._key = key
        self._coarse: dict[int, sitk.Image] = {}
        self._affines: dict[tuple[int, int], tuple[Tensor, Tensor, float]] = {}

    def __call__(self, source: int, target: int, points: Tensor) -> Matches:
        """Match points of one volume with another, see :class:`Correspondence`."""
        if (source, target) not in self._affines:
            self._affines[source, target] = self._register(source, target)
        matrix, shift, likeness = self._affines[source, target]
        a, b = body(self._anatomies, source), body(self._anatomies, target)
        places = ((points * a.spacing).double() @ matrix.T + shift).float() / b.spacing
        accepted = inside(places, b.shape) & (likeness >= self.threshold)
        return Matches(places, torch.full((len(points),), likeness), accepted)

    def _register(self, source: int, target: int) -> tuple[Tensor, Tensor, float]:
        """Matrix and shift of the map from mm of one volume to mm of the other, and the likeness of both under it."""
        fixed, moving = self._image(source), self._image(target)
        axes = fixed.GetDimension()
        method = sitk.ImageRegistrationMethod()
        method.SetNumberOfThreads(1)
        method.SetMetricAsMattesMutualInformation(32)
        method.SetMetricSamplingStrategy(method.NONE)
        method.SetInterpolator(sitk.sitkLinear)
        method.SetOptimizerAsRegularStepGradientDescent(2.0, 1e-3, self.iterations, 0.6)
        method.SetOptimizerScalesFromPhysicalShift()
        start = sitk.CenteredTransformInitializer(
            fixed, moving, sitk.AffineTransform(axes), sitk.CenteredTransformInitializerFilter.GEOMETRY
        )
        method.SetInitialTransform(start, inPlace=True)
        affine = sitk.AffineTransform(start)
        try:
            method.Execute(fixed, moving)
            affine = sitk.AffineTransform(start)
        except RuntimeError:  # images that do not overlap any more share nothing
            return torch.eye(axes, dtype=torch.float64), torch.zeros(axes, dtype=torch.float64), -1.0
        matrix = torch.tensor(affine.GetMatrix(), dtype=torch.float64).reshape(axes, axes)
        centre, moved = (
            torch.tensor(each, dtype=torch.float64) for each in (affine.GetCenter(), affine.GetTranslation())
        )
        return matrix, centre + moved - matrix @ centre, _correlation(fixed, moving, affine)

    def _image(self, index: int) -> sitk.Image:
        """First channel of a volume on the coarse grid, in mm from its first voxel."""
        if index not in self._coarse:
            anatomy = body(self._anatomies, index)
            image: Tensor = convert_to_tensor(self._volumes[index][self._key], track_meta=False)
            spacing = anatomy.spacing.tolist()
            size = [max(round(n * s / self.grid_mm), 4) for n, s in zip(image.shape[1:], spacing, strict=True)]
            coarse = resized(image[None, :1].float(), size)[0, 0]
            made = sitk.GetImageFromArray(coarse.permute(*reversed(range(len(size)))).contiguous().numpy())
            steps = [n * s / m for n, s, m in zip(image.shape[1:], spacing, size, strict=True)]
            made.SetSpacing(steps)
            made.SetOrigin([(step - s) / 2 for step, s in zip(steps, spacing, strict=True)])  # centre of the first
            self._coarse[index] = made
        return self._coarse[index]


def _correlation(fixed: sitk.Image, moving: sitk.Image, affine: sitk.Transform) -> float:
    mapped = _array(sitk.Resample(moving, fixed, affine, sitk.sitkLinear, float("nan")))
    own = _array(fixed)
    common = np.isfinite(mapped)
    if common.mean() < 0.25:  # a corner that fits does not constrain the rest
        return -1.0
    a, b = own[common] - own[common].mean(), mapped[common] - mapped[common].mean()
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / length if length > 0 else 0.0


def _array(image: sitk.Image) -> NDArray[np.float64]:
    return np.asarray(sitk.GetArrayFromImage(image), dtype=np.float64)
