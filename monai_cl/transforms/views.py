"""Independent random views of a volume, and the place in the volume that each of their voxels comes from."""

import copy
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor, get_track_meta
from monai.data.utils import to_affine_nd
from monai.transforms import Compose, MapTransform, Randomizable, Transform
from monai.utils import TransformBackends, convert_to_tensor
from torch import Tensor

from monai_cl.transforms._view_geometry import GRID_KEY, grid_alone, index_grid, read_grid, with_grid
from monai_cl.transforms.seeding import reseed

Unit = Literal["voxel", "mm"]
Origin = Literal["first", "centre"]
_SEEDS = 2**32


class RandViews(Randomizable, Transform):
    r"""Independent draws of a random chain, and for each voxel of each view its place in the source volume.

    An index grid takes part in all steps of the chain that move voxels (MONAI's spatial, crop and pad transforms),
    under the same draws, and in none of the others. Where voxel :math:`u` of a view was interpolated with weights
    :math:`w_i(u)` from source voxels :math:`i`, its place is :math:`\sum_i w_i(u)\, i`, so that places are exact
    through crops, flips, rotations, affine, elastic and grid deformations in any order. Draws (:meth:`randomize`) are
    one seed a view, apart from arithmetic (:meth:`apply`).

    Args:
        transform: Chain of array transforms, a ``Compose`` or a single one. Views must come out in one shape: end with
            a crop, ``Resize`` or ``ResizeWithPadOrCrop``. The chain is copied.
        num_views: Number of views.
        unit: Of the places: ``"voxel"``, indices of the source, 0 at the centre of the first voxel; or ``"mm"``,
            these times the spacing along each axis of the source (1 without metadata).
        origin: Where places are 0: ``"first"``, the centre of the first voxel, or ``"centre"``, that of the volume.

    Returns:
        A dictionary: ``views`` (V, C, *S), a MetaTensor with the affine of each view in ``meta`` where metadata are
        tracked; ``coords`` (V, nd, *S), float32; ``valid`` (V, *S), False where a voxel is not wholly from the
        source but from padding, of whatever mode. There the places continue those of the valid voxels.
        ``DenseContrastiveLoss`` takes ``coords[:, 0]``, ``coords[:, 1]`` and ``valid`` of a batch of two views.

    Raises:
        ValueError: If views differ in shape, a step gives several samples, or one cannot be followed:
            ``RandSmoothDeform``, ``CropForeground`` (use :class:`RandViewsd`), and transforms from elsewhere that
            change the affine or the shape.

    Note:
        Places are of what the image shows: with ``mode="nearest"`` they are whole indices. The dictionary form computes
        a deformation once for image and places, this form once for each.

    Example:
        >>> from monai.transforms import Compose, RandFlip, RandSpatialCrop
        >>> chain = Compose([RandFlip(prob=0.5, spatial_axis=0), RandSpatialCrop((4, 4), random_size=False)])
        >>> image = torch.arange(36.0).reshape(1, 6, 6)
        >>> found = RandViews(chain).set_random_state(seed=0)(image)
        >>> row, column = found["coords"].unbind(1)
        >>> bool((found["views"][:, 0] == 6 * row + column).all())
        True
    """

    backend = [TransformBackends.TORCH]  # noqa: RUF012 - MONAI's contract

    def __init__(
        self, transform: Callable[[Any], Any], num_views: int = 2, *, unit: Unit = "voxel", origin: Origin = "first"
    ) -> None:
        _check(num_views, unit, origin)
        self.num_views = num_views
        self.unit = unit
        self.origin = origin
        self.transform = copy.deepcopy(_chain(transform))
        self.grid_transform = grid_alone(self.transform)

    def randomize(self, data: Any = None) -> list[int]:
        """Draw the seed of each view."""
        return [int(self.R.randint(_SEEDS, dtype=np.uint32)) for _ in range(self.num_views)]

    def __call__(self, img: Tensor | np.ndarray) -> dict[str, Tensor]:
        """Draw seeds and make the views of ``img`` (C, *S)."""
        return self.apply(img, self.randomize())

    def apply(self, img: Tensor | np.ndarray, seeds: Sequence[int]) -> dict[str, Tensor]:
        """The views of ``img`` (C, *S) that ``seeds`` give."""
        image = convert_to_tensor(img, track_meta=get_track_meta())
        chains = ((self.transform, image), (self.grid_transform, index_grid(image)))
        views, grids = (
            [_only(chain.set_random_state(seed=s)(_fresh(given))) for s in seeds] for chain, given in chains
        )
        stacked = _stack(views, "views")
        coords, valid = _places(views, grids, image, self.unit, self.origin)
        return {"views": stacked, "coords": coords, "valid": valid}


