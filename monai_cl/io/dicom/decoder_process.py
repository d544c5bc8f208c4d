"""Pixel data through libraries, some written in C: called in this process, or as a program of its own.

As a program it answers one request after the other, so that damaged data which ends a C library ends no more than this
process. It imports nothing of the package, which keeps its start short. A request is a line of JSON; an answer is one,
and the bytes of an array behind it.
"""

import json
import os
import sys
from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np

_MOST_MEMORY = 8 << 30  # address space
_DEFAULTS = {"PixelRepresentation": 0, "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2"}


def stored_frames(path: str, index: int | None = None, bits: Sequence[int] = (0, 0)) -> np.ndarray[Any, Any]:
    """Stored values by pydicom as ``(frames, rows, columns)``.

    Args:
        path: A DICOM file.
        index: Frame that is wanted; by default all.
        bits: Lowest and highest bit of a value; pydicom takes the lowest one for 0.

    Raises:
        Exception: Any error of pydicom and its decoders.
    """
    from pydicom import dcmread
    from pydicom.pixels import pixel_array

    options = {"bits_stored": bits[1] + 1} if bits[0] else {}
    try:
        pixels = pixel_array(path, index=index, **options)
    except (AttributeError, ValueError):  # not every file names its transfer syntax, or what one may guess
        dataset: Any = dcmread(path, force=True)
        if "TransferSyntaxUID" not in dataset.file_meta:
            dataset.file_meta.TransferSyntaxUID = f"1.2.840.10008.1.2{'' if dataset.original_encoding[0] else '.1'}"
        for name, value in {**_DEFAULTS, "BitsStored": dataset.get("BitsAllocated", 16)}.items():
            if dataset.get(name) in (None, ""):
                setattr(dataset, name, value)
        dataset.PhotometricInterpretation = str(dataset.PhotometricInterpretation).upper()
        pixels = pixel_array(dataset, index=index, **options)
    frames: np.ndarray[Any, Any] = pixels if pixels.ndim == 3 else pixels[np.newaxis]
    return frames >> bits[0] if bits[0] else frames


def rescaled_slice(path: str) -> np.ndarray[Any, Any]:
    """Decode a slice by SimpleITK as ``(1, rows, columns)`` in float32, with the rescale of the file applied.

    Raises:
        RuntimeError: If SimpleITK refuses the file.
    """
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetOutputPixelType(sitk.sitkFloat32)
    reader.SetFileName(path)
    plane: np.ndarray[Any, Any] = sitk.GetArrayFromImage(reader.Execute())
    return plane


def answer(request: dict[str, Any]) -> np.ndarray[Any, Any]:
    """The array that a request asks for."""
    if request["how"] == "slice":
        return rescaled_slice(request["path"])
    return stored_frames(request["path"], request["index"], request["bits"])


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until the last one."""
    import warnings

    warnings.simplefilter("ignore")
    for line in requests:
        try:
            array = np.ascontiguousarray(answer(json.loads(line)))
            head: dict[str, Any] = {"shape": array.shape, "dtype": array.dtype.str}
        except Exception as error:  # what a library finds wrong; its text may quote a header
            array, head = np.empty(0), {"error": type(error).__name__}
        answers.write(json.dumps(head).encode() + b"\n")
        answers.write(array.tobytes())
        answers.flush()


def _limit_memory() -> None:
    """Have an image that claims more than any has fail alone."""
    try:
        import resource
    except ImportError:  # Windows
        return
    limit, hard = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY and (hard == resource.RLIM_INFINITY or hard >= _MOST_MEMORY):
        resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, hard))


def main() -> None:
    """Serve over standard input and output; what libraries print goes nowhere."""
    sys.path.pop(0)  # the folder of this file, whose names could stand before those of libraries
    _limit_memory()
    with os.fdopen(os.dup(1), "wb") as answers:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
