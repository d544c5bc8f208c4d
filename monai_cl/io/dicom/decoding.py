"""Decoding of slices from files to values: in units of the modality, and without padding."""

import logging
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from monai_cl.io.dicom import decoder_process
from monai_cl.io.dicom.lookup import apply_table, read_table
from monai_cl.io.dicom.slices import SliceHeader
from monai_cl.io.threads import read_with_itk, without_warnings_of_dicom

logger = logging.getLogger(__name__)
_PREFIX = "1.2.840.10008.1.2.4."
# what the plugin of nvImageCodec for pydicom decodes: JPEG, JPEG 2000 and high-throughput JPEG 2000
PROFITS = frozenset(f"{_PREFIX}{tail}" for tail in (50, 51, 57, 70, 90, 91, 201, 202, 203))
_lock = threading.Lock()
_warned: set[str] = set()
AIR = -1024.0  # HU, the lowest value of most scanners
_REACHES_AIR = -200.0  # HU: every picture of a body in Hounsfield units has darker voxels
_LIGHTEST_AIR = -900.0  # HU
DARKER_THAN_AIR = -1500.0  # HU, below which nothing was measured
LIGHTEST = 30_710.0  # HU, the end of the extended scale of CT, which metal reaches
_FEW = 0.01  # share of the voxels
Padding = tuple[float, float]  # lowest and highest stored value that is padding


def warn_of_gpu_decoder(syntax: str) -> None:
    """Warn once a process that a GPU could decode files of this transfer syntax but is not used."""
    if syntax not in PROFITS or _warned:
        return
    with _lock:
        if not _warned and _gpu_is_idle():
            logger.warning(
                "compressed DICOM is decoded on the CPU: nvImageCodec, pip install 'monai[nvimgcodec]', would do it on "
                "the GPU"
            )
        _warned.add(syntax)


def _gpu_is_idle() -> bool:
    """Return whether a GPU exists without the package that decodes on it; False in a process without torch."""
    torch, plugin = sys.modules.get("torch"), sys.modules.get("monai.data.nvimgcodec_pydicom_plugin")
    if torch is None or plugin is None or not torch.cuda.is_available():
        return False
    if torch.utils.data.get_worker_info() is not None:  # each worker would repeat it
        return False
    return not plugin.is_nvimgcodec_available()


def is_padding(stored: NDArray[Any], padding: Padding) -> NDArray[np.bool_]:
    """Mask of the stored values that are padding."""
    low, high = padding
    return (stored >= low) & (stored <= high)


def is_rescaled_padding(
    values: NDArray[np.float32], padding: Padding, slope: float, intercept: float
) -> NDArray[np.bool_]:
    """Mask of the values that are padding after the rescale; half a step is for its rounding."""
    low, high = sorted(end * slope + intercept for end in padding)
    half = abs(slope) / 2
    return (values > low - half) & (values < high + half)


def set_background(volume: NDArray[np.float32], padded: NDArray[np.bool_], *, is_ct: bool) -> str:
    """Set padded voxels, in place, to air (-1024 HU) in CT, to the lowest of all other values elsewhere.

    Nothing changes where padding lies among the other values, so that it may be tissue as well, and where it is as dark
    as air already. CT of which no other voxel is as dark as air is not in Hounsfield units and treated as the rest.

    Args:
        volume: Values after the rescale.
        padded: Mask of its padded voxels.
        is_ct: Whether it is CT.

    Returns:
        ``"set"``, ``"among other values"``, or nothing where nothing had to change.
    """
    if not padded.any():
        return ""
    low = float(np.min(volume, where=~padded, initial=np.inf))
    high = float(np.max(volume, where=~padded, initial=-np.inf))
    darkest = float(np.min(volume, where=padded, initial=np.inf))
    lightest = float(np.max(volume, where=padded, initial=-np.inf))
    if low > high:  # nothing but padding
        low = darkest
    elif lightest > low and darkest < high:
        return "among other values"
    background = AIR if is_ct and low < _REACHES_AIR else low
    if darkest == lightest == background or (background == AIR and darkest >= AIR and lightest <= _LIGHTEST_AIR):
        return ""
    volume[padded] = background
    return "set"


def lift_to_air(volume: NDArray[np.float32]) -> bool:
    """Set, in place, what is far darker than air in CT to air, as padding that the header does not announce.

    Nothing changes where the other values are not in Hounsfield units.

    Args:
        volume: Values after the rescale.

    Returns:
        Whether anything changed.
    """
    if not volume.size or volume.min() >= DARKER_THAN_AIR:
        return False
    dark = volume < DARKER_THAN_AIR
    if not DARKER_THAN_AIR <= float(np.min(volume, where=~dark, initial=np.inf)) < _REACHES_AIR:
        return False
    volume[dark] = AIR
    return True


