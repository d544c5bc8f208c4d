"""Artefacts of MR: drawn as plain numbers, applied to the signed signal before the magnitude.

MONAI's transforms of these effects act on magnitudes, after the image is combined, which is too late here:
``RandRicianNoise`` is right for one coil but draws its noise outside ``randomize`` (no replay from a record) and would
act on the ratio of MP2RAGE; ``GibbsNoise`` keeps a sphere of k-space with one radius for all axes in indices, where a
scanner samples a box; ``RandSimulateLowResolution`` picks nearest voxels, where a thick slice averages;
``RandBiasField`` draws positive coefficients only. MONAI has no transform for motion or ghosts.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from monai_cl.qmri.ranges import RandomSource, Range, as_range

PROTON = 42.577  # MHz / T
_ORDER = 2  # half waves of a smooth field over the volume
_SEEDS = 2**31 - 1


@dataclass(frozen=True, kw_only=True)
class MRArtefacts:
    """Probabilities and sizes of artefacts; all are off by default.

    A number fixes a size, a pair draws it uniformly. Smooth fields have at most two half waves over the volume, and
    their size is their largest deviation. The sizes of fields are usual ones at 3 T and not measured here.

    Attributes:
        b1_prob: Probability of a transmit field.
        b1: Its largest relative deviation from nominal; it scales the flip angles.
        b0_prob: Probability of a field offset, for balanced SSFP.
        b0: Its largest deviation in ppm of the main field.
        receive_prob: Probability of a receive field.
        receive: Largest deviation of its logarithm.
        slice_prob: Probability of thick slices along an axis.
        slice_thickness: Their thickness in mm (voxels without an affine); thinner than a voxel does nothing.
        resolution_prob: Probability of a coarser acquisition.
        resolution: Voxel size of the acquisition relative to that of the maps, drawn for each axis, filtered so that
            edges do not ring.
        gibbs_prob: Probability of a cut in k-space without filter: rings at edges.
        gibbs: Share of k-space that is kept along each axis.
        motion_prob: Probability of motion during the acquisition.
        motion: Largest shift in mm (voxels without an affine), at a few moments; at the centre of k-space the
            subject is where the maps are.
        ghost_prob: Probability of a ghost, shifted by half of the volume.
        ghost: Its share of the image.
        noise_prob: Probability of noise.
        noise: Standard deviation of each channel of the noise, relative to the mean magnitude of voxels with signal.
        coils: Number of receive coils: 1 gives Rician noise, more a non-central chi distribution.

    Raises:
        ValueError: If a probability or size is outside what it can be.
    """

    b1_prob: float = 0.0
    b1: Any = (0.05, 0.2)
    b0_prob: float = 0.0
    b0: Any = (0.05, 0.4)
    receive_prob: float = 0.0
    receive: Any = (0.1, 0.5)
    slice_prob: float = 0.0
    slice_thickness: Any = (2.0, 6.0)
    resolution_prob: float = 0.0
    resolution: Any = (1.0, 2.0)
    gibbs_prob: float = 0.0
    gibbs: Any = (0.5, 0.9)
    motion_prob: float = 0.0
    motion: Any = (0.5, 3.0)
    ghost_prob: float = 0.0
    ghost: Any = (0.02, 0.15)
    noise_prob: float = 0.0
    noise: Any = (0.01, 0.05)
    coils: int = 1

    def __post_init__(self) -> None:
        limits = {"resolution": (1.0, math.inf), "gibbs": (0.05, 1.0), "ghost": (0.0, 0.99), "b1": (0.0, 0.99)}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name.endswith("_prob"):
                if not 0 <= value <= 1:
                    raise ValueError(f"{field.name} must be between 0 and 1, got {value!r}")
            elif field.name == "coils":
                if not isinstance(value, int) or value < 1:
                    raise ValueError(f"coils must be a whole number of at least 1, got {value!r}")
            else:
                size = as_range(value)
                low, high = limits.get(field.name, (0.0, math.inf))
                if not isinstance(size, Range) or not low <= size.low <= size.high <= high:
                    raise ValueError(
                        f"{field.name} must be a number or a pair between {low:g} and {high:g}, got {value!r}"
                    )
                object.__setattr__(self, field.name, size)

    def draw(self, random_state: RandomSource, dim: int, field_strength: float) -> dict[str, Any]:
        """Draw artefacts for a volume of ``dim`` axes, as plain JSON values; those not drawn are absent."""
        record: dict[str, Any] = {}

        def happens(name: str) -> bool:
            return random_state.uniform(0, 1) < float(getattr(self, f"{name}_prob"))

        def size(name: str) -> float:
            return float(getattr(self, name).draw(random_state))

        def axis() -> int:
            return min(int(random_state.uniform(0, dim)), dim - 1)

        def seed() -> int:
            return int(random_state.uniform(0, _SEEDS))

        def field(largest: float) -> dict[str, Any]:
            waves = [float(random_state.standard_normal()) for _ in _orders(dim)]
            return {"largest": largest, "waves": waves}

        if happens("b1"):
            record["b1"] = field(size("b1"))
        if happens("b0"):
            record["b0"] = field(size("b0") * PROTON * field_strength)  # Hz
        if happens("receive"):
            record["receive"] = field(size("receive"))
        if happens("slice"):
            record["slice"] = {"axis": axis(), "thickness": size("slice_thickness")}
        if happens("motion"):
            moments = sorted(float(random_state.uniform(0, 1)) for _ in range(1 + int(random_state.uniform(0, 4))))
            largest = size("motion")
            shifts = [
                [float(random_state.uniform(-largest, largest)) for _ in range(dim)] for _ in range(len(moments) + 1)
            ]
            record["motion"] = {"axis": axis(), "moments": moments, "shifts": shifts}
        if happens("ghost"):
            record["ghost"] = {"axis": axis(), "share": size("ghost")}
        if happens("resolution"):
            record["resolution"] = [1 / size("resolution") for _ in range(dim)]
        if happens("gibbs"):
            record["gibbs"] = [size("gibbs") for _ in range(dim)]
        if happens("noise"):
            record["noise"] = {"share": size("noise"), "coils": self.coils, "seed": seed()}
        return record


def smooth_field(record: Mapping[str, Any], like: Tensor) -> Tensor:
    """Smooth field (*S) of the shape of ``like`` (*S): cosines with drawn weights, scaled to its largest deviation.

    Raises:
        ValueError: If the record is of another number of axes.
    """
    orders = _orders(like.ndim)
    if len(record["waves"]) != len(orders):
        raise ValueError(f"the record must be of {like.ndim} spatial axes with {len(orders)} waves, got another number")
    waves = [
        [torch.cos(math.pi * k * (torch.arange(n, dtype=torch.float64) + 0.5) / n) for k in range(_ORDER + 1)]
        for n in like.shape
    ]
    total = torch.zeros(like.shape, dtype=torch.float64)
    for weight, order in zip(record["waves"], orders, strict=True):
        term = torch.full((1,) * like.ndim, float(weight), dtype=torch.float64)
        for axis, k in enumerate(order):
            term = term * _along(axis, waves[axis][k], like.ndim)
        total += term
    largest = total.abs().max().clamp_min(torch.finfo(torch.float64).tiny)
    field: Tensor = (total / largest * record["largest"]).to(like)
    return field


def degrade(images: Sequence[Tensor], record: Mapping[str, Any], spacing: Sequence[float]) -> list[list[Tensor]]:
    """Apply the artefacts of ``record`` to coherent images.

    The order is that of a scanner: receive field, slice, motion and ghosts, extent of k-space, noise.

    Args:
        images: Signed images (*S) of one acquisition.
        record: From :meth:`MRArtefacts.draw`; what it lacks is left out.
        spacing: Voxel size in mm along each axis.

    Returns:
        For each image the images of the coils, complex where the record asks for k-space or noise.
    """
    present = torch.stack([image.abs() for image in images]).amax(0)
    signal = present[present > 0]
    reference = float(signal.mean()) if signal.numel() else 1.0
    if "receive" in record:
        gain = smooth_field(record["receive"], images[0]).exp()
        images = [image * gain for image in images]
    if "slice" in record:
        axis, thickness = record["slice"]["axis"], record["slice"]["thickness"]
        images = [_thick_slices(image, axis, thickness / spacing[axis]) for image in images]
    if {"motion", "ghost", "resolution", "gibbs"} & set(record):
        images = [_through_k_space(image, record, spacing) for image in images]
    if "noise" not in record:
        return [[image] for image in images]
    noise = record["noise"]
    rng = np.random.RandomState(noise["seed"])
    sigma, coils = noise["share"] * reference, noise["coils"]

    def draw(like: Tensor) -> Tensor:
        values = rng.standard_normal(tuple(like.shape)).astype(np.float32)
        scaled: Tensor = torch.from_numpy(values).to(like.real) * sigma
        return scaled

    return [
        [image / math.sqrt(coils) + torch.complex(draw(image), draw(image)) for _ in range(coils)] for image in images
    ]


def root_sum_of_squares(coils: Sequence[Tensor]) -> Tensor:
    """Magnitude of the images of several coils; Rician for one, non-central chi for more."""
    if len(coils) == 1:
        return coils[0].abs()
    return torch.stack([coil.abs().square() for coil in coils]).sum(0).sqrt()


def uniform_of_coils(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    """Signed combination of MP2RAGE, Re(I1* I2) / (|I1|^2 + |I2|^2), summed over coils in both parts."""
    product = torch.stack([(a.conj() * b).real for a, b in zip(first, second, strict=True)]).sum(0)
    power = torch.stack([one.abs().square() for one in (*first, *second)]).sum(0)
    return product / power.clamp_min(torch.finfo(power.dtype).tiny)


def _orders(dim: int) -> list[tuple[int, ...]]:
    return [order for order in itertools.product(range(_ORDER + 1), repeat=dim) if 1 <= sum(order) <= _ORDER]


def _thick_slices(image: Tensor, axis: int, voxels: float) -> Tensor:
    """Average adjacent slices of a rectangular profile, then interpolate linearly back to the grid."""
    length = image.shape[axis]
    count = max(round(length / voxels), 1) if voxels > 1 else length
    if count >= length:
        return image
    lines = image.movedim(axis, -1)
    flat = lines.reshape(-1, 1, length)
    coarse = F.adaptive_avg_pool1d(flat, count)
    return F.interpolate(coarse, length, mode="linear").reshape(lines.shape).movedim(-1, axis)


def _through_k_space(image: Tensor, record: Mapping[str, Any], spacing: Sequence[float]) -> Tensor:
    k_space = torch.fft.fftn(image)
    frequencies = [torch.fft.fftfreq(n, dtype=torch.float64) for n in image.shape]  # cycles a voxel
    if "motion" in record:
        turns = _turns(record["motion"], frequencies, spacing)
        k_space = k_space * torch.polar(torch.ones_like(turns), -2 * math.pi * turns).to(k_space)
    if "ghost" in record:
        axis, share = record["ghost"]["axis"], record["ghost"]["share"]
        odd = (frequencies[axis] * image.shape[axis]).round() % 2 == 1  # every other line is weaker, also across 0
        weaker = torch.where(odd, 1 - 2 * share, 1.0).double()
        k_space = k_space * _along(axis, weaker.to(k_space), image.ndim)
    for axis, frequency in enumerate(frequencies):
        position = frequency.abs() * 2  # 1 at the edge of k-space
        for window in _windows(record, axis, position):
            k_space = k_space * _along(axis, window.to(k_space), image.ndim)
    image_space: Tensor = torch.fft.ifftn(k_space)
    return image_space


def _turns(motion: Mapping[str, Any], frequencies: Sequence[Tensor], spacing: Sequence[float]) -> Tensor:
    """Phase in turns that shifts between lines give each point of k-space; none in the central interval."""
    dim, lines = len(frequencies), motion["axis"]
    time = frequencies[lines] + 0.5  # lines one after another, from one edge of k-space to the other
    moments = torch.tensor(motion["moments"], dtype=torch.float64)
    interval = torch.bucketize(time, moments)
    shifts = torch.tensor(motion["shifts"], dtype=torch.float64)
    centre = int(torch.bucketize(torch.tensor(0.5, dtype=torch.float64), moments))
    shifts = (shifts - shifts[centre]) / torch.tensor(list(spacing)[:dim], dtype=torch.float64)  # voxels
    turns = torch.zeros((1,) * dim, dtype=torch.float64)
    for axis, frequency in enumerate(frequencies):
        turns = turns + _along(lines, shifts[interval, axis], dim) * _along(axis, frequency, dim)
    return turns


def _windows(record: Mapping[str, Any], axis: int, position: Tensor) -> Iterator[Tensor]:
    """Weights of the lines along an axis: a lower resolution fades out to its edge, truncation cuts at it."""
    if "resolution" in record and record["resolution"][axis] < 1:
        yield torch.cos(math.pi / 2 * (position / record["resolution"][axis]).clamp_max(1)).square()
    if "gibbs" in record and record["gibbs"][axis] < 1:
        yield (position <= record["gibbs"][axis]).double()


def _along(axis: int, values: Tensor, dim: int) -> Tensor:
    """Values along one of several axes, which broadcast along the others."""
    return values.reshape([-1 if a == axis else 1 for a in range(dim)])
