"""Phantoms of randomised ellipsoids, abdominal and chest CT and a short-axis cardiac MR, for previews and tests."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from monai_cl.phantoms.volume import LabelledVolume, Seed, centred_affine, check_grid, rician, smooth_noise


class _Canvas:
    """Image and label that shapes are painted on; positions are fractions of the half field of view, RAS."""

    def __init__(self, rng: np.random.Generator, shape: Sequence[int], spacing: Sequence[float], value: float) -> None:
        check_grid(shape, spacing)
        self.rng = rng
        axes = [(torch.arange(n) + 0.5) * 2 / n - 1 for n in shape]
        self.position = torch.stack(torch.meshgrid(*axes, indexing="ij"))
        self.image = torch.full(tuple(shape), value)
        self.label = torch.zeros(tuple(shape), dtype=torch.uint8)
        self.spacing = tuple(float(s) for s in spacing)
        half = [n * s / 2 for n, s in zip(shape, spacing, strict=True)]
        # Surfaces wander by a few per cent of their radius, over a sixth of the field of view.
        sigma = [h / 3 / s / 2 for h, s in zip(half, spacing, strict=True)]
        self.roughness = 1 + 0.04 * smooth_noise(rng, shape, sigma)
        # Width of one voxel in units of the half field of view, for the partial volume at surfaces.
        self.voxel = sum(2 / n for n in shape[:2]) / 2

    def jitter(self, values: Sequence[float], share: float = 0.08) -> Tensor:
        return torch.tensor(values) * torch.from_numpy(1 + share * self.rng.uniform(-1, 1, len(values))).float()

    def ellipsoid(self, centre: Sequence[float], radii: Sequence[float]) -> Tensor:
        """Share of each voxel inside a randomised ellipsoid; an infinite radius gives a cylinder along that axis."""
        c = torch.tensor(centre).reshape(3, 1, 1, 1)
        r = self.jitter(radii).reshape(3, 1, 1, 1)
        distance = (((self.position - c) / r) ** 2).sum(0).sqrt() * self.roughness - 1
        return (0.5 - distance * float(r.min()) / self.voxel).clamp(0, 1)

    def paint(self, share: Tensor, value: float, label: int | None = None) -> None:
        self.image = self.image * (1 - share) + value * share
        if label is not None:
            self.label[share > 0.5] = label

    def finish(self, image: Tensor) -> LabelledVolume:
        affine = centred_affine(tuple(self.label.shape), self.spacing)
        return LabelledVolume(image=image.float()[None], label=self.label[None], affine=affine)


def abdomen_ct_phantom(
    seed: Seed = 0, shape: Sequence[int] = (96, 80, 48), spacing: Sequence[float] = (4.0, 4.0, 5.0)
) -> LabelledVolume:
    """Abdominal CT in Hounsfield units: air, fat, body wall, liver, kidneys, spleen, spine, noise.

    Labels are 1 liver, 2 right kidney, 3 left kidney, 4 spleen, 5 spine, 0 everything else.

    Args:
        seed: Integer, or several, that fixes every draw.
        shape: Spatial shape ``(X, Y, Z)``; the body fills it.
        spacing: Voxel size in millimetres along each axis.

    Returns:
        The phantom, axes towards Right, Anterior, Superior.

    Raises:
        ValueError: If the shape or the spacing is not three positive numbers, or a size is below 4.
    """
    rng = np.random.default_rng(seed)
    canvas = _Canvas(rng, shape, spacing, value=-1000.0)
    infinite = math.inf
    canvas.paint(canvas.ellipsoid((0, 0, 0), (0.86, 0.80, infinite)), -100.0)
    wall = canvas.ellipsoid((0, 0.0, 0), (0.76, 0.69, infinite))
    canvas.paint(wall, 50.0)
    canvas.paint(wall * canvas.ellipsoid((0, 0.05, 0), (0.69, 0.61, infinite)), -90.0)
    # Soft tissue in venous phase: (label, HU, centre, radii); +x is the patient's right, where the liver is.
    organs = (
        (None, 35.0, (-0.10, 0.30, -0.45), (0.38, 0.22, 0.42)),
        (4, 115.0, (-0.46, -0.12, 0.42), (0.15, 0.26, 0.34)),
        (1, 105.0, (0.30, 0.10, 0.45), (0.38, 0.44, 0.62)),
        (2, 160.0, (0.33, -0.30, -0.28), (0.13, 0.15, 0.36)),
        (3, 160.0, (-0.33, -0.30, -0.20), (0.13, 0.15, 0.36)),
        (None, 150.0, (-0.06, -0.18, 0.0), (0.055, 0.065, infinite)),
        (5, 260.0, (0.0, -0.40, 0.0), (0.13, 0.15, infinite)),
        (None, 30.0, (0.0, -0.57, 0.0), (0.04, 0.04, infinite)),
    )
    for label, value, centre, radii in organs:
        canvas.paint(canvas.ellipsoid(centre, radii), value * (1 + 0.08 * rng.uniform(-1, 1)), label)
    for _ in range(3):
        x, y, z = rng.uniform((-0.3, 0.25, -0.7), (0.1, 0.38, -0.3))
        canvas.paint(canvas.ellipsoid((x, y, z), (0.07, 0.06, 0.10)), -800.0)
    noise = rng.uniform(12, 22) * smooth_noise(rng, shape, 0.6)
    return canvas.finish((canvas.image + noise).clamp(min=-1024.0))


def chest_ct_phantom(
    seed: Seed = 0, shape: Sequence[int] = (128, 104, 36), spacing: Sequence[float] = (3.0, 3.0, 8.0)
) -> LabelledVolume:
    """Chest CT in Hounsfield units: air, fat, chest wall, lungs with vessels, heart, aorta, trachea, spine, noise.

    Labels are 1 right lung, 2 left lung, 3 heart, 4 spine, 0 everything else.

    Args:
        seed: Integer, or several, that fixes every draw.
        shape: Spatial shape ``(X, Y, Z)``; the body fills it.
        spacing: Voxel size in millimetres along each axis.

    Returns:
        The phantom, axes towards Right, Anterior, Superior.

    Raises:
        ValueError: If the shape or the spacing is not three positive numbers, or a size is below 4.
    """
    rng = np.random.default_rng(seed)
    canvas = _Canvas(rng, shape, spacing, value=-1000.0)
    infinite = math.inf
    canvas.paint(canvas.ellipsoid((0, 0, 0), (0.88, 0.82, infinite)), -100.0)
    canvas.paint(canvas.ellipsoid((0, 0, 0), (0.80, 0.72, infinite)), 50.0)
    canvas.paint(canvas.ellipsoid((0, 0.08, 0.1), (0.30, 0.50, infinite)), -80.0)  # fat of the mediastinum
    # +x is the patient's right; domes of the diaphragm below, the right one higher
    lungs = {1: ((0.40, 0.02, 0.15), (0.30, 0.54, 1.0)), 2: ((-0.42, 0.0, 0.05), (0.28, 0.54, 1.0))}
    for side, (centre, radii) in lungs.items():
        lung = canvas.ellipsoid(centre, radii)
        canvas.paint(lung, rng.uniform(-880, -800), side)
        for _ in range(14):  # vessels that run up and down
            x, y = (c + r * rng.uniform(-0.6, 0.6) for c, r in zip(centre[:2], radii[:2], strict=True))
            canvas.paint(lung * canvas.ellipsoid((x, y, rng.uniform(-0.4, 0.5)), (0.03, 0.03, 0.25)), 40.0)
    organs = (
        (3, 130.0, (-0.14, 0.16, -0.25), (0.32, 0.32, 0.45)),
        (None, 160.0, (-0.13, -0.22, 0.0), (0.07, 0.08, infinite)),
        (None, -1000.0, (0.0, 0.0, 0.8), (0.055, 0.06, 0.55)),
        (4, 260.0, (0.0, -0.44, 0.0), (0.13, 0.14, infinite)),
        (None, 30.0, (0.0, -0.58, 0.0), (0.04, 0.04, infinite)),
        (None, 240.0, (0.0, 0.66, 0.1), (0.10, 0.035, 0.7)),
    )
    for label, value, centre, radii in organs:
        canvas.paint(canvas.ellipsoid(centre, radii), value * (1 + 0.08 * rng.uniform(-1, 1)), label)
    noise = rng.uniform(15, 30) * smooth_noise(rng, shape, 0.6)
    return canvas.finish((canvas.image + noise).clamp(min=-1024.0))


def cardiac_mr_phantom(
    seed: Seed = 0, shape: Sequence[int] = (112, 112, 10), spacing: Sequence[float] = (1.6, 1.6, 9.0)
) -> LabelledVolume:
    """Short-axis cine-like cardiac MR: bright blood pools, a dark ring of myocardium, thick slices, Rician noise.

    Labels are 1 right ventricle, 2 myocardium, 3 left ventricle, 0 everything else. The unit is arbitrary and differs
    by a factor of up to 3000 between seeds, as between scanners.

    Args:
        seed: Integer, or several, that fixes every draw.
        shape: Spatial shape ``(X, Y, Z)``, slices along Z from apex to base.
        spacing: Voxel size in millimetres along each axis.

    Returns:
        The phantom, axes towards Right, Anterior, Superior.

    Raises:
        ValueError: If the shape or the spacing is not three positive numbers, or a size is below 4.
    """
    rng = np.random.default_rng(seed)
    canvas = _Canvas(rng, shape, spacing, value=0.02)
    infinite = math.inf
    canvas.paint(canvas.ellipsoid((0, 0, 0), (0.95, 0.86, infinite)), 0.85)  # subcutaneous fat
    canvas.paint(canvas.ellipsoid((0, 0, 0), (0.88, 0.78, infinite)), 0.30)  # chest wall
    canvas.paint(canvas.ellipsoid((0.40, -0.02, 0), (0.32, 0.58, infinite)), 0.05)  # lungs
    canvas.paint(canvas.ellipsoid((-0.48, -0.05, 0), (0.28, 0.56, infinite)), 0.05)
    canvas.paint(canvas.ellipsoid((0.05, 0.10, 0.2), (0.52, 0.42, 1.6)), 0.55)  # mediastinum and epicardial fat
    # Base above the volume, apex inside it: the section shrinks from slice to slice.
    canvas.paint(canvas.ellipsoid((0.14, 0.14, 1.0), (0.30, 0.25, 1.55)), 0.95, label=1)
    canvas.paint(canvas.ellipsoid((-0.14, 0.06, 1.0), (0.285, 0.275, 1.80)), 0.32, label=2)
    canvas.paint(canvas.ellipsoid((-0.14, 0.06, 1.0), (0.185, 0.175, 1.62)), 1.0, label=3)
    bias = torch.exp(0.15 * smooth_noise(rng, shape, [n / 3 for n in shape]))
    noisy = rician(rng, canvas.image * bias, sigma=rng.uniform(0.015, 0.035))
    return canvas.finish(noisy * math.exp(rng.uniform(math.log(300), math.log(1e6))))
