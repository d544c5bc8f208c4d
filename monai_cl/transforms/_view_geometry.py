"""Origins of the voxels of a transformed image: an index grid that takes part in what moves voxels alone."""

import copy
from collections.abc import Hashable
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import (
    Compose,
    CropForeground,
    MapTransform,
    Randomizable,
    RandSimulateLowResolution,
    RandSimulateLowResolutiond,
    RandSmoothDeform,
    RandSmoothDeformd,
    RandZoom,
    RandZoomd,
    SelectItemsd,
    Transform,
    Transpose,
    Transposed,
    Zoom,
    Zoomd,
)
from scipy.ndimage import distance_transform_edt
from torch import Tensor

GRID_KEY = "_voxel_indices"
_MARK = 0.6180339887  # value of the channel that marks the source: not what anyone pads an image with
_WHOLE = 1e-3  # share of an interpolated voxel that may come from outside
_STRAIGHT = 1e-2  # voxels; a field that stays this near to an affine one is affine
_SAMPLE = 4096  # voxels that an affine field is fitted to

_MOVING = ("monai.transforms.spatial", "monai.transforms.croppad", "monai.transforms.lazy")
_ALSO_MOVING = (Transpose, Transposed, SelectItemsd)  # the last one would lose the grid
_STILL = (RandSimulateLowResolution, RandSimulateLowResolutiond)
_ONE_PER_KEY = ("mode", "padding_mode", "align_corners", "dtype", "anti_aliasing", "anti_aliasing_sigma",
                "scale_extent", "dst_keys")  # fmt: skip


def index_grid(image: Tensor) -> MetaTensor:
    """Voxel indices and a mark as an image (nd + 1, *S) that lies where ``image`` (C, *S) lies."""
    axes = [torch.arange(n, dtype=torch.float32, device=image.device) for n in image.shape[1:]]
    channels = [*torch.meshgrid(*axes, indexing="ij"), torch.full(image.shape[1:], _MARK, device=image.device)]
    grid = MetaTensor(torch.stack(channels))
    if isinstance(image, MetaTensor):
        grid.affine = image.affine
    return grid


def read_grid(grid: Tensor) -> tuple[Tensor, Tensor]:
    """Source indices (nd, *S) of a transformed :func:`index_grid`, and where they are known (*S).

    Elsewhere the field is continued: its affine part, and of what is left the value of the nearest known voxel.
    """
    plain = grid.as_tensor() if isinstance(grid, MetaTensor) else grid
    share = plain[-1] / _MARK
    known = (share - 1).abs() < _WHOLE
    indices = plain[:-1] / torch.where(known, share, 1.0)
    return (indices if known.all() else _continued(indices, known)), known


def _continued(indices: Tensor, known: Tensor) -> Tensor:
    if not known.any():
        return torch.zeros_like(indices)
    places = known.nonzero()
    places = places[:: max(len(places) // _SAMPLE, 1)]
    design = _homogeneous(places)
    values = indices[:, known].mT[:: max(int(known.sum()) // _SAMPLE, 1)].double()
    slopes = torch.linalg.pinv(design.mT @ design, hermitian=True) @ design.mT @ values  # (nd + 1, nd)
    every = torch.stack(torch.meshgrid(*[torch.arange(n) for n in known.shape], indexing="ij"), dim=-1)
    affine = (_homogeneous(every.to(places)) @ slopes).movedim(-1, 0).to(indices)  # (nd, *S)
    rest = torch.where(known, indices - affine, 0.0)
    if float(rest.abs().max()) > _STRAIGHT:
        nearest = distance_transform_edt((~known).cpu().numpy(), return_distances=False, return_indices=True)
        index = torch.as_tensor(np.ravel_multi_index(tuple(nearest), known.shape), device=rest.device)
        rest = rest.flatten(1)[:, index]
    return torch.where(known, indices, affine + rest)


def _homogeneous(places: Tensor) -> Tensor:
    return torch.cat([places.double(), places.new_ones((*places.shape[:-1], 1)).double()], dim=-1)


def moves_voxels(transform: Any) -> bool:
    """Return whether a transform changes where voxels lie."""
    if isinstance(transform, (RandSmoothDeform, RandSmoothDeformd)):
        raise ValueError(
            f"{type(transform).__name__} cannot be followed: use Rand2DElastic, Rand3DElastic or RandGridDistortion"
        )
    if isinstance(transform, _STILL):
        return False
    modules = [base.__module__ for base in type(transform).__mro__]
    return isinstance(transform, _ALSO_MOVING) or any(module.startswith(_MOVING) for module in modules)


def with_grid(chain: Compose, reference: Hashable) -> Compose:
    """Copy of a dictionary chain that moves :data:`GRID_KEY` as it moves the image under ``reference``."""
    chain = copy.deepcopy(chain)
    _add_grid(chain, reference)
    return chain


def _add_grid(transform: Any, reference: Hashable) -> None:
    if isinstance(transform, Compose):
        transform.overrides = {**(transform.overrides or {}), GRID_KEY: {"padding_mode": "zeros"}}  # if it is lazy
        for step in transform.transforms:
            _add_grid(step, reference)
    elif isinstance(transform, MapTransform) and reference in transform.keys and moves_voxels(transform):
        _add_key(transform, transform.keys.index(reference))


def grid_alone(chain: Any) -> Any:
    """Copy of an array chain that moves an index grid as the chain moves images, and leaves it alone otherwise."""
    if isinstance(chain, Compose):
        moving = copy.copy(chain)
        moving.R = copy.deepcopy(chain.R)
        moving.transforms = [grid_alone(transform) for transform in chain.transforms]
        moving.overrides = {**(chain.overrides or {}), "padding_mode": "zeros"}  # if it is lazy
        return moving
    if not moves_voxels(chain):
        return _RandNothing() if isinstance(chain, Randomizable) else _Nothing()
    if isinstance(chain, CropForeground):
        raise ValueError("CropForeground depends on the image: use CropForegroundd in RandViewsd")
    moving = copy.deepcopy(chain)
    _pad_with_zeros(moving)
    return moving


class _Nothing(Transform):
    def __call__(self, data: Any) -> Any:
        return data


class _RandNothing(Randomizable, _Nothing):
    """Takes the place of a random transform, so that a chain seeds the others as before."""


def _add_key(transform: Any, place: int) -> None:
    number = len(transform.keys)
    transform.keys = (*transform.keys, GRID_KEY)
    for name in _ONE_PER_KEY:
        values = getattr(transform, name, None)
        if isinstance(values, (tuple, list)) and len(values) == number:
            setattr(transform, name, (*values, _of_grid(transform, name, values[place])))


def _of_grid(transform: Any, name: str, value: Any) -> Any:
    if name == "mode" and "croppad" in _module(transform):
        return "constant"
    if name == "padding_mode":
        return "constant" if isinstance(transform, (Zoom, Zoomd, RandZoom, RandZoomd)) else "zeros"
    return {"anti_aliasing": False, "dtype": np.float32}.get(name, value)


def _pad_with_zeros(transform: Any) -> None:
    for name, value in list(vars(transform).items()):
        if isinstance(value, Transform):
            _pad_with_zeros(value)
        elif name in _ONE_PER_KEY:
            setattr(transform, name, _of_grid(transform, name, value))


def _module(transform: Any) -> str:
    """Module of MONAI that defines a transform or a class it derives from."""
    modules = [base.__module__ for base in type(transform).__mro__]
    return next((module for module in modules if module.startswith(_MOVING)), "")
