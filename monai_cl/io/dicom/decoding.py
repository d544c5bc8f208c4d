"""From slices in files to values: decoded, in the units of the modality, and without padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from monai_cl.io.dicom import decoder_process
from monai_cl.io.dicom.gpu_decoder import tell_of_gpu_decoder
from monai_cl.io.dicom.lookup import apply_table, read_table
from monai_cl.io.dicom.padding import is_padding, is_rescaled_padding, set_background
from monai_cl.io.dicom.slices import SliceHeader
from monai_cl.io.threads import read_with_itk, without_warnings


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
        tell_of_gpu_decoder(header.transfer_syntax)
        try:
            with without_warnings():
                return decoder_process.stored_frames(str(header.path), index)
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
        padding: What :func:`~monai_cl.io.dicom.padding.set_background` says of their padding.
    """

    values: NDArray[np.float32]
    padding: str = ""


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
    outcome = "" if padded is None else set_background(volume, padded, is_ct=first.modality == "CT")
    return Decoded(volume, outcome)


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
