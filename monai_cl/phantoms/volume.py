"""Volume of a phantom: an image, its label map and an affine; and the smooth random fields they are made with."""

import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from monai_cl._files import atomic_write

Seed = int | Sequence[int]


@dataclass(frozen=True)
class LabelledVolume:
    """Synthetic scan with labels.

    Attributes:
        image: float32 image of shape ``(1, X, Y, Z)``.
        label: uint8 label map of shape ``(1, X, Y, Z)``, 0 is background.
        affine: float64 ``(4, 4)`` map from voxel index to millimetres, axes towards Right, Anterior, Superior.
    """

    image: Tensor
    label: Tensor
    affine: Tensor

    def save(self, image_path: str | Path, label_path: str | Path | None = None) -> None:
        """Write the image, and the label map where a path is given, as compressed NIfTI.

        The same volume gives the same bytes. A file appears whole or not at all.

        Args:
            image_path: Target of the image, a name that ends in ``.nii.gz``.
            label_path: Target of the label map, a name that ends in ``.nii.gz``; ``None`` writes no label map.

        Raises:
            ValueError: If a name does not end in ``.nii.gz``.
        """
        write_nifti(image_path, self.image[0], self.affine)
        if label_path is not None:
            write_nifti(label_path, self.label[0], self.affine)


def write_nifti(path: str | Path, volume: Tensor, affine: Tensor) -> None:
    """Write one ``(X, Y, Z)`` volume as compressed NIfTI, its affine as both sform and qform.

    Args:
        path: Target, a name that ends in ``.nii.gz``.
        volume: Volume of shape ``(X, Y, Z)``, stored in its own data type.
        affine: ``(4, 4)`` map from voxel index to millimetres.

    Raises:
        ValueError: If the name does not end in ``.nii.gz``.
    """
    import nibabel

    target = Path(path)
    if not target.name.endswith(".nii.gz"):
        raise ValueError(f"a phantom is written to a name that ends in .nii.gz, got {target.name!r}; rename the target")
    nifti = nibabel.Nifti1Image(volume.numpy(), affine.numpy())
    nifti.set_sform(affine.numpy(), code=1)
    nifti.set_qform(affine.numpy(), code=1)
    nifti.header.set_xyzt_units("mm")
    with atomic_write(target) as temporary:
        # Without a time stamp in the gzip header equal volumes are equal files; noise hardly compresses, so level 1.
        Path(temporary).write_bytes(gzip.compress(nifti.to_bytes(), compresslevel=1, mtime=0))


def smooth_noise(rng: np.random.Generator, shape: Sequence[int], sigma: float | Sequence[float]) -> Tensor:
    """Periodic Gaussian random field of mean 0 and variance 1, white noise filtered by a Gaussian.

    The transfer function is ``exp(-2 pi^2 sum_i (sigma_i f_i)^2)`` with f in cycles per voxel; the field is divided by
    its expected, not its sample, standard deviation, so that one draw can be stronger than another.

    Args:
        rng: Source of the white noise.
        shape: Spatial shape of the field.
        sigma: Standard deviation of the Gaussian in voxels, one number or one per axis; 0 leaves white noise.

    Returns:
        float32 field of the given shape.
    """
    sigmas = [sigma] * len(shape) if isinstance(sigma, int | float) else list(sigma)
    exponent = torch.zeros(())
    for axis, (size, width) in enumerate(zip(shape, sigmas, strict=True)):
        # The last axis holds the half spectrum of a real field.
        frequency = torch.fft.rfftfreq(size) if axis == len(shape) - 1 else torch.fft.fftfreq(size)
        frequency = frequency.reshape([-1 if i == axis else 1 for i in range(len(shape))])
        exponent = exponent + (width * frequency) ** 2
    transfer = torch.exp(-2 * torch.pi**2 * exponent)
    transfer.view(-1)[0] = 0.0  # no mean: the field moves contrast or position about, it does not shift all of it
    white = torch.from_numpy(rng.standard_normal(tuple(shape), dtype=np.float32))
    field: Tensor = torch.fft.irfftn(torch.fft.rfftn(white) * transfer, s=tuple(shape))
    return field / _power(transfer, shape[-1]).sqrt()


def _power(transfer: Tensor, size: int) -> Tensor:
    """Mean of the squared transfer function over the whole spectrum, from the half with ``size`` on the last axis."""
    twice = torch.full((transfer.shape[-1],), 2.0)
    twice[0] = 1.0
    if size % 2 == 0:
        twice[-1] = 1.0
    return (transfer.square() * twice).sum() / (transfer[..., 0].numel() * size)


def rician(rng: np.random.Generator, signal: Tensor, sigma: float) -> Tensor:
    """Magnitude of a signal with complex Gaussian noise, ``sqrt((S + n1)^2 + n2^2)``.

    Args:
        rng: Source of the noise.
        signal: Signal S, any shape.
        sigma: Standard deviation of n1 and of n2, in the unit of the signal.

    Returns:
        float32 magnitude of the same shape.
    """
    real, imaginary = (
        torch.from_numpy(rng.standard_normal(tuple(signal.shape), dtype=np.float32)) * sigma for _ in range(2)
    )
    return torch.hypot(signal + real, imaginary)


def check_grid(shape: Sequence[int], spacing: Sequence[float]) -> None:
    """Refuse a grid that holds no phantom.

    Raises:
        ValueError: If shape or spacing is not three positive numbers, or a size is below 4.
    """
    if len(shape) != 3 or len(spacing) != 3 or min(shape) < 4 or min(spacing) <= 0:
        raise ValueError(
            f"shape needs 3 sizes of at least 4 and spacing 3 positive lengths in mm, got {shape} and {spacing}"
        )


def centred_affine(shape: Sequence[int], spacing: Sequence[float]) -> Tensor:
    """Affine of a volume whose centre is the origin, axes towards Right, Anterior, Superior.

    Args:
        shape: Spatial shape ``(X, Y, Z)``.
        spacing: Voxel size in millimetres along each axis.

    Returns:
        float64 ``(4, 4)`` affine.
    """
    affine = torch.diag(torch.tensor([*spacing, 1.0], dtype=torch.float64))
    extent = torch.tensor([(n - 1) * s for n, s in zip(shape, spacing, strict=True)], dtype=torch.float64)
    affine[:3, 3] = -extent / 2
    return affine
