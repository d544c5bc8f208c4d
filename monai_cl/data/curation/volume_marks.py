"""Marks of a volume that identify exact, near and partial copies of it."""

from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_cl.data.curation.slice_hash import Hashes, difference_hash, to_grey

FINGERPRINT_BITS = 1536
_CUBE = 8
_SMALL = 64  # pixels a side of the slices that SSIM, mutual information and embeddings compare


@dataclass(frozen=True)
class VolumeMarks:
    """Marks of one volume, taken after turning it to RAS.

    Args:
        content: Hash of shape and values.
        fingerprint: Packed bits: is a voxel brighter than its neighbour, along each axis, on a coarse grid.
        coarse: 8-bit picture of the volume on a coarse grid, flat.
        hashes: Difference hash of each slice, in the order of the file.
        informative: Flags of slices with content: a uniform slice equals any other.
        small: 8-bit slices, 64 pixels a side, where a method needs them.
        slice_step: From one slice to the next, in mm in RAS.
    """

    content: str
    fingerprint: NDArray[np.uint8]
    coarse: NDArray[np.uint8]
    hashes: Hashes
    informative: NDArray[np.bool_]
    small: NDArray[np.uint8] | None
    slice_step: tuple[float, ...]

    @property
    def slice_spacing(self) -> float:
        """Millimetres between slices."""
        return float(np.linalg.norm(self.slice_step))


def mark(volume: NDArray[np.float32], affine: NDArray[np.float64], *, keep_slices: bool = False) -> VolumeMarks:
    """Take the marks of a volume.

    Args:
        volume: ``(x, y, z)`` as loaded; slices lie along the last axis.
        affine: Voxel to mm in RAS.
        keep_slices: Whether to keep small slices.
    """
    upright, flipped = turn(volume, affine)
    grey = to_grey(np.moveaxis(upright, 2, 0).swapaxes(1, 2))  # slice, row, column
    hashes, informative = difference_hash(grey), grey.reshape(len(grey), -1).std(axis=1) > 1
    small = _resized(grey) if keep_slices else None
    if flipped:
        hashes, informative, small = hashes[::-1], informative[::-1], None if small is None else small[::-1]
    content = blake2b(repr(upright.shape).encode() + np.ascontiguousarray(upright).tobytes(), digest_size=16)
    step = tuple(float(part) for part in affine[:3, 2])
    coarse = coarse_picture(upright)
    return VolumeMarks(content.hexdigest(), fingerprint(upright), coarse, hashes, informative, small, step)


def turn(volume: NDArray[Any], affine: NDArray[np.float64]) -> tuple[NDArray[Any], bool]:
    """Flip axes, and swap the first two, so that they run as near to right, anterior and superior as they come.

    The last axis stays the last.

    Returns:
        The turned volume, and whether its last axis was flipped.
    """
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    if np.abs(axes[:, 0]).argmax() > np.abs(axes[:, 1]).argmax():
        volume, axes = volume.swapaxes(0, 1), axes[:, [1, 0, 2]]
    flips = tuple(axis for axis in range(3) if axes[np.abs(axes[:, axis]).argmax(), axis] < 0)
    return (np.flip(volume, flips) if flips else volume), 2 in flips


def fingerprint(volume: NDArray[Any]) -> NDArray[np.uint8]:
    r"""Bits of a coarse picture of the volume that a change of scale, offset, spacing or type leaves nearly alone.

    The volume is averaged onto $9 \times 9 \times 9$ cells; for each axis, $8^3$ bits mark whether a cell is brighter
    than the one before it.
    """
    import torch
    import torch.nn.functional as functional

    tensor = torch.from_numpy(_clipped(volume))[None, None]
    cells = functional.adaptive_avg_pool3d(tensor, _CUBE + 1)[0, 0].numpy()
    part = slice(0, _CUBE)
    bits = [np.diff(cells, axis=axis)[part, part, part] > 0 for axis in range(3)]
    return np.packbits(np.stack(bits).ravel())


def coarse_picture(volume: NDArray[Any]) -> NDArray[np.uint8]:
    r"""Averages over $9 \times 9 \times 9$ cells of equal size, by their own minimum and maximum to 0..255.

    Cells take their share of voxels that lie across a border, so that a resampled volume has the same picture.
    """
    cells = _clipped(volume)
    for axis in range(3):
        shares = _shares(cells.shape[axis], _CUBE + 1)
        cells = np.moveaxis(np.tensordot(shares, cells, (1, axis)), 0, axis)
    low, span = float(cells.min()), float(np.ptp(cells))
    grey: NDArray[np.uint8] = np.rint((cells - low) / (span or 1.0) * 255).astype(np.uint8)
    return grey.ravel()


def _shares(size: int, cells: int) -> NDArray[np.float32]:
    """Share that each of ``size`` voxels has in each cell, ``(cells, size)``; rows sum to 1.

    Example:
        >>> _shares(3, 2).astype(float).round(2).tolist()
        [[0.67, 0.33, 0.0], [0.0, 0.33, 0.67]]
    """
    edges, voxels = np.arange(cells + 1) * size / cells, np.arange(size)
    overlap = np.minimum(edges[1:, None], voxels + 1) - np.maximum(edges[:-1, None], voxels)
    shares: NDArray[np.float32] = (np.clip(overlap, 0, None) * cells / size).astype(np.float32)
    return shares


def _clipped(volume: NDArray[Any]) -> NDArray[np.float32]:
    values = np.nan_to_num(volume.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = np.percentile(values[::2, ::2, ::2] if min(values.shape) > 8 else values, (1, 99.5))
    clipped: NDArray[np.float32] = np.clip(values, low, max(high, low)).astype(np.float32)
    return clipped


def _resized(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    from PIL import Image

    size = (_SMALL, _SMALL)
    planes = [np.asarray(Image.fromarray(np.ascontiguousarray(p)).resize(size, Image.Resampling.BOX)) for p in grey]
    return np.stack(planes)
