"""Stacks of slices in one orientation: slices last, planes the same way up, whatever the scanner chose."""

import itertools
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.data import MetaTensor, get_track_meta
from monai.transforms import InvertibleTransform, MapTransform, Orientation
from monai.transforms.spatial.functional import orientation
from monai.utils import convert_to_tensor
from torch import Tensor

_THICKER = 1.1  # ratio of the spacing of slices to that of their plane
_FEWER = 2.0  # ratio of numbers of voxels, if spacings are equal
# Where the axes of a short-axis view lead, in RAS: across the image to the left, down the image to the back and the
# feet, through the slices from base to apex, which lies to the left, in front and below.
_TOWARDS = np.array([[-1.0, 0, 0], [0, -(0.5**0.5), -(0.5**0.5)], [-(3**-0.5), 3**-0.5, -(3**-0.5)]])


def slice_axis(shape: Sequence[int], spacing: Sequence[float]) -> int:
    """Axis along which slices are stacked.

    That of the largest spacing, if it is more than a tenth above the others; failing that, that with less than half
    the voxels of any other; failing that, the last one, which is along the body in volumes oriented to RAS.

    Args:
        shape: Voxels along each axis.
        spacing: Their size in mm.

    Example:
        >>> slice_axis((10, 256, 256), (8.0, 1.4, 1.4)), slice_axis((200, 200, 9), (1.0, 1.0, 1.0))
        (0, 2)
    """
    by_spacing, by_size = np.argsort(spacing, kind="stable"), np.argsort(shape, kind="stable")
    if spacing[by_spacing[-1]] > _THICKER * spacing[by_spacing[-2]]:
        return int(by_spacing[-1])
    if _FEWER * shape[by_size[0]] < shape[by_size[1]]:
        return int(by_size[0])
    return len(shape) - 1


class ShortAxisOrientation(Orientation):
    r"""Bring a short-axis stack of the heart to slices last, base first, the right ventricle at the left.

    Short-axis planes are oblique, and which body axis is nearest to one of theirs changes from patient to patient; an
    orientation such as RAS then has the slices along another axis in some. Here the slices (:func:`slice_axis`) come
    last, and of the flips and the exchange of the other two axes those are taken that bring them nearest to the
    directions of the usual view, :math:`\sum_i a_i \cdot t_i` at its largest with :math:`a_i` the axis in the world and
    :math:`t` left, back and feet, apex. No voxel is interpolated. The remainder is a rotation of at most 45 degrees in
    the plane; and all of it where the affine holds no orientation, as in files without orientation.

    Invertible; volumes (C, X, Y, Z) with an affine in RAS mm.

    Raises:
        ValueError: If the image has not three spatial axes.

    Example:
        >>> import torch
        >>> affine = torch.tensor([[0, 0, 1.5, 0], [8.0, 0, 0, 0], [0, 1.5, 0, 0], [0, 0, 0, 1]]).double()
        >>> image = ShortAxisOrientation()(MetaTensor(torch.zeros(1, 9, 20, 24), affine=affine))
        >>> tuple(image.shape), image.pixdim.tolist()
        ((1, 24, 20, 9), [1.5, 1.5, 8.0])
    """

    def __init__(self) -> None:
        super().__init__(axcodes="RAS", labels=(("L", "R"), ("P", "A"), ("I", "S")))  # its own is found for each volume

    @property
    def requires_current_data(self) -> bool:
        """Return True: shape and affine decide, with pending operations carried out."""
        return True

    def __call__(self, data_array: Tensor, lazy: bool | None = None) -> Tensor:
        """Orient a volume (C, X, Y, Z)."""
        image = convert_to_tensor(data_array, track_meta=get_track_meta())
        if image.ndim != 4:
            raise ValueError(f"img must be channel-first with 3 spatial axes, got shape {tuple(image.shape)}")
        affine = image.affine.numpy() if isinstance(image, MetaTensor) else np.eye(4)
        turned = _orientation(tuple(image.shape[1:]), affine)
        done: Tensor = orientation(image, affine, turned, lazy=False, transform_info=self.get_transform_info())
        return done


class ShortAxisOrientationd(MapTransform, InvertibleTransform):
    """Dictionary form of :class:`ShortAxisOrientation`.

    Args:
        keys: Keys of volumes (C, X, Y, Z).
        allow_missing_keys: Skip keys that an item lacks.
    """

    backend = Orientation.backend

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.orient = ShortAxisOrientation()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Orient the volume under each key."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.orient(d[key])
        return d

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Undo it."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.orient.inverse(d[key])
        return d


ShortAxisOrientationD = ShortAxisOrientationDict = ShortAxisOrientationd


def _orientation(shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    """Target axis and direction of each axis of the image, as nibabel writes it."""
    columns = affine[:3, :3]
    lengths = np.linalg.norm(columns, axis=0)
    through = slice_axis(shape, lengths.tolist())
    along = (columns / lengths).T @ _TOWARDS.T  # (image axis, target)
    plane = [axis for axis in range(3) if axis != through]
    orders = [(*pair, through) for pair in itertools.permutations(plane)]
    best = max(orders, key=lambda order: sum(abs(along[axis, target]) for target, axis in enumerate(order[:2])))
    turned = np.empty((3, 2))
    for target, axis in enumerate(best):
        turned[axis] = target, -1.0 if along[axis, target] < 0 else 1.0
    return turned
