"""Correspondence of places in two patients: what each way of finding it gives, and that of body boxes."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from monai_cl.data.pairs.anatomy import Anatomy


class Matches(NamedTuple):
    """Places in one volume of what points of another one show.

    Attributes:
        places: Voxels (P, n) of the second volume; they need not be whole.
        likeness: How alike both are (P,), from -1 to 1; 1 where nothing is compared.
        accepted: False without a match (P,): the place means nothing there.
    """

    places: Tensor
    likeness: Tensor
    accepted: Tensor


class Correspondence(Protocol):
    """Finds the places of one volume in another."""

    def __call__(self, source: int, target: int, points: Tensor) -> Matches:
        """Match voxels ``points`` (P, n) of the volume of index ``source`` with the one of index ``target``."""


class BodyBoxes:
    r"""Places at the same share of the way through the box of the body, along each axis.

    .. math:: q = l_B + (p - l_A)\,\frac{h_B - l_B}{h_A - l_A}

    with the first and last voxels :math:`l, h` of both bodies. An affine guess that looks at no structure: it cannot
    know that a match is bad, and rejects only places that lie outside of the second volume.

    Args:
        anatomies: The bodies, by index.

    Example:
        >>> import dataclasses
        >>> from monai_cl.data.pairs.anatomy import anatomy_of
        >>> image = torch.zeros(1, 12, 12)
        >>> image[0, 2:5, 3:9] = 1
        >>> a, b = (anatomy_of({"image": one}) for one in (image, image.roll(4, 1)))
        >>> BodyBoxes([a, b])(0, 1, torch.tensor([[3, 4]])).places.tolist()
        [[7.0, 4.0]]
    """

    def __init__(self, anatomies: Sequence[Anatomy | None]) -> None:
        self._anatomies = anatomies

    def __call__(self, source: int, target: int, points: Tensor) -> Matches:
        """Match points of one volume with another, see :class:`Correspondence`."""
        a, b = body(self._anatomies, source), body(self._anatomies, target)
        stretch = (b.high - b.low) / (a.high - a.low).clamp(min=1)
        places = b.low + (points - a.low) * stretch
        return Matches(places, torch.ones(len(points)), inside(places, b.shape))


def inside(places: Tensor, shape: Sequence[int]) -> Tensor:
    """Return which places (P, n) lie in a volume of this size."""
    return ((places >= -0.5) & (places <= torch.tensor(list(shape)) - 0.5)).all(1)


def body(anatomies: Sequence[Anatomy | None], index: int) -> Anatomy:
    """Return the body of a volume that could be read."""
    anatomy = anatomies[index]
    if anatomy is None:
        raise ValueError(f"volume {index} could not be read, it has no body to compare; leave it out")
    return anatomy
