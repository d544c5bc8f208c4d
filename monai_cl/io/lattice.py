"""Lattice of two volumes: the same places, though a file may store its axes in another order or direction."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_cl.io.errors import UnusableImageError

_ENTRIES = 1e-3  # by which entries of affines may differ
_ROUNDING = 1e-5  # of the extent: what a rounded direction moves the far end by
_SHARE = 0.1  # of the smallest voxel side, that voxels may lie apart


@dataclass(frozen=True)
class Order:
    """Order and direction of the axes of one volume along those of another.

    Args:
        axes: The axis of the first that runs along each axis of the second.
        flipped: Axes, in the order of the second, that run the other way.
    """

    axes: tuple[int, int, int]
    flipped: tuple[int, ...]

    @property
    def changes(self) -> bool:
        """Return whether the volume is stored otherwise at all."""
        return self.axes != (0, 1, 2) or bool(self.flipped)

    def apply(self, values: Any) -> Any:
        """Reorder an array or tensor whose last three axes are those of the volume, as a view or a copy."""
        first = values.ndim - 3
        axes = (*range(first), *(first + axis for axis in self.axes))
        flipped = tuple(first + axis for axis in self.flipped)
        if isinstance(values, np.ndarray):
            return np.flip(values.transpose(axes), flipped)
        return values.permute(axes).flip(flipped)

    def affine(self, affine: NDArray[np.float64], shape: Sequence[int]) -> NDArray[np.float64]:
        """The affine of the reordered volume.

        Args:
            affine: Affine before.
            shape: Voxels along each axis before.
        """
        result: NDArray[np.float64] = affine.copy()
        result[:3, :3] = affine[:3, list(self.axes)]
        for axis in self.flipped:
            result[:3, 3] += result[:3, axis] * (shape[self.axes[axis]] - 1)
            result[:3, axis] *= -1
        return result


def order_along(affine: NDArray[np.float64], target: NDArray[np.float64]) -> Order:
    """Order that makes the axes of a volume of one affine run along those of another.

    Example:
        >>> order_along(np.diag([-1.0, 1, 1, 1])[:, [1, 0, 2, 3]], np.eye(4))
        Order(axes=(1, 0, 2), flipped=(0,))
    """
    one, other = (matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0) for matrix in (affine, target))
    along = other.T @ one  # cosine between axis i of the target and axis j of the volume
    axes = tuple(int(axis) for axis in np.abs(along).argmax(axis=1))
    if sorted(axes) != [0, 1, 2]:
        return Order((0, 1, 2), ())
    return Order((axes[0], axes[1], axes[2]), tuple(i for i in range(3) if along[i, axes[i]] < 0))


def check_same_lattice(
    image: NDArray[np.float64], shape: Sequence[int], label: NDArray[np.float64], label_shape: Sequence[int]
) -> Order:
    """Check that a label has a voxel at the place of each voxel of its image, and no other.

    Entries of the affines may differ by 1e-3 (offsets by 1e-5 of the extent, if that is more), as long as no corner
    moves by more than a tenth of the smallest voxel side: rounded rotations pass, shifts do not. The label may store
    its axes in another order or direction.

    Args:
        image: Affine of the image.
        shape: Voxels of the image along each axis.
        label: Affine of the label.
        label_shape: Voxels of the label along each axis.

    Returns:
        How to reorder the label onto the axes of the image.

    Raises:
        UnusableImageError: If shapes or places differ; states by how many mm.
    """
    order = order_along(label, image)
    if tuple(label_shape[axis] for axis in order.axes) != tuple(shape):
        raise UnusableImageError(
            "image and label differ in shape", f"image {by(shape)}, label {by(label_shape)} voxels"
        )
    difference = image - order.affine(label, label_shape)
    corners = np.array([(*corner, 1) for corner in product(*((0, size - 1) for size in shape))])
    moved = float(np.linalg.norm(corners @ difference[:3].T, axis=1).max())
    sides = np.linalg.norm(image[:3, :3], axis=0)
    offset = max(_ENTRIES, _ROUNDING * float(sides @ np.array(shape)))
    close = np.abs(difference[:3, :3]).max() <= _ENTRIES and np.abs(difference[:3, 3]).max() <= offset
    if not close or moved > _SHARE * sides.min():
        raise UnusableImageError(
            "image and label differ in affine",
            f"voxels of the label lie up to {moved:.4g} mm from those of the image, whose smallest side is "
            f"{sides.min():.4g} mm; resample the label onto the grid of the image, or repair its header",
        )
    return order


def by(shape: Sequence[int]) -> str:
    """Sizes as a text, ``64 x 64 x 32``."""
    return " x ".join(str(size) for size in shape)
