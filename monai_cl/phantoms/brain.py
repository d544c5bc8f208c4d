"""Synthetic T1-weighted brains: quantitative maps of a subject, a drawn protocol, receive field, noise."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from monai_cl.phantoms.deformation import sample, voxel_grid
from monai_cl.phantoms.maps import BrainMaps, brain_maps, random_streams
from monai_cl.phantoms.template import FIELD_OF_VIEW, lattice, to_grid
from monai_cl.phantoms.volume import LabelledVolume, Seed, rician, smooth_noise
from monai_cl.qmri import Protocol, draw_protocol

LABELS = {1: "grey matter", 2: "white matter", 3: "cerebrospinal fluid"}

FAMILY = "t1w_spgr"
_MIN_CONTRAST = 1.05
_LATTICE_MM, _RECEIVE_MM = 8.0, 50.0


@dataclass(frozen=True)
class BrainSubject(LabelledVolume):
    """Synthetic brain without skull; see :class:`~monai_cl.phantoms.volume.LabelledVolume`.

    Labels are 1 grey matter, 2 white matter, 3 cerebrospinal fluid, 0 background.

    Attributes:
        protocol: The drawn acquisition.
        fractions: float32 shares of grey matter, white matter and cerebrospinal fluid, of shape ``(3, X, Y, Z)``.
    """

    protocol: Protocol
    fractions: Tensor


def brain_subject(seed: Seed, *, spacing: float = 3.0) -> BrainSubject:
    r"""A random brain, T1-weighted, with its tissue labels.

    The quantitative maps of :func:`~monai_cl.phantoms.maps.brain_maps` at 3 T, seen by a spoiled gradient echo of
    the family ``t1w_spgr`` that shows white > grey > fluid. Partial volume is mixed in the signal, $S=\sum_t f_t S_t$;
    then come the receive field, $S\,e^{b(x)}$, the Rician noise and an arbitrary gain.

    Args:
        seed: Integer, or several; equal seeds give equal subjects, and one anatomy whatever the spacing. The maps are
            those of ``brain_maps`` with this seed.
        spacing: Isotropic voxel size in millimetres, 1 to 12. The field of view is 168 x 216 x 168 mm.

    Returns:
        The subject: 56 x 72 x 56 voxels at 3 mm.

    Raises:
        ValueError: If the spacing is outside 1 to 12 mm.
        ModuleNotFoundError: If nilearn, which carries the tissue maps, is not installed.
    """
    subject = brain_maps(seed, spacing=spacing)
    streams = random_streams(seed)
    protocol = _draw_protocol(streams["protocol"], subject)
    signal = subject.image(protocol)[0]
    white = float(_typical(protocol, subject)[1])
    return BrainSubject(
        image=scanned(signal, streams["receive"], streams["noise"], spacing=spacing, reference=white)[None],
        label=subject.label,
        affine=subject.affine,
        protocol=protocol,
        fractions=subject.fractions,
    )


def scanned(
    signal: Tensor, receive: np.random.Generator, noise: np.random.Generator, *, spacing: float, reference: float
) -> Tensor:
    """Add what a scanner adds to a signal: a receive field, Rician noise and an arbitrary gain.

    Args:
        signal: Signal without noise, of shape ``(X, Y, Z)``.
        receive: Source of the receive field.
        noise: Source of the noise, 20 to 45 times below the reference, and of the gain.
        spacing: Voxel size in millimetres.
        reference: Signal of a typical voxel; the gain brings it to 200 to 2000.

    Returns:
        float32 image of the same shape.
    """
    received = signal * torch.exp(_receive_field(receive, signal.shape, spacing))
    noisy = rician(noise, received, sigma=reference / noise.uniform(20, 45))
    return noisy * (math.exp(noise.uniform(math.log(200), math.log(2000))) / reference)


def _draw_protocol(rng: np.random.Generator, subject: BrainMaps) -> Protocol:
    """A protocol that shows white > grey > fluid; the maps are drawn so that strong T1-weighting does."""
    while True:
        protocol = draw_protocol(FAMILY, rng, field_strength=subject.field_strength)
        grey, white, fluid = _typical(protocol, subject).tolist()
        if white > _MIN_CONTRAST * grey and grey > _MIN_CONTRAST * fluid:
            return protocol


def _typical(protocol: Protocol, subject: BrainMaps) -> Tensor:
    """Signals of the tissues for the middle of their properties."""
    values = subject.values.values()
    return protocol.signal(**{name: torch.tensor([getattr(v, name) for v in values]) for name in protocol.maps})


def _receive_field(rng: np.random.Generator, shape: torch.Size, spacing: float) -> Tensor:
    """Logarithm of the receive sensitivity, of shape (X, Y, Z): 6 to 14 % standard deviation, 50 mm correlation."""
    strength = rng.uniform(0.06, 0.14)
    field = smooth_noise(rng, lattice(FIELD_OF_VIEW, _LATTICE_MM), _RECEIVE_MM / _LATTICE_MM)
    return strength * sample(field[None], to_grid((voxel_grid(shape) + 0.5) * spacing, _LATTICE_MM))[0]
