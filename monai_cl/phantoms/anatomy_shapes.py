"""Label maps of random shapes: regions of noise, superellipsoids, shells, tubes, and an envelope around them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from monai_cl.phantoms._anatomy_checks import require_counts, require_probabilities, require_ranges
from monai_cl.phantoms.smooth_fields import draw_cells, draw_coefficients, smooth_fields

_MOST_LABELS = 255
_THIN = (0.12, 0.3)  # radius of a tube across, to that along it
_INNER = (0.4, 0.85)  # radius of an inner region, to that of its shape
_RIM = (0.05, 0.16)  # thickness of the rim of an envelope, to its radius
_STEEP = 50.0  # exponent from which on a norm is taken for the greatest value, times the most that it may exceed it by
_UNEVEN = 0.4  # standard deviation of what is added to a whole field of noise, so that regions differ in size


@dataclass(frozen=True)
class Solid:
    r"""Superellipsoid, its inside :math:`\sum_i |q_i / r_i|^e < 1` with :math:`q = R (x - c)`, perhaps bent.

    Attributes:
        centre: Place :math:`c` (nd,).
        radii: Radii :math:`r` (nd,) along its axes.
        axes: Rotation :math:`R` (nd, nd).
        exponent: Exponent :math:`e`: 2 of an ellipsoid, more of a box with round edges.
        bend: Shift of its ends along its second axis, to its length.
        labels: Label of it, and of inner regions from outside to inside.
        inner: Radii of the inner regions to its own.
    """

    centre: np.ndarray
    radii: np.ndarray
    axes: np.ndarray
    exponent: float
    bend: float
    labels: tuple[int, ...]
    inner: tuple[float, ...] = ()


@dataclass(frozen=True)
class Shapes:
    """Drawn content of a label map.

    Attributes:
        regions: Coefficients (F, cells + 3) of fields whose greatest gives the label, or ``None`` for one label.
        offsets: Number (F,) that is added to each field.
        solids: Superellipsoids, in the order in which they are painted.
        envelope: Outside of it the label is 0; ``None`` fills the box.
        rim: Radius from which on the envelope has a label of its own, 1 for no rim.
        warp: Coefficients (nd, cells + 3) of the displacement of places, amplitude included.
        stretch: Factor on the coordinates of each axis (nd,): above 1 where voxels are longer.
    """

    regions: np.ndarray | None
    offsets: np.ndarray
    solids: tuple[Solid, ...]
    envelope: Solid | None
    rim: float
    warp: np.ndarray
    stretch: np.ndarray


@dataclass(frozen=True, kw_only=True)
class AnatomyShapes:
    """Ranges that label maps are drawn from. Lengths are shares of half the longest edge of a view.

    Attributes:
        noise: Probability of regions of noise; otherwise the ground is of one label.
        regions: Fewest and most fields of noise.
        cells: Fewest and most cells of the noise along an axis.
        solids: Fewest and most superellipsoids; of a ground of one label, at least half as many as the most.
        radius: Their radii, uniform in the logarithm.
        exponent: Their exponents.
        tubes: Share of them that are long, thin and bent.
        shells: Share of them with an inner region, a wall around a lumen; half as many have a core in it.
        mirrored: Probability that solids have a twin of the same label on the other side of the first axis.
        envelope: Probability of an envelope, outside of which the label is 0.
        rim: Probability that an envelope has a rim, as skin or fat.
        warp: Least and greatest amplitude of the displacement of places.
        warp_cells: Fewest and most cells of the displacement along an axis.
        stretched: Probability that voxels are longer along one axis.
        stretch: Least and greatest factor by which they are.

    Raises:
        ValueError: If a probability or range is none, or more labels than 255 might be drawn.
    """

    noise: float = 0.6
    regions: tuple[int, int] = (6, 22)
    cells: tuple[int, int] = (2, 9)
    solids: tuple[int, int] = (4, 30)
    radius: tuple[float, float] = (0.08, 0.55)
    exponent: tuple[float, float] = (1.6, 4.0)
    tubes: float = 0.15
    shells: float = 0.35
    mirrored: float = 0.25
    envelope: float = 0.6
    rim: float = 0.5
    warp: tuple[float, float] = (0.03, 0.2)
    warp_cells: tuple[int, int] = (2, 6)
    stretched: float = 0.25
    stretch: tuple[float, float] = (1.0, 3.0)

    def __post_init__(self) -> None:
        require_probabilities(self, "noise", "tubes", "shells", "mirrored", "envelope", "rim", "stretched")
        require_counts(self, "regions", "cells", "warp_cells")
        require_counts(self, "solids", least=0)
        require_ranges(self, "radius", "exponent", "stretch", above=0.0)
        require_ranges(self, "warp", least=0.0)
        most = self.regions[1] + 3 * self.solids[1] + 1
        if most > _MOST_LABELS:
            raise ValueError(
                f"regions and solids must give at most {_MOST_LABELS} labels, three of each solid, got up to {most}; "
                "lower their upper ends"
            )

    def draw(self, rng: np.random.Generator, extent: Sequence[float]) -> Shapes:
        """Draw what a label map holds.

        Args:
            rng: Source of the draws.
            extent: Half of the box along each axis; the longest half edge of a view is 1.
        """
        dims, noisy = len(extent), rng.random() < self.noise
        fields = int(rng.integers(self.regions[0], self.regions[1] + 1)) if noisy else 1
        regions = draw_coefficients(rng, draw_cells(rng, self.cells, dims), fields=fields) if noisy else None
        offsets = rng.standard_normal(fields).astype(np.float32) * _UNEVEN
        stretch = np.ones(dims, dtype=np.float32)
        if rng.random() < self.stretched:
            stretch[rng.integers(dims)] = rng.uniform(*self.stretch)
        reach = np.asarray(extent) * stretch
        warp = draw_coefficients(rng, draw_cells(rng, self.warp_cells, dims), fields=dims) * rng.uniform(*self.warp)
        least = self.solids[0] if noisy else max(self.solids[0], self.solids[1] // 2)  # an empty box teaches nothing
        solids = self._solids(rng, reach, fields + 1, int(rng.integers(least, self.solids[1] + 1)))
        envelope = self._envelope(rng, reach) if rng.random() < self.envelope else None
        rim = 1 - rng.uniform(*_RIM) if rng.random() < self.rim else 1.0
        return Shapes(regions, offsets, solids, envelope, float(rim), warp.astype(np.float32), stretch)

    def _solids(self, rng: np.random.Generator, reach: np.ndarray, label: int, number: int) -> tuple[Solid, ...]:
        result: list[Solid] = []
        radii = np.exp(rng.uniform(math.log(self.radius[0]), math.log(self.radius[1]), number))
        mirrored = rng.random() < self.mirrored
        for radius in sorted(radii, reverse=True):  # the large ones first, so that none hides a small one wholly
            solid = self._solid(rng, reach, radius, label)
            label += len(solid.labels)
            result.append(solid)
            if mirrored and rng.random() < 0.5:
                flip = np.ones(len(reach))
                flip[0] = -1
                result.append(replace(solid, centre=solid.centre * flip, axes=solid.axes * flip))
        return tuple(result)

    def _solid(self, rng: np.random.Generator, reach: np.ndarray, radius: float, label: int) -> Solid:
        dims = len(reach)
        radii, bend = radius * np.exp(rng.uniform(-0.45, 0.45, dims)), 0.0
        if rng.random() < self.tubes:
            radii[0] = radius * 2.5
            radii[1:] = radii[0] * rng.uniform(*_THIN) * np.exp(rng.uniform(-0.15, 0.15, dims - 1))
            bend = float(rng.uniform(-0.6, 0.6))
        inner: tuple[float, ...] = ()
        if rng.random() < self.shells:
            inner = (float(rng.uniform(*_INNER)),)
            inner += (inner[0] * float(rng.uniform(*_INNER)),) if rng.random() < 0.5 else ()
        return Solid(
            centre=rng.uniform(-reach, reach), radii=radii, axes=random_rotation(rng, dims, np.pi),
            exponent=float(rng.uniform(*self.exponent)), bend=bend,
            labels=tuple(range(label, label + 1 + len(inner))), inner=inner,
        )  # fmt: skip

    def _envelope(self, rng: np.random.Generator, reach: np.ndarray) -> Solid:
        dims = len(reach)
        return Solid(
            centre=rng.uniform(-0.15, 0.15, dims) * reach, radii=reach * rng.uniform(0.6, 1.1, dims),
            axes=random_rotation(rng, dims, 0.3), exponent=float(rng.uniform(2.0, 3.0)), bend=0.0, labels=(),
        )  # fmt: skip


def random_rotation(rng: np.random.Generator, dims: int, largest: float) -> np.ndarray:
    """Rotation (nd, nd) by an angle of up to ``largest`` radians in each plane of two axes."""
    matrix = np.eye(dims)
    for i in range(dims):
        for j in range(i + 1, dims):
            angle, turn = rng.uniform(-largest, largest), np.eye(dims)
            turn[[i, j], [i, j]] = np.cos(angle)
            turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
            matrix = turn @ matrix
    return matrix


def label_map(shapes: Shapes, size: Sequence[int], unit: float) -> Tensor:
    r"""Labels of a box.

    Args:
        shapes: The content.
        size: Voxels of the box along each axis.
        unit: Voxels of a length of 1.

    Returns:
        Labels (\*size), uint8: 0 outside of the envelope, 1 and more inside.
    """
    axes = [((torch.arange(n) - (n - 1) / 2) / unit * float(s)) for n, s in zip(size, shapes.stretch, strict=True)]
    shift = smooth_fields(shapes.warp, size)
    places = shift + torch.stack(torch.meshgrid(*axes, indexing="ij"))
    furthest = shift.flatten(1).abs().amax(1)
    labels = _regions(shapes, size)
    for solid in shapes.solids:
        box = _box(solid, axes, furthest)
        if box is None:
            continue
        every = (slice(None), *box)
        there, part = labels[box], _distance(solid, places[every])
        for label, radius in zip(solid.labels, (1.0, *solid.inner), strict=True):
            there[part < radius**solid.exponent] = label
    if shapes.envelope is not None:
        distance = _distance(shapes.envelope, places)
        if shapes.rim < 1:
            labels[distance > shapes.rim**shapes.envelope.exponent] = _rim_label(shapes)
        labels[distance > 1] = 0
    return labels


def _regions(shapes: Shapes, size: Sequence[int]) -> Tensor:
    if shapes.regions is None:
        return torch.ones(*size, dtype=torch.uint8)
    fields = smooth_fields(shapes.regions, size)
    fields += torch.from_numpy(shapes.offsets).reshape(-1, *[1] * len(size))
    best, labels = fields[0], torch.ones(*size, dtype=torch.uint8)
    for number, field in enumerate(fields[1:], start=2):  # several times as fast as argmax over the first axis
        labels.masked_fill_(field > best, number)
        torch.maximum(best, field, out=best)
    return labels


def _rim_label(shapes: Shapes) -> int:
    """Label after all others."""
    return 1 + max([len(shapes.offsets), *(label for solid in shapes.solids for label in solid.labels)])


def _box(solid: Solid, axes: Sequence[Tensor], furthest: Tensor) -> tuple[slice, ...] | None:
    """Part of the box that a solid may reach, or ``None``; displaced places lie within ``furthest`` of their own."""
    # support of a ball of the norm with this exponent is the dual norm; a bend shifts by up to half of its size
    edges = np.abs(solid.axes * solid.radii[:, None])
    dual = solid.exponent / (solid.exponent - 1) if solid.exponent > 1 else math.inf
    reach = (edges**dual).sum(0) ** (1 / dual) if dual < _STEEP else edges.max(0) * len(edges) ** (1 / dual)
    reach += 0.5 * abs(solid.bend) * solid.radii[0] * np.abs(solid.axes[1])
    slices = []
    for axis, centre, r, more in zip(axes, solid.centre, reach, furthest, strict=True):
        inside = ((axis - float(centre)).abs() <= float(r) + more).nonzero()
        if not len(inside):
            return None
        slices.append(slice(int(inside[0]), int(inside[-1]) + 1))
    return tuple(slices)


def _distance(solid: Solid, places: Tensor) -> Tensor:
    """Sum of powers of places (nd, *S) in a solid: below 1 inside, above it perhaps infinite."""
    dims = len(places)
    scaled = torch.from_numpy(solid.axes / solid.radii[:, None]).float()
    offset = scaled @ torch.from_numpy(solid.centre).float()
    q = (scaled @ places.reshape(dims, -1)) - offset[:, None]
    if solid.bend:
        q[1] += (q[0].square() - 0.5) * (solid.bend * float(solid.radii[0] / solid.radii[1]))
    q.abs_()
    near = (q.amax(0) < 1).nonzero()[:, 0]  # powers cost most, and most places of a box need none
    result = torch.full(q.shape[1:], math.inf)
    result[near] = q[:, near].pow_(solid.exponent).sum(0)
    return result.reshape(places.shape[1:])
