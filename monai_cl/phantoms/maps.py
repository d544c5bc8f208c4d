"""Quantitative maps of synthetic brains: proton density, T1, T2, T2* and MTsat of a subject nobody scanned."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.utils import SpaceKeys
from torch import Tensor

from monai_cl.phantoms.deformation import random_displacement, sample, voxel_grid
from monai_cl.phantoms.head import add_head
from monai_cl.phantoms.lesions import MOST_LESIONS, add_lesions
from monai_cl.phantoms.template import FIELD_OF_VIEW, HEAD_MARGIN, Grid, lattice, template_fractions, to_grid
from monai_cl.phantoms.volume import Seed, smooth_noise
from monai_cl.qmri import Protocol, TissueValues, protocol_from_dict, tissue
from monai_cl.qmri.maps import MAP_NAMES

MAP_LABELS = {
    1: "grey_matter", 2: "white_matter", 3: "csf", 4: "white_matter_lesion", 5: "fat", 6: "muscle",
}  # fmt: skip
_BRAIN = ("grey_matter", "white_matter", "csf")
_FIELDS = (1.5, 3.0, 7.0)

# Texture within a tissue, an estimate: the logarithm of a property wanders with this standard deviation.
_TEXTURE = {"pd": 0.012, "t1": 0.04, "t2": 0.04, "t2_star": 0.06, "mtsat": 0.06}
_TEXTURE_OF = {"csf": 0.3, "white_matter_lesion": 2.0}  # times the above
_TEXTURE_MM, _LATTICE_MM = 12.0, 6.0  # correlation length of the texture, and the cells it is drawn on
_SHARED = 0.8  # part of the texture that all properties share: more myelin shortens all times and raises MTsat
_SIGN = torch.tensor([1.0 if name != "mtsat" else -1.0 for name in MAP_NAMES])
# What always holds in an adult brain, so that draws in which it does not are drawn again.
_MIN_T1_RATIO, _MIN_DENSITY_RATIO = 1.35, 1.15
_LEAST_SHARE = 1e-3


@dataclass(frozen=True, kw_only=True)
class BrainMaps:
    r"""Quantitative maps of one synthetic subject, in the units of :mod:`monai_cl.qmri`.

    Maps of a voxel that tissues share are those of a measurement that sees one pool: densities add up, and rates and
    saturations are means weighted by density. :meth:`image` does better: it mixes the signals of tissues.

    Attributes:
        maps: float32 of shape ``(5, X, Y, Z)``: ``pd`` (p.u.), ``t1``, ``t2``, ``t2_star`` (s), ``mtsat`` (fraction),
            in the order of ``monai_cl.qmri.maps.MAP_NAMES`` and of the default ``maps`` of ``RandMRContrast``; 0 where
            nothing gives signal.
        fractions: float32 volume shares of the tissues, of shape ``(T, X, Y, Z)``; what they leave of a voxel is air or
            bone.
        tissues: Names of the T tissues, those of :func:`monai_cl.qmri.tissue`.
        label: uint8 label map of shape ``(1, X, Y, Z)``, the tissue of the largest share: 1 grey matter, 2 white
            matter, 3 cerebrospinal fluid, 4 lesion of white matter, 5 fat, 6 muscle, 0 none.
        affine: float64 ``(4, 4)`` map from voxel index to millimetres, axes towards Right, Anterior, Superior.
        field_strength: Field in tesla that the relaxation times belong to.
        values: Values drawn for the middle of each tissue.
    """

    maps: Tensor
    fractions: Tensor
    tissues: tuple[str, ...]
    label: Tensor
    affine: Tensor
    field_strength: float
    values: Mapping[str, TissueValues]
    _texture: Mapping[str, Tensor]
    _grid: Grid

    def tissue_maps(self, name: str) -> dict[str, Tensor]:
        """Maps of one tissue, texture included, as if it filled the volume.

        Args:
            name: One of :attr:`tissues`.

        Returns:
            One map of shape ``(X, Y, Z)`` by name.

        Raises:
            ValueError: If the subject does not have this tissue.
        """
        if name not in self.tissues:
            raise ValueError(f"the subject has the tissues {self.tissues}, got {name!r}")
        everywhere = torch.ones(self._grid.shape, dtype=torch.bool)
        maps = _properties(self.values[name], self._texture[name], self._grid, everywhere)
        return {n: values.reshape(self._grid.shape) for n, values in maps.items()}

    def image(self, protocol: Protocol | Mapping[str, Any]) -> Tensor:
        r"""Image of a protocol without noise, tissues mixed in the signal: $S = |\sum_t f_t S_t|$.

        Args:
            protocol: A protocol of :mod:`monai_cl.qmri`, or its record.

        Returns:
            Image of shape ``(1, X, Y, Z)``; a magnitude, signed for MP2RAGE.
        """
        protocol = protocol if isinstance(protocol, Protocol) else protocol_from_dict(protocol)
        total: list[Tensor] = []
        for name, share in zip(self.tissues, self.fractions, strict=True):
            here = share > 0
            maps = _properties(self.values[name], self._texture[name], self._grid, here)
            parts = protocol.coherent(**{n: maps[n] for n in protocol.takes})
            total = total or [torch.zeros_like(share) for _ in parts]
            for image, part in zip(total, parts, strict=True):
                image[here] += share[here] * part
        return protocol.combine(*total)[None]

    def metatensor(self, *, fractions: bool = False) -> MetaTensor:
        """The maps as a transform takes them, with their affine.

        Args:
            fractions: Append the fractions of the tissues as further channels, as
                ``RandMRContrast(fractions=subject.tissues)`` wants them.
        """
        data = torch.cat([self.maps, self.fractions]) if fractions else self.maps.clone()
        return MetaTensor(data, affine=self.affine.clone(), meta={"space": SpaceKeys.RAS})


def brain_maps(
    seed: Seed,
    *,
    spacing: float = 3.0,
    field_strength: float = 3.0,
    head: bool = False,
    lesions: int | tuple[int, int] = 0,
) -> BrainMaps:
    r"""Quantitative maps of a random subject.

    The tissue fractions of ICBM152 go through a random diffeomorphism. Properties of each tissue are drawn from the
    table of :mod:`monai_cl.qmri.tissues` at the field strength, drawn again where grey matter would not have the longer
    $T_1$ ($T_1^{grey} \ge 1.35\,T_1^{white}$) or strong T1-weighting would not show white before grey matter
    ($\rho/T_1$). Within a tissue they wander smoothly over about a centimetre (4 % in $T_1$), most of it together, as
    with the amount of myelin. $T_2^* \le T_2 \le T_1$ holds everywhere.

    Args:
        seed: Integer, or several; equal seeds give equal subjects, and one anatomy and texture whatever the spacing,
            with or without head and lesions.
        spacing: Isotropic voxel size in millimetres, 1 to 12.
        field_strength: 1.5, 3 or 7 tesla.
        head: Add skull (no signal, with marrow), muscle and fat around the brain as shells of random thickness, since
            nilearn carries no skull; the field of view grows from 168 x 216 x 168 to 192 x 240 x 192 mm. Not at 7
            tesla, where the table has no muscle.
        lesions: Number of lesions in white matter, at most 500, or a pair to draw it from, both ends included.

    Returns:
        The subject: 56 x 72 x 56 voxels at 3 mm.

    Raises:
        ValueError: If the spacing, the field strength or the number of lesions is out of range.
        ModuleNotFoundError: If nilearn, which carries the tissue maps, is not installed.

    Source:
        Fonov et al., NeuroImage 54 (2011) 313-327, doi:10.1016/j.neuroimage.2010.07.033 (ICBM152 2009a symmetric).

    Example:
        >>> from monai_cl.transforms import RandMRContrast
        >>> subject = brain_maps(0, spacing=8.0)
        >>> RandMRContrast(["flair"])(subject.metatensor()).shape
        torch.Size([1, 21, 27, 21])
    """
    _check(field_strength, head, lesions)
    streams = random_streams(seed)
    grid = Grid(spacing, HEAD_MARGIN if head else 0)
    displacement = random_displacement(
        streams["anatomy"], grid.shape, grid.spacing, extent=FIELD_OF_VIEW, margin=grid.margin
    )
    at = voxel_grid(grid.shape) + displacement
    fractions = dict(zip(_BRAIN, sample(template_fractions(grid), at), strict=True))
    in_template = (at + 0.5) * grid.spacing - grid.margin  # mm from the first corner of the brain's field of view
    number = _number(streams["lesions"], lesions)
    if number:
        fractions = add_lesions(streams["lesions"], fractions, in_template, number, grid.spacing)
    if head:
        fractions = add_head(streams["head"], fractions, in_template, grid.spacing)
    values = _draw_values(streams["tissues"], field_strength)
    texture = _draw_textures(streams["texture"])
    shares = torch.stack(list(fractions.values()))
    chosen = {name: values[name] for name in fractions}
    return BrainMaps(
        maps=_one_pool(shares, chosen, texture, grid),
        fractions=shares,
        tissues=tuple(fractions),
        label=_largest_share(fractions),
        affine=grid.affine,
        field_strength=float(field_strength),
        values=chosen,
        _texture={name: texture[name] for name in fractions},
        _grid=grid,
    )


def random_streams(seed: Seed) -> dict[str, np.random.Generator]:
    """Separate sources of draws for each step, so that a change in one leaves the others as they are."""
    names = ("anatomy", "tissues", "receive", "noise", "protocol", "texture", "lesions", "head")
    spawned = np.random.SeedSequence(seed).spawn(len(names))
    return {name: np.random.default_rng(one) for name, one in zip(names, spawned, strict=True)}


def _check(field_strength: float, head: bool, lesions: int | tuple[int, int]) -> None:
    if field_strength not in _FIELDS:
        raise ValueError(
            f"field_strength must be one of {_FIELDS} tesla, where tissues are known, got {field_strength}"
        )
    if head and field_strength == 7:
        raise ValueError("head=True needs 1.5 or 3 tesla, muscle is not known at 7; leave the head out")
    low, high = lesions if isinstance(lesions, Sequence) else (lesions, lesions)
    if not 0 <= low <= high <= MOST_LESIONS:
        raise ValueError(
            f"lesions must be a number from 0 to {MOST_LESIONS}, for which space exists, or an ordered pair of them, "
            f"got {lesions!r}"
        )


def _number(rng: np.random.Generator, lesions: int | tuple[int, int]) -> int:
    if not isinstance(lesions, Sequence):
        return lesions
    return int(rng.integers(lesions[0], lesions[1], endpoint=True))


def _draw_values(rng: np.random.Generator, field_strength: float) -> dict[str, TissueValues]:
    """Properties of all tissues the table has at this field, in the order of the labels."""
    while True:
        values = {name: tissue(name, field_strength).draw(rng) for name in _BRAIN}
        grey, white, fluid = values.values()
        longer = grey.t1 >= _MIN_T1_RATIO * white.t1 and fluid.t1 > grey.t1
        if longer and white.pd / white.t1 >= _MIN_DENSITY_RATIO * grey.pd / grey.t1:
            break
    for name in list(MAP_LABELS.values())[len(_BRAIN) :]:
        if name != "muscle" or field_strength != 7:
            values[name] = tissue(name, field_strength).draw(rng)
    return values


def _draw_textures(rng: np.random.Generator) -> dict[str, Tensor]:
    """Logarithm of the factor on each property, tissue by tissue, (5, x, y, z) on a coarse lattice."""
    shape = lattice(FIELD_OF_VIEW, _LATTICE_MM)
    sizes = torch.tensor([_TEXTURE[name] for name in MAP_NAMES])
    textures = {}
    for name in MAP_LABELS.values():
        shared, *own = (smooth_noise(rng, shape, _TEXTURE_MM / _LATTICE_MM) for _ in range(1 + len(MAP_NAMES)))
        # p = property
        together = torch.einsum("p,xyz->pxyz", _SHARED * _SIGN, shared)
        mixed = together + (1 - _SHARED**2) ** 0.5 * torch.stack(own)
        textures[name] = _TEXTURE_OF.get(name, 1.0) * sizes.reshape(-1, 1, 1, 1) * mixed
    return textures


def _properties(values: TissueValues, texture: Tensor, grid: Grid, here: Tensor) -> dict[str, Tensor]:
    """Property maps of one tissue at the N voxels where ``here`` (X, Y, Z) holds, of shape (N,) by name."""
    at = (here.nonzero().T + 0.5) * grid.spacing - grid.margin  # mm, (3, N)
    factor = torch.exp(sample(texture, to_grid(at, _LATTICE_MM)[..., None, None]))[..., 0, 0]
    middle = torch.tensor([getattr(values, name) for name in MAP_NAMES])
    maps = dict(zip(MAP_NAMES, middle[:, None] * factor, strict=True))
    maps["pd"] = maps["pd"].clamp(max=100.0)
    maps["t2"] = torch.minimum(maps["t2"], maps["t1"])
    maps["t2_star"] = torch.minimum(maps["t2_star"], maps["t2"])
    return maps


def _one_pool(shares: Tensor, values: Mapping[str, TissueValues], texture: Mapping[str, Tensor], grid: Grid) -> Tensor:
    """Maps that a measurement with one pool a voxel would see."""
    result = torch.zeros(len(MAP_NAMES), *grid.shape)  # density, then what is weighted by it
    for share, (name, of_tissue) in zip(shares, values.items(), strict=True):
        here = share > 0
        maps = _properties(of_tissue, texture[name], grid, here)
        amount = share[here] * maps["pd"]
        result[0][here] += amount
        for place, property_ in enumerate(MAP_NAMES[1:], start=1):
            result[place][here] += amount * (maps[property_] if property_ == "mtsat" else 1 / maps[property_])
    some = (shares.sum(0) > _LEAST_SHARE) & (result[0] > 0)
    result[1:] /= torch.where(some, result[0], 1.0)
    result[1:-1] = 1 / torch.where(some, result[1:-1], 1.0)
    return result * some


def _largest_share(fractions: Mapping[str, Tensor]) -> Tensor:
    shares = torch.stack(list(fractions.values()))
    rest = 1 - shares.sum(0, keepdim=True)
    numbers = {name: number for number, name in MAP_LABELS.items()}
    lookup = torch.tensor([0, *(numbers[name] for name in fractions)], dtype=torch.uint8)
    return lookup[torch.cat([rest, shares]).argmax(0)][None]