class RandViewsd(Randomizable, MapTransform):
    """Dictionary form of :class:`RandViews`: what is under each key is replaced by its views.

    Args:
        keys: Keys whose results are stacked as views, (V, C, *S); the first is the image whose voxels are followed.
        transform: Chain of dictionary transforms with keys of its own; it is copied. Crops around labels or foreground
            are followed as well.
        num_views: Number of views.
        unit: Of the places, ``"voxel"`` or ``"mm"``; see :class:`RandViews`.
        origin: Where places are 0, ``"first"`` or ``"centre"``; see :class:`RandViews`.
        coords_key: Key of the places, (V, nd, *S).
        valid_key: Key of their validity, (V, *S).
        allow_missing_keys: Skip keys that an item lacks.

    Raises:
        ValueError: As :class:`RandViews`.
        KeyError: If an item lacks a key.

    Example:
        >>> from monai.transforms import Compose, RandFlipd, RandSpatialCropd
        >>> chain = Compose([RandFlipd("image", prob=0.5), RandSpatialCropd("image", (4, 4), random_size=False)])
        >>> found = RandViewsd("image", chain).set_random_state(seed=0)({"image": torch.rand(1, 6, 6), "case": "a"})
        >>> {key: tuple(value.shape) for key, value in found.items() if key != "case"}
        {'image': (2, 1, 4, 4), 'coords': (2, 2, 4, 4), 'valid': (2, 4, 4)}
    """

    backend = RandViews.backend

    def __init__(
        self,
        keys: KeysCollection,
        transform: Callable[[Any], Any],
        num_views: int = 2,
        *,
        unit: Unit = "voxel",
        origin: Origin = "first",
        coords_key: str = "coords",
        valid_key: str = "valid",
        allow_missing_keys: bool = False,
    ) -> None:
        _check(num_views, unit, origin)
        super().__init__(keys, allow_missing_keys)
        self.num_views = num_views
        self.unit = unit
        self.origin = origin
        self.coords_key = coords_key
        self.valid_key = valid_key
        self.transform = with_grid(_chain(transform), self.keys[0])

    def randomize(self, data: Any = None) -> list[int]:
        """Draw the seed of each view."""
        return [int(self.R.randint(_SEEDS, dtype=np.uint32)) for _ in range(self.num_views)]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Draw seeds and make the views."""
        return self.apply(data, self.randomize())

    def apply(self, data: Mapping[Hashable, Any], seeds: Sequence[int]) -> dict[Hashable, Any]:
        """The views of an item that ``seeds`` give."""
        d, present = dict(data), list(self.key_iterator(data))
        if not present:
            return d
        image = convert_to_tensor(d[present[0]], track_meta=get_track_meta())
        if present[0] != self.keys[0]:
            raise KeyError(f"{self.keys[0]!r} is the image whose voxels are followed; the item has only {present}")
        items = []
        for seed in seeds:
            chain = reseed(self.transform, seed)
            given = {**d, self.keys[0]: image, GRID_KEY: index_grid(image)}
            items.append(_only(chain({key: _fresh(value) for key, value in given.items()})))
        for key in present:
            d[key] = _stack([item[key] for item in items], key)
        views, grids = ([item[key] for item in items] for key in (self.keys[0], GRID_KEY))
        d[self.coords_key], d[self.valid_key] = _places(views, grids, image, self.unit, self.origin)
        return d


RandViewsD = RandViewsDict = RandViewsd


def _check(num_views: int, unit: str, origin: str) -> None:
    if num_views < 1:
        raise ValueError(f"num_views must be at least 1, got {num_views!r}")
    if unit not in ("voxel", "mm"):
        raise ValueError(f"unit must be 'voxel' or 'mm', got {unit!r}")
    if origin not in ("first", "centre"):
        raise ValueError(f"origin must be 'first' or 'centre', got {origin!r}")


def _chain(transform: Any) -> Compose:
    return transform if isinstance(transform, Compose) else Compose([transform])


def _fresh(value: Any) -> Any:
    """The same voxels with a record of their own: a random step that does nothing notes that in what it was given."""
    return MetaTensor(value.as_tensor()).copy_meta_from(value) if isinstance(value, MetaTensor) else value


def _only(result: Any) -> Any:
    """The one sample of a crop that may give several."""
    while isinstance(result, (list, tuple)):
        if len(result) != 1:
            raise ValueError(f"each view must be one sample, got {len(result)}; set num_samples to 1 in the chain")
        result = result[0]
    return result


def _places(
    views: Sequence[Tensor], grids: Sequence[Tensor], image: Tensor, unit: Unit, origin: Origin
) -> tuple[Tensor, Tensor]:
    for view, grid in zip(views, grids, strict=True):
        _check_followed(view, grid)
    result = [read_grid(grid) for grid in grids]
    coords, valid = (torch.stack(parts) for parts in zip(*result, strict=True))
    columns = (-1, *(1,) * (coords.ndim - 2))  # nd numbers beside (V, nd, *S)
    if origin == "centre":
        coords = coords - (torch.tensor(image.shape[1:]).to(coords) - 1).reshape(columns) / 2
    if unit == "mm" and isinstance(image, MetaTensor):
        # not pixdim: of a 2-D image that looks at two rows of the affine alone, and the plane may lie anywhere
        spacing = image.affine[:-1, :-1].norm(dim=0).to(coords)[: coords.shape[1]]
        coords = coords * spacing.reshape(columns)
    return coords, valid


def _check_followed(view: Tensor, grid: Tensor) -> None:
    same = view.shape[1:] == grid.shape[1:]
    if same and isinstance(view, MetaTensor) and isinstance(grid, MetaTensor):
        ours, theirs = _affine(view), _affine(grid)
        same = torch.allclose(ours.to(theirs), theirs, atol=1e-3)
    if not same:
        raise ValueError(
            f"the chain moves voxels in a step that cannot be followed: the view has shape {tuple(view.shape[1:])}, "
            f"its places {tuple(grid.shape[1:])}, or their affines differ; use MONAI's spatial and crop transforms in "
            "the chain, and others before it"
        )


def _affine(image: MetaTensor) -> Tensor:
    """Affine of three axes: a lazy step leaves one of two axes to a 2-D image, and what does nothing one of three."""
    affine: Tensor = to_affine_nd(3, image.affine)
    return affine


def _stack(views: Sequence[Any], key: Hashable) -> Tensor:
    shapes = {tuple(view.shape) for view in views}
    if len(shapes) > 1:
        raise ValueError(
            f"views of {key!r} must have one shape, got {sorted(shapes)}; end the chain with a crop of fixed size, "
            "Resize or ResizeWithPadOrCrop"
        )
    plain: Tensor = torch.stack([convert_to_tensor(view, track_meta=False) for view in views])
    if not all(isinstance(view, MetaTensor) for view in views):
        return plain
    stacked = MetaTensor(plain)
    stacked.meta = {"affine": torch.stack([_affine(view) for view in views])}  # a batch, as MONAI's collation makes it
    stacked.applied_operations = [[] for _ in views]
    stacked.is_batch = True
    done: Tensor = stacked
    return done
