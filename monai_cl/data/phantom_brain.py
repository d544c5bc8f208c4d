"""Synthetic T1-weighted brains: the ICBM152 tissue maps, deformed, with signals from the spoiled gradient echo."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from monai_cl.data.phantom_deformation import random_displacement, sample, voxel_grid
from monai_cl.data.phantom_volume import LabelledVolume, Seed, rician, smooth_noise

LABELS = {1: "grey matter", 2: "white matter", 3: "cerebrospinal fluid"}

# Field of view inside the 197 x 233 x 189 mm template: 168 x 216 x 168 mm, a multiple of 8 voxels at 3 mm.
_FIRST_VOXEL = (14, 9, 0)
_FIELD_OF_VIEW = (168, 216, 168)
_SUBARACHNOID_MM = 2
_SPREAD = 0.12
_MIN_CONTRAST = 1.05

# Centres at 3 T in the order of the labels: grey matter, white matter, cerebrospinal fluid.
_PD = (0.82, 0.69, 1.0)
_T1 = (1.45, 0.86, 4.3)  # s
_T2_STAR = (0.062, 0.050, 1.0)  # s


@dataclass(frozen=True)
class Protocol:
    """Parameters of the spoiled gradient echo a subject was scanned with.

    Attributes:
        tr: Repetition time in seconds.
        te: Echo time in seconds.
        flip_angle: Excitation angle in degrees.
    """

    tr: float
    te: float
    flip_angle: float


@dataclass(frozen=True)
class BrainSubject(LabelledVolume):
    """One synthetic brain without skull; see :class:`~monai_cl.data.phantom_volume.LabelledVolume`.

    Labels are 1 grey matter, 2 white matter, 3 cerebrospinal fluid, 0 background.

    Attributes:
        protocol: The drawn acquisition.
        fractions: float32 shares of grey matter, white matter and cerebrospinal fluid, of shape ``(3, X, Y, Z)``.
    """

    protocol: Protocol
    fractions: Tensor


def brain_subject(seed: Seed, *, spacing: float = 3.0) -> BrainSubject:
    r"""A random brain, T1-weighted, with its tissue labels.

    The tissue fractions $f_t$ of ICBM152 go through a random diffeomorphism; each tissue gets proton density $\rho$,
    $T_1$ and $T_2^*$ around its value at 3 T (12 % spread), and the spoiled gradient echo
    $S_t = \rho \sin a\,(1-E_1)/(1-E_1\cos a)\,e^{-TE/T_2^*}$, $E_1=e^{-TR/T_1}$, with TR 10-35 ms, TE 2-8 ms,
    a 15-35 degrees, drawn so that white > grey > fluid. Partial volume is mixed in the signal, $S=\sum_t f_t S_t$;
    then come the receive field, $S\,e^{b(x)}$, the Rician noise and an arbitrary gain.

    Args:
        seed: Integer, or several; equal seeds give equal subjects, and one anatomy whatever the spacing.
        spacing: Isotropic voxel size in millimetres, 1 to 12. The field of view is 168 x 216 x 168 mm.

    Returns:
        The subject: 56 x 72 x 56 voxels at 3 mm.

    Raises:
        ValueError: If the spacing is outside 1 to 12 mm.
        ModuleNotFoundError: If nilearn, which carries the tissue maps, is not installed.

    Source:
        Fonov et al., NeuroImage 54 (2011) 313-327, doi:10.1016/j.neuroimage.2010.07.033 (ICBM152 2009a symmetric).
    """
    if not 1 <= spacing <= 12:
        raise ValueError(f"spacing must be between 1 and 12 mm (the template has 1 mm), got {spacing!r}")
    # Separate streams: a change in one step of the physics leaves the draws of the others as they are.
    anatomy, physics, receive, noise = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(4))
    template = _template_fractions(float(spacing))
    shape = template.shape[1:]
    displacement = random_displacement(anatomy, shape, spacing, extent=_FIELD_OF_VIEW)
    fractions = sample(template, voxel_grid(shape) + displacement)
    protocol, tissue_signal = _draw_signals(physics)
    # t = tissue
    signal = torch.einsum("t,txyz->xyz", tissue_signal, fractions)
    signal = signal * torch.exp(_receive_field(receive, shape, spacing))
    white = float(tissue_signal[1])
    noisy = rician(noise, signal, sigma=white / noise.uniform(20, 45))
    gain = math.exp(noise.uniform(math.log(200), math.log(2000))) / white
    return BrainSubject(
        image=(noisy * gain)[None],
        label=_largest_fraction(fractions)[None],
        affine=_affine(spacing),
        protocol=protocol,
        fractions=fractions,
    )


def _draw_signals(rng: np.random.Generator) -> tuple[Protocol, Tensor]:
    """Protocol and the signals of grey matter, white matter and fluid, redrawn until white > grey > fluid."""
    while True:
        tr = math.exp(rng.uniform(math.log(0.010), math.log(0.035)))
        protocol = Protocol(tr=tr, te=rng.uniform(0.002, 0.008), flip_angle=rng.uniform(15, 35))
        # Three tissue properties in rows, three tissues in columns; 2.5 standard deviations at most.
        factors = np.exp(_SPREAD * rng.standard_normal((3, 3)).clip(-2.5, 2.5))
        pd, t1, t2_star = torch.from_numpy(factors * np.array([_PD, _T1, _T2_STAR])).float()
        signal = _spoiled_gradient_echo(pd, t1, t2_star, protocol)
        grey, white, fluid = signal.tolist()
        if white > _MIN_CONTRAST * grey and grey > _MIN_CONTRAST * fluid:
            return protocol, signal


def _spoiled_gradient_echo(pd: Tensor, t1: Tensor, t2_star: Tensor, protocol: Protocol) -> Tensor:
    """Steady state with perfect spoiling, ``PD sin a (1 - E1) / (1 - E1 cos a) exp(-TE / T2*)``."""
    angle = math.radians(protocol.flip_angle)
    e1 = torch.exp(-protocol.tr / t1)
    return pd * math.sin(angle) * (1 - e1) / (1 - math.cos(angle) * e1) * torch.exp(-protocol.te / t2_star)


def _receive_field(rng: np.random.Generator, shape: torch.Size, spacing: float) -> Tensor:
    """Logarithm of the receive sensitivity, of shape (X, Y, Z): 6 to 14 % standard deviation, 50 mm correlation."""
    lattice_mm = 8.0
    strength = rng.uniform(0.06, 0.14)
    lattice = smooth_noise(rng, [round(length / lattice_mm) for length in _FIELD_OF_VIEW], 50.0 / lattice_mm)
    return strength * sample(lattice[None], (voxel_grid(shape) + 0.5) * (spacing / lattice_mm) - 0.5)[0]


def _largest_fraction(fractions: Tensor) -> Tensor:
    background = 1 - fractions.sum(0, keepdim=True)
    return torch.cat([background, fractions]).argmax(0).to(torch.uint8)


def _affine(spacing: float) -> Tensor:
    """World of the template: the first voxel spans [start - 1/2, start - 1/2 + spacing] in template voxels."""
    affine = torch.diag(torch.tensor([spacing, spacing, spacing, 1.0], dtype=torch.float64))
    origin = _full_template()[1]
    first = torch.tensor(_FIRST_VOXEL, dtype=torch.float64)
    affine[:3, 3] = origin + first - 0.5 + 0.5 * spacing
    return affine


@lru_cache(maxsize=4)
def _template_fractions(spacing: float) -> Tensor:
    """Fractions of the template at a spacing, (3, X, Y, Z): the mean of the 1 mm maps over each voxel, exactly."""
    reduced = _full_template()[0]
    for axis in range(3):
        weights = _averaging_matrix(reduced.shape[axis + 1], spacing)
        reduced = torch.movedim(torch.tensordot(weights, reduced, dims=([1], [axis + 1])), 0, axis + 1)
    return reduced.contiguous()


def _averaging_matrix(size: int, spacing: float) -> Tensor:
    """Matrix (coarse, fine) of the share that each 1 mm cell has in the volume of a coarse cell."""
    coarse = math.ceil(size / spacing - 1e-6)
    left = torch.arange(coarse, dtype=torch.float64)[:, None] * spacing
    fine = torch.arange(size, dtype=torch.float64)[None, :]
    overlap = torch.minimum(left + spacing, fine + 1) - torch.maximum(left, fine)
    return (overlap.clamp(min=0) / spacing).float()


@lru_cache(maxsize=1)
def _full_template() -> tuple[Tensor, Tensor]:
    """Fractions of grey matter, white matter and fluid at 1 mm (3, 168, 216, 168), and the origin of the template."""
    datasets = _nilearn_datasets()
    grey_image = datasets.load_mni152_gm_template(resolution=1)
    grey = np.asarray(grey_image.dataobj, dtype=np.float32)
    white = np.asarray(datasets.load_mni152_wm_template(resolution=1).dataobj, dtype=np.float32)
    inside = np.asarray(datasets.load_mni152_brain_mask(resolution=1).dataobj) > 0
    inside = _grow(inside | (grey + white > 0.1), _SUBARACHNOID_MM)
    fluid = np.clip(1 - grey - white, 0, 1) * inside
    window = tuple(slice(a, a + n) for a, n in zip(_FIRST_VOXEL, _FIELD_OF_VIEW, strict=True))
    fractions = torch.stack([torch.from_numpy(np.ascontiguousarray(m[window])) for m in (grey, white, fluid)])
    return fractions, torch.from_numpy(np.asarray(grey_image.affine, dtype=np.float64)[:3, 3])


def _grow(mask: np.ndarray[Any, np.dtype[np.bool_]], steps: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Dilation by the six neighbours; the mask does not reach the faces of the template except the lower one."""
    for _ in range(steps):
        grown = mask.copy()
        for axis in range(3):
            ahead = [slice(None)] * 3
            behind = [slice(None)] * 3
            ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
            grown[tuple(ahead)] |= mask[tuple(behind)]
            grown[tuple(behind)] |= mask[tuple(ahead)]
        mask = grown
    return mask


def _nilearn_datasets() -> Any:
    try:
        from nilearn import datasets
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the brain phantom needs the ICBM152 maps in nilearn: pip install 'monai_cl[demo]'"
        ) from error
    return datasets
