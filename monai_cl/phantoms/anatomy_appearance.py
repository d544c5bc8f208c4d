"""Appearance of a view of a random anatomy: intensities and textures of labels, and what a scanner adds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from monai_cl.phantoms._anatomy_checks import require_counts, require_probabilities, require_ranges
from monai_cl.phantoms.anatomy_tissues import SEQUENCES, simulated_signals
from monai_cl.phantoms.smooth_fields import draw_cells, draw_coefficients, smooth_fields

_OUTSIDE = 0.05  # brightest air
_BIAS_CELLS = (1, 3)
_PLAIN = 0.25  # share of labels without texture
_SMOOTH = 0.5  # share of labels whose texture is smooth, the others' is white


@dataclass(frozen=True)
class Appearance:
    """Drawn appearance of a view.

    Attributes:
        means: Intensity of each label (L,).
        white: Standard deviation of white texture of each label (L,).
        smooth: That of smooth texture (L,).
        texture: Coefficients (1, cells + 3) of the smooth texture.
        blur: Standard deviation of the Gaussian along each axis, voxels.
        bias: Coefficients (1, cells + 3) of the logarithm of the bias field, amplitude included.
        thick: Axis of thick slices, and how many voxels one holds; 1 for none.
        noise: Standard deviation of the noise.
        rician: Noise of a magnitude image; otherwise it is Gaussian.
        gamma: Exponent of the intensities at the end.
        percentiles: Percentiles of the image that become 0 and 1.
        seed: Seed of white texture and of noise.
    """

    means: np.ndarray
    white: np.ndarray
    smooth: np.ndarray
    texture: np.ndarray
    blur: tuple[float, ...]
    bias: np.ndarray
    thick: tuple[int, int]
    noise: float
    rician: bool
    gamma: float
    percentiles: tuple[float, float]
    seed: int


@dataclass(frozen=True, kw_only=True)
class AnatomyAppearance:
    """Ranges of the appearance of views.

    Attributes:
        simulated: Share of views whose intensities are signals of an MR sequence, by :mod:`monai_cl.qmri`; those of
            others are uniform in [0, 1].
        sequences: Families of sequences that are drawn from, see :data:`monai_cl.qmri.FAMILIES`.
        texture: Greatest standard deviation within a label.
        texture_cells: Fewest and most cells of smooth texture along an axis.
        dark: Probability that outside of the envelope it is dark in a view that is not simulated.
        blur: Greatest standard deviation of the blur along an axis, voxels.
        bias: Greatest standard deviation of the logarithm of the bias field.
        thick: Probability of thick slices along an axis.
        thickness: Fewest and most voxels that a thick slice holds.
        noise: Greatest standard deviation of the noise.
        gamma: Largest logarithm of the exponent of the intensities, of either sign.
        percentiles: Percentiles of a view that become 0 and 1; what lies beyond is cut off.

    Raises:
        ValueError: If a probability or range is none, or a sequence is unknown.
    """

    simulated: float = 0.4
    sequences: tuple[str, ...] = SEQUENCES
    texture: float = 0.12
    texture_cells: tuple[int, int] = (5, 16)
    dark: float = 0.5
    blur: float = 1.0
    bias: float = 0.35
    thick: float = 0.25
    thickness: tuple[int, int] = (2, 4)
    noise: float = 0.08
    gamma: float = 0.5
    percentiles: tuple[float, float] = (1.0, 99.0)

    def __post_init__(self) -> None:
        require_probabilities(self, "simulated", "dark", "thick")
        require_counts(self, "texture_cells", "thickness")
        require_ranges(self, "percentiles", least=0.0)
        if not self.percentiles[0] < self.percentiles[1] <= 100:
            raise ValueError(f"percentiles must be two different numbers up to 100, got {self.percentiles}")
        for name in ("texture", "blur", "bias", "noise", "gamma"):
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name} must be at least 0 and finite, got {value!r}")
        if isinstance(self.sequences, str) or not self.sequences or set(self.sequences) - set(SEQUENCES):
            raise ValueError(f"sequences must be some of {SEQUENCES}, got {self.sequences!r}")
        object.__setattr__(self, "sequences", tuple(self.sequences))

    def draw(self, rng: np.random.Generator, tissues: np.ndarray, dims: int) -> Appearance:
        """Draw the appearance of one view.

        Args:
            rng: Source of the draws.
            tissues: Properties of the tissue of each label, of :func:`monai_cl.phantoms.anatomy_tissues.draw_tissues`.
            dims: Axes of the view.
        """
        simulated = rng.random() < self.simulated
        number = len(tissues)
        means = simulated_signals(rng, tissues, self.sequences) if simulated else rng.random(number)
        spread = rng.uniform(0, self.texture, number) * (rng.random(number) >= _PLAIN)
        if simulated or rng.random() < self.dark:
            means[0], spread[0] = min(means[0], rng.uniform(0, _OUTSIDE)), 0.0
        is_smooth = rng.random(number) < _SMOOTH
        texture = draw_coefficients(rng, draw_cells(rng, self.texture_cells, dims))
        bias = draw_coefficients(rng, draw_cells(rng, _BIAS_CELLS, dims)) * rng.uniform(0, self.bias)
        many = int(rng.integers(self.thickness[0], self.thickness[1] + 1)) if rng.random() < self.thick else 1
        return Appearance(
            means=means.astype(np.float32), white=(spread * ~is_smooth).astype(np.float32),
            smooth=(spread * is_smooth).astype(np.float32), texture=texture,
            blur=tuple(rng.uniform(0, self.blur, dims).tolist()), bias=bias.astype(np.float32),
            thick=(int(rng.integers(dims)), many), noise=float(rng.uniform(0, self.noise)), rician=simulated,
            gamma=float(np.exp(rng.uniform(-self.gamma, self.gamma))), percentiles=self.percentiles,
            seed=int(rng.integers(2**63)),
        )  # fmt: skip


def image_of(labels: Tensor, look: Appearance) -> Tensor:
    r"""Image of a label map.

    Args:
        labels: Labels (\*S), below the number that ``look`` has intensities for.
        look: The appearance.

    Returns:
        Image (\*S), float32 from 0 to 1.
    """
    size, rng = tuple(labels.shape), np.random.default_rng(look.seed)
    index = labels.long()
    image = torch.from_numpy(look.means)[index]
    if look.white.any():
        image += torch.from_numpy(look.white)[index] * _white(rng, size)
    if look.smooth.any():
        image += torch.from_numpy(look.smooth)[index] * smooth_fields(look.texture, size)[0]
    image *= smooth_fields(look.bias, size)[0].exp_()
    axis, many = look.thick
    for one, n in enumerate(size):
        image = _along(image, _blurring(n, look.blur[one]), one)
    if many > 1:
        image = _along(image, _averaging(size[axis], many), axis)
    image = _noisy(image, look, rng)
    if many > 1:
        image = _along(image, _interpolating(size[axis], many), axis)
    return _scaled(image, look.percentiles).pow_(look.gamma)


def _noisy(image: Tensor, look: Appearance, rng: np.random.Generator) -> Tensor:
    if look.noise == 0:
        return image
    noisy = image + look.noise * _white(rng, image.shape)
    return torch.hypot(noisy, look.noise * _white(rng, image.shape)) if look.rician else noisy


def _scaled(image: Tensor, percentiles: tuple[float, float]) -> Tensor:
    """Image with its percentiles at 0 and 1, clipped; an image without contrast becomes 0."""
    values, last = image.numpy().reshape(-1), image.numel() - 1
    places = [round(percent / 100 * last) for percent in percentiles]
    ordered = np.partition(values, places)
    low, high = (float(ordered[place]) for place in places)
    return ((image - low) / max(high - low, 1e-6)).clamp_(0, 1)


def _white(rng: np.random.Generator, size: Sequence[int]) -> Tensor:
    return torch.from_numpy(rng.standard_normal(tuple(size), dtype=np.float32))


def _along(image: Tensor, matrix: np.ndarray, axis: int) -> Tensor:
    """Apply a matrix (m, n) along an axis of n voxels."""
    changed: Tensor = torch.tensordot(image, torch.from_numpy(matrix), dims=([axis], [1]))
    return changed.movedim(-1, axis)


def _blurring(n: int, sigma: float) -> np.ndarray:
    """Gaussian blur (n, n); near an end what is beyond it is left out."""
    steps = np.subtract.outer(np.arange(n), np.arange(n))
    kernel = np.exp(-0.5 * (steps / max(sigma, 1e-3)) ** 2)
    weights: np.ndarray = kernel / kernel.sum(1, keepdims=True)
    return weights.astype(np.float32)


def _averaging(n: int, many: int) -> np.ndarray:
    """Averages (m, n) of ``many`` voxels each; of fewer in the last."""
    rows = np.arange(-(-n // many))
    inside = np.arange(n)[None] // many == rows[:, None]
    weights: np.ndarray = inside / inside.sum(1, keepdims=True)
    return weights.astype(np.float32)


def _interpolating(n: int, many: int) -> np.ndarray:
    """Linear interpolation (n, m) of averages of :func:`_averaging`, constant beyond the outermost centres."""
    m = -(-n // many)
    place = np.clip((np.arange(n) + 0.5) / many - 0.5, 0, m - 1)
    weights: np.ndarray = np.maximum(1 - np.abs(place[:, None] - np.arange(m)), 0)
    return weights.astype(np.float32)
