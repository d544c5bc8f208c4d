"""Body of a volume: its box, points of it, and what a crop needs to know."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from monai.utils import convert_to_tensor
from torch import Tensor

from monai_cl.transforms.stored import StoredVolume, whole

_POINTS = 4096  # that are kept of a body, evenly spread
_TAIL = 0.005  # share of the body beyond each face of its box, so that a speck does not move it


@dataclass(frozen=True)
class Anatomy:
    """Place of the body in a volume.

    Attributes:
        case: Name of the volume.
        subject: Its patient.
        shape: Spatial size in voxels.
        spacing: Size of a voxel in mm along each axis (n,).
        low: First voxel of the body along each axis (n,).
        high: Last one (n,).
        points: Voxels of the body (N, n), evenly spread.
        minimum: Smallest value of the volume.
    """

    case: str
    subject: str
    shape: tuple[int, ...]
    spacing: Tensor
    low: Tensor
    high: Tensor
    points: Tensor
    minimum: float


def anatomy_of(item: Mapping[str, Any], *, key: str = "image", case: str = "") -> Anatomy:
    r"""Find the body in a volume (C, \*S): what is above the mean of its first channel.

    The box leaves out half a percent of the body at each face, so that a table or a speck does not move it.

    Args:
        item: A prepared volume with its entry of the datalist.
        key: Key of the image.
        case: Its name where the item has none.

    Example:
        >>> image = torch.zeros(1, 10, 10)
        >>> image[0, 2:5, 3:9] = 1
        >>> body = anatomy_of({"image": image})
        >>> body.low.tolist(), body.high.tolist(), len(body.points)
        ([2.0, 3.0], [4.0, 8.0], 18)
    """
    given = whole({key: item[key]})[key]
    image: Tensor = convert_to_tensor(given, track_meta=False)
    first = image[0].float()
    body = first > first.mean()
    if not body.any():  # an image of one value has no body but itself
        body = torch.ones_like(body)
    places = body.nonzero()
    sorted_places = places.sort(0).values
    name, subject = str(item.get("case", case)), item.get("subject")
    beyond = int(_TAIL * len(places))
    return Anatomy(
        case=name,
        subject=name if subject is None else str(subject),
        shape=tuple(first.shape),
        spacing=spacing_of(given),
        low=sorted_places[beyond].float(),
        high=sorted_places[-1 - beyond].float(),
        points=places[:: max(len(places) // _POINTS, 1)],
        minimum=float(image.min()),
    )


def spacing_of(image: Any) -> Tensor:
    r"""Size of a voxel in mm along each axis (n,) of an image (C, \*S); 1 without metadata."""
    axes = image.ndim - 1
    affine = getattr(image, "affine", None)
    if affine is None:
        return torch.ones(axes)
    spacing: Tensor = torch.as_tensor(affine)[:-1, :-1].norm(dim=0)[:axes].float()
    return spacing


def crop_around(image: Any, centre: Tensor, size: tuple[int, ...], *, fill: float) -> tuple[Tensor, Tensor]:
    r"""Crop (C, \*size) of which voxel ``size // 2`` shows voxel ``centre``, and where it lies in the volume (\*size).

    Args:
        image: A volume (C, \*S), or a :class:`monai_cl.transforms.StoredVolume`, of which only the box is read.
        centre: A voxel (n,).
        size: Edge lengths of the crop.
        fill: Value beyond the volume.
    """
    start = [int(c) - n // 2 for c, n in zip(centre, size, strict=True)]
    low = [max(s, 0) for s in start]
    high = [min(s + n, edge) for s, n, edge in zip(start, size, image.shape[1:], strict=True)]
    valid = torch.zeros(size, dtype=torch.bool)
    if any(a >= b for a, b in zip(low, high, strict=True)):
        return torch.full((image.shape[0], *size), fill), valid
    if isinstance(image, StoredVolume):
        box: Tensor = convert_to_tensor(image.read(low, high), track_meta=False)
    else:
        plain: Tensor = convert_to_tensor(image, track_meta=False)
        inside = (slice(None), *(slice(a, b) for a, b in zip(low, high, strict=True)))
        box = plain[inside]
    crop = box.new_full((len(box), *size), fill)
    place = tuple(slice(a - s, b - s) for a, b, s in zip(low, high, start, strict=True))
    everywhere = (slice(None), *place)
    crop[everywhere] = box
    valid[place] = True
    return crop, valid
