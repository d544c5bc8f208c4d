"""Synthetic cine MR of hearts that differ as patients do: normal, dilated, hypertrophic, wide right ventricle."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from monai_cl.phantoms.volume import LabelledVolume, Seed, centred_affine, check_grid, rician, smooth_noise

LABELS = {1: "right ventricle", 2: "myocardium", 3: "left ventricle"}

# ranges in mm: radius of the left ventricle, its wall, short radius of the right ventricle
KINDS = {
    "normal": ((21, 26), (7, 10), (15, 19)),
    "dilated": ((30, 38), (6, 8), (14, 19)),
    "hypertrophic": ((15, 20), (13, 19), (13, 17)),
    "wide right ventricle": ((19, 24), (6, 9), (23, 30)),
}
_BASE = 36.0  # mm above the centre of the volume, where the long axis begins
_WANDER, _WANDER_MM = 2.5, 15.0  # standard deviation and width of the deviations of surfaces in plane, in mm
_PAPILLARY = 4.0  # mm, radius


@dataclass(frozen=True)
class HeartShape:
    """Anatomy of a short-axis view; lengths in mm.

    Attributes:
        kind: One of :data:`KINDS`.
        inner: Radius of the left ventricle at the base.
        wall: Thickness of its wall.
        right: Short radius of the right ventricle.
        length: From the base to the apex.
        right_end: Share of the length at which the right ventricle ends.
        left_end: Share of the length at which the pool of the left ventricle ends.
        stretch: Long over mean radius of the left ventricle.
        lean: Place of the right ventricle towards anterior, in outer radii of the left one.
        angle: In-plane rotation, degrees.
        centre: Of the left ventricle in plane.
        body: Half width of the chest.
        papillary: Angles of the two papillary muscles, degrees.
    """

    kind: str
    inner: float
    wall: float
    right: float
    length: float
    right_end: float
    left_end: float
    stretch: float
    lean: float
    angle: float
    centre: tuple[float, float]
    body: float
    papillary: tuple[float, float]


@dataclass(frozen=True)
class HeartSubject(LabelledVolume):
    """Synthetic heart; see :class:`~monai_cl.phantoms.volume.LabelledVolume`.

    Labels are 1 right ventricle, 2 myocardium, 3 left ventricle, 0 everything else.

    Attributes:
        anatomy: The drawn shape.
    """

    anatomy: HeartShape


def heart_subject(
    seed: Seed, *, shape: Sequence[int] = (72, 72, 8), spacing: Sequence[float] = (2.5, 2.5, 9.0)
) -> HeartSubject:
    r"""A random heart in short-axis slices, bright blood and dark muscle, with labels.

    One of four kinds is drawn, and its sizes. A section at the share $t$ of the long axis has $(1-t^{2.2})^{1/2}$
    times the radii at the base. Position, rotation, wall to blood contrast, fat, lungs and papillary muscles differ
    between subjects; surfaces wander by 2.5 mm. Then come the coil sensitivity, $S\,e^{b(x)}$ with 10 to 35 % standard
    deviation, Rician noise of 2 to 6 % of blood, and an arbitrary gain.

    Args:
        seed: Integer, or several; equal seeds give equal subjects.
        shape: Spatial shape ``(X, Y, Z)``, slices along Z from apex to base.
        spacing: Voxel size in millimetres along each axis.

    Returns:
        The subject, axes towards Right, Anterior, Superior.

    Raises:
        ValueError: If shape or spacing is not three positive numbers, or a size is below 4.
    """
    check_grid(shape, spacing)
    anatomy, surfaces, appearance = (np.random.default_rng(each) for each in np.random.SeedSequence(seed).spawn(3))
    heart = draw_heart(anatomy)
    affine = centred_affine(tuple(shape), spacing)
    place = _millimetres(shape, affine)
    layers = [
        *_chest(place, heart, appearance),
        *_layers(_long_axis(place, heart, surfaces, spacing), heart, appearance),
    ]
    image, label = torch.full(tuple(shape), 0.02), torch.zeros(tuple(shape), dtype=torch.uint8)
    for depth, value, name in layers:
        share = (0.5 + depth / spacing[0]).clamp(0, 1)  # of a voxel, for the partial volume at a surface
        image = image * (1 - share) + value * share
        if name is not None:
            label[share > 0.5] = name
    return HeartSubject(_scanned(image, appearance)[None], label[None], affine, heart)


def draw_heart(rng: np.random.Generator) -> HeartShape:
    """Draw a kind, and the sizes of one heart of it.

    Args:
        rng: Source of the draws.
    """
    kind = list(KINDS)[int(rng.integers(len(KINDS)))]
    size = rng.uniform(0.85, 1.1)  # small and large people
    inner, wall, right = (size * rng.uniform(*between) for between in KINDS[kind])
    return HeartShape(
        kind=kind,
        inner=inner,
        wall=wall,
        right=right,
        length=math.sqrt(size) * rng.uniform(70, 95),
        right_end=rng.uniform(0.75, 0.9),
        left_end=rng.uniform(0.88, 0.94),
        stretch=rng.uniform(0.9, 1.12),
        lean=rng.uniform(0, 0.35),
        angle=rng.uniform(-25, 25),
        centre=(rng.uniform(-12, 12), rng.uniform(-12, 12)),
        body=rng.uniform(80, 98),
        papillary=(rng.uniform(0, 360), rng.uniform(0, 360)),
    )


Layer = tuple[Tensor, float, int | None]  # millimetres inside a surface, signal, label


def _millimetres(shape: Sequence[int], affine: Tensor) -> Tensor:
    """Places of voxels in mm, of shape (3, X, Y, Z)."""
    axes = [affine[i, 3] + affine[i, i] * torch.arange(n) for i, n in enumerate(shape)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij")).float()


def _long_axis(place: Tensor, heart: HeartShape, rng: np.random.Generator, spacing: Sequence[float]) -> Tensor:
    """Places relative to the left ventricle, (3, X, Y, Z): in plane, and below the base."""
    shape = place.shape[1:]
    sigma = [_WANDER_MM / length for length in spacing]
    x, y = (place[i] + _WANDER * smooth_noise(rng, shape, sigma) - heart.centre[i] for i in range(2))
    angle = math.radians(heart.angle)
    cosine, sine = math.cos(angle), math.sin(angle)
    return torch.stack([cosine * x - sine * y, sine * x + cosine * y, _BASE - place[2]])


def _ellipse(place: Tensor, centre: Sequence[float], radii: Sequence[float], scale: Tensor | float = 1.0) -> Tensor:
    """Millimetres inside an ellipse of ``scale`` times these radii, (X, Y, Z); negative outside, and where it ends."""
    scale = torch.as_tensor(scale)
    distance = ((place[0] - centre[0]) / radii[0]).square() + ((place[1] - centre[1]) / radii[1]).square()
    return torch.where(scale > 0.05, (scale - distance.sqrt()) * min(radii), -torch.inf)


def _chest(place: Tensor, heart: HeartShape, rng: np.random.Generator) -> list[Layer]:
    """Fat, chest wall and lungs, from the outside."""
    lungs = ((45, (26, 32), (45, 56)), (-50, (22, 28), (45, 54)))
    return [
        (_ellipse(place, (0, 0), (heart.body, 0.85 * heart.body)), rng.uniform(0.6, 1.0), None),
        (_ellipse(place, (0, 0), (0.92 * heart.body, 0.76 * heart.body)), rng.uniform(0.2, 0.4), None),
        *(
            (
                _ellipse(place, (x, rng.uniform(-6, 4)), (rng.uniform(*wide), rng.uniform(*high))),
                rng.uniform(0.03, 0.08),
                None,
            )
            for x, wide, high in lungs
        ),
    ]


def _layers(place: Tensor, heart: HeartShape, rng: np.random.Generator) -> list[Layer]:
    """Fat around the heart, right ventricle, muscle, left ventricle, papillary muscles."""
    depth = place[2] / heart.length
    taper, left, right = (
        _taper(depth / end, power) for end, power in ((1, 2.2), (heart.left_end, 2.2), (heart.right_end, 2))
    )
    outer = heart.inner + heart.wall
    blood = rng.uniform(0.8, 1.1)
    muscle = blood * rng.uniform(0.25, 0.5)
    wide, high = heart.stretch, 1 / heart.stretch
    beside = (0.75 * outer + 0.35 * heart.right, heart.lean * outer)
    papillary = [
        (0.6 * heart.inner * math.cos(math.radians(angle)), 0.6 * heart.inner * math.sin(math.radians(angle)))
        for angle in heart.papillary
    ]
    middle = torch.where((depth > 0.25) & (depth < 0.7), 1.0, 0.0)
    return [
        (
            _ellipse(place, (4, 4), (1.15 * (outer + heart.right), 1.25 * outer), taper.clamp(min=0.6)),
            rng.uniform(0.4, 0.7),
            None,
        ),
        (_ellipse(place, beside, (1.35 * heart.right, 0.95 * outer), right), 0.95 * blood, 1),
        (_ellipse(place, (0, 0), (wide * outer, high * outer), taper), muscle, 2),
        (_ellipse(place, (0, 0), (wide * heart.inner, high * heart.inner), left), blood, 3),
        # they count as part of the pool, as in clinical contours
        *((_ellipse(place, centre, (_PAPILLARY, _PAPILLARY), middle), muscle, None) for centre in papillary),
    ]


def _taper(depth: Tensor, power: float) -> Tensor:
    """Share of the radius at the base, (X, Y, Z)."""
    return (1 - depth.clamp(0, 1) ** power).sqrt()


def _scanned(signal: Tensor, rng: np.random.Generator) -> Tensor:
    """Signal with a coil's sensitivity, noise and a gain."""
    shape = signal.shape
    sensitivity = torch.exp(rng.uniform(0.1, 0.35) * smooth_noise(rng, shape, [n / 3 for n in shape]))
    noisy = rician(rng, signal * sensitivity, sigma=rng.uniform(0.02, 0.06))
    return noisy * math.exp(rng.uniform(math.log(300), math.log(3000)))


__all__ = ["KINDS", "LABELS", "HeartShape", "HeartSubject", "draw_heart", "heart_subject"]