def is_wrapped(volume: NDArray[np.float32]) -> bool:
    """Return whether more than 1 % of the voxels of CT lie above 30,710 HU: signed numbers that were read as unsigned.

    A value of -1000 with 16 bits, of which the header has no sign, is 64,536.
    """
    return bool(volume.size) and float(np.mean(volume > LIGHTEST)) > _FEW


class Decoder(Protocol):
    """Decodes pixel data."""

    def frames(self, header: SliceHeader, index: int | None = None) -> NDArray[Any]:
        """Stored values ``(frames, rows, columns)``, all or one; ValueError where they cannot be decoded."""

    def rescaled(self, header: SliceHeader) -> NDArray[np.float32] | None:
        """A slice ``(rows, columns)`` after its rescale, or nothing where SimpleITK refuses it."""


class InProcess:
    """Decodes pixel data in this process."""

    def frames(self, header: SliceHeader, index: int | None = None) -> NDArray[Any]:
        """Stored values by pydicom."""
        warn_of_gpu_decoder(header.transfer_syntax)
        try:
            with without_warnings_of_dicom():
                return decoder_process.stored_frames(str(header.path), index, (header.low_bit, header.bits[2]))
        except Exception:  # the texts of decoders may quote header values
            raise ValueError(f"cannot decode the pixel data of {header.path}; the file may be damaged") from None

    def rescaled(self, header: SliceHeader) -> NDArray[np.float32] | None:
        """A slice by SimpleITK."""
        try:
            planes = read_with_itk("DICOM", lambda: decoder_process.rescaled_slice(str(header.path)))
        except RuntimeError:
            return None
        plane: NDArray[np.float32] = planes[0]
        return plane


IN_PROCESS = InProcess()


@dataclass(frozen=True, eq=False)
class Decoded:
    """Values of slices.

    Args:
        values: ``(1, columns, rows, slices)``.
        padding: Padding by :func:`~monai_cl.io.dicom.decoding.set_background`.
        lifted: Whether values far darker than air became air.
        wrapped: Whether they are CT by :func:`~monai_cl.io.dicom.decoding.is_wrapped`.
    """

    values: NDArray[np.float32]
    padding: str = ""
    lifted: bool = False
    wrapped: bool = False


def decode(ordered: Sequence[SliceHeader], decoder: Decoder = IN_PROCESS) -> Decoded:
    """Values of slices, each with its own rescale or table; an error names the file.

    Raises:
        ValueError: If a slice cannot be decoded.
    """
    first = ordered[0]
    volume = np.empty((1, first.columns, first.rows, len(ordered)), dtype=np.float32)
    padded = np.zeros(volume.shape, dtype=np.bool_) if any(header.padding for header in ordered) else None
    read = _SliceReader(decoder, alone=len(ordered) == 1)
    for index, header in enumerate(ordered):
        plane, mask = read(header)
        volume[0, :, :, index] = plane.T  # from (row, column)
        if padded is not None and mask is not None:
            padded[0, :, :, index] = mask.T
    is_ct = first.modality == "CT"
    outcome = "" if padded is None else set_background(volume, padded, is_ct=is_ct)  # may itself lie above any CT
    return Decoded(volume, outcome, lifted=is_ct and lift_to_air(volume), wrapped=is_ct and is_wrapped(volume))


class _SliceReader:
    """Values of one slice after the other, and which of them are padding.

    Args:
        decoder: Decodes pixel data.
        alone: Whether only one frame of a file is wanted.
    """

    def __init__(self, decoder: Decoder, *, alone: bool) -> None:
        self._decoder, self._alone = decoder, alone
        self._path: Path | None = None
        self._frames: NDArray[Any] = np.empty(0)
        self._table: Any = None

    def __call__(self, header: SliceHeader) -> tuple[NDArray[np.float32], NDArray[np.bool_] | None]:
        if not header.by_pydicom and (plane := self._decoder.rescaled(header)) is not None:
            if header.padding is None:
                return plane, None
            return plane, is_rescaled_padding(plane, header.padding, header.slope, header.intercept)
        stored = self._stored(header)
        mask = None if header.padding is None else is_padding(stored, header.padding)
        if header.value_table:
            return apply_table(stored, self._table), mask
        return (stored * header.slope + header.intercept).astype(np.float32), mask

    def _stored(self, header: SliceHeader) -> NDArray[Any]:
        """Stored values of a slice; SimpleITK may have refused it for something beside its pixels."""
        index = header.frame or 0
        if self._alone:
            frames, place = self._decoder.frames(header, index if header.frames > 1 else None), 0
            self._table = read_table(header.path) if header.value_table else None
        else:
            if header.path != self._path:  # the frames of a file come one after another
                self._path, self._frames = header.path, self._decoder.frames(header)
                self._table = read_table(header.path) if header.value_table else None
            frames, place = self._frames, index
        if place >= len(frames):
            raise ValueError(f"cannot decode frame {index + 1} of {header.path}: it holds {len(frames)}")
        stored: NDArray[Any] = frames[place]
        return stored
