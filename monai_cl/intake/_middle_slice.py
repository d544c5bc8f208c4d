"""The middle slice of a kept volume: its picture, and whether its values are those of its modality."""

import io
import math
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from monai_cl._cores import threads as allowed_threads
from monai_cl.datalist import first_image
from monai_cl.intake._decoder_pool import DecoderPool
from monai_cl.intake._findings import Findings, Item
from monai_cl.io.dicom import is_dicom, read_slice_headers, stack
from monai_cl.io.dicom.decoding import DARKER_THAN_AIR, IN_PROCESS, Decoder, decode
from monai_cl.io.itk import read_itk, read_itk_header
from monai_cl.io.nifti import closing_stream, open_nifti
from monai_cl.io.streams import InflatedFile, read_exactly
from monai_cl.io.suffixes import is_itk, is_nifti
from monai_cl.privacy.quoting import Quoting

Sides = tuple[float, float]
THUMBNAIL = 96  # pixels of the longer side
_SOFT_TISSUE = (-160.0, 240.0)  # HU
_AIR = -200.0  # HU: every slice of a body or a phantom in air reaches below
NOT_HOUNSFIELD = "Modality is CT, but no voxel of the middle slice is as dark as air: not in Hounsfield units, or no CT"
NOT_MR = "Modality is MR, but the middle slice has the values of CT"
NOT_FINITE = "the middle slice holds values that are not finite, which recipes refuse: set them to the value of air"
PADDING_KEPT = (
    "the padding value of the header lies among the other values of the middle slice: voxels that hold it stay as they "
    "are"
)
LIFTED = "CT with values far darker than air, as outside of the scanner's circle: they become air (-1024 HU)"
DARK = "CT with values far darker than air, as outside of the scanner's circle: recipes for CT clip them"
WRAPPED = "CT with values above 30,710 HU: signed values with an unsigned header, which training leaves out"
UNIFORM = "the middle slice is all one value"
MASK_LIKE = "few whole values as in a label map: perhaps a mask, not an image"
_MOST = 1024  # pixels along an axis
_BLOCK = 1 << 22  # bytes


@dataclass(frozen=True)
class Look:
    """A middle slice.

    Args:
        png: Its picture, the longer side at most :data:`THUMBNAIL` pixels, in the shape it has in mm.
        remark: Fault of its values, or nothing.
    """

    png: bytes
    remark: str = ""


def look_at(folder: Path, findings: Findings, *, workers: int | None, console: Console | None) -> dict[str, Look]:
    """Look at the middle slice of each item; remarks become notes.

    A slice that cannot be decoded takes its volume out of the datalist.

    Args:
        folder: Folder that paths are relative to.
        findings: Items; receives notes and what turns out to be unreadable.
        workers: Number of threads.
        console: Where to show progress.

    Returns:
        By the path of the image, for a list that of its first file.
    """
    items = [item for section in findings.sections.values() for item in section]
    threads = workers or allowed_threads()
    with (
        warnings.catch_warnings(),
        DecoderPool(min(threads, allowed_threads())) as decoder,
        ThreadPoolExecutor(threads) as pool,
    ):
        warnings.simplefilter("ignore")
        seen = track(
            pool.map(lambda item: _look(folder, item, decoder), items),
            description="looking at middle slices",
            total=len(items),
            console=console,
            transient=True,
            disable=console is None,
        )
        looks = {id(item): look for item, look in zip(items, seen, strict=True)}
    for section in findings.sections.values():
        for item in [item for item in section if looks[id(item)] is None]:
            section.remove(item)
            findings.leave_out(
                [first_image(item["image"])],
                "undecodable pixel data",
                Quoting("the middle slice cannot be decoded; copy the file again"),
            )
    result = {}
    for item in items:
        if (look := looks[id(item)]) is not None:
            result[first_image(item["image"])] = look
            if look.remark:
                findings.note(look.remark, first_image(item["image"]))
    return result


def _look(folder: Path, item: Item, decoder: Decoder) -> Look | None:
    try:
        plane, sides, note = _middle_slice(folder, item, decoder)
    except Exception:  # whatever a reader may throw at a broken file; its text may quote a header
        return None
    modality = str(item.get("modality", ""))
    fault = note if note == WRAPPED else _remark(plane, modality) or (note if note == PADDING_KEPT else "")
    window = _SOFT_TISSUE if modality == "CT" and not fault else None
    dark = DARK if modality == "CT" and np.nanmin(plane) < DARKER_THAN_AIR else ""
    return Look(_png(plane, sides, window), fault or note or dark)


def middle_slice(folder: Path, item: Item) -> tuple[NDArray[np.float32], tuple[float, float]]:
    """The middle slice along the last axis ``(x, y)``, turned to RAS, and its pixel sides in mm.

    Of a slice of more than 1024 pixels along an axis every second, third or further one is taken.
    """
    return _middle_slice(folder, item, IN_PROCESS)[:2]


def _middle_slice(folder: Path, item: Item, decoder: Decoder) -> tuple[NDArray[np.float32], Sides, str]:
    first = folder / first_image(item["image"])
    if is_nifti(first):
        return *_of_nifti(first), ""
    if is_itk(first):
        return *_of_itk(first), ""
    return _of_dicom(folder, item["image"], decoder)


def _of_nifti(path: Path) -> tuple[NDArray[np.float32], tuple[float, float]]:
    image = open_nifti(path)
    shape, voxels = image.shape[:3], image.dataobj
    with closing_stream(image), open(path, "rb") as file:
        stream = image.file_map["image"].fileobj or file
        plane, steps = middle_plane(stream, int(voxels.offset), shape, voxels.dtype)
    values = plane * float(voxels.slope) + float(voxels.inter)
    return _upright(values, np.asarray(image.affine) @ np.diag([*steps, 1, 1]))


def _of_itk(path: Path) -> tuple[NDArray[np.float32], Sides]:
    volume = read_itk_header(path, to_the_end=False)
    with volume.plain() as result:
        if result is not None:
            plane, steps = middle_plane(*result, volume.shape, volume.dtype)
            return _upright(plane, volume.affine @ np.diag([*steps, 1, 1]))
    values, affine = read_itk(path)
    return _upright(values[0][..., values.shape[-1] // 2], affine)


def _of_dicom(folder: Path, image: str | list[str], decoder: Decoder) -> tuple[NDArray[np.float32], Sides, str]:
    """Middle slice or frame of a series, with a note on its padding; nothing else is decoded."""
    paths = [folder / path for path in image] if isinstance(image, list) else _files_of(folder / image)
    headers = [header for path in paths for header in read_slice_headers(path) if header.rows and header.columns]
    ordered, affine = stack(headers)
    decoded = decode([ordered[len(ordered) // 2]], decoder)
    note = PADDING_KEPT if decoded.padding == "among other values" else LIFTED if decoded.lifted else ""
    note = WRAPPED if decoded.wrapped else note
    return *_upright(decoded.values[0, :, :, 0], affine), note


def _files_of(place: Path) -> list[Path]:
    if place.is_file():
        return [place]
    return [path for path in sorted(place.iterdir()) if path.is_file() and path.name[0] != "." and is_dicom(path)]


def _upright(plane: NDArray[Any], affine: NDArray[np.float64]) -> tuple[NDArray[np.float32], tuple[float, float]]:
    """Flip and transpose so that the axes run as near to right and anterior (or superior) as they come."""
    first, second = affine[:3, 0], affine[:3, 1]
    sides = float(np.linalg.norm(first)), float(np.linalg.norm(second))
    if np.abs(first).argmax() > np.abs(second).argmax():
        plane, first, second, sides = plane.T, second, first, (sides[1], sides[0])
    if first[np.abs(first).argmax()] < 0:
        plane = plane[::-1]
    if second[np.abs(second).argmax()] < 0:
        plane = plane[:, ::-1]
    return np.ascontiguousarray(plane, dtype=np.float32), sides


def _remark(plane: NDArray[np.float32], modality: str) -> str:
    finite = plane[np.isfinite(plane)]
    if finite.size < plane.size:
        return NOT_FINITE
    if not finite.size or finite.min() == finite.max():
        return UNIFORM
    if modality == "CT" and finite.min() > _AIR:
        return NOT_HOUNSFIELD
    if modality == "MR" and -1100 < finite.min() < -900 and np.median(finite) < 300:
        return NOT_MR
    values = np.unique(finite[:: max(1, finite.size // 20_000)])
    if values.size <= 8 and (values == np.round(values)).all() and values.min() >= 0 and values.max() < 256:
        return MASK_LIKE
    return ""


def _png(plane: NDArray[np.float32], sides: Sequence[float], window: tuple[float, float] | None) -> bytes:
    """The patient's right at the left, anterior (or superior) at the top, grey over a window or percentiles 1 to 99."""
    from PIL import Image

    finite = np.nan_to_num(plane, nan=0.0, posinf=0.0, neginf=0.0)
    low, high = window or np.percentile(finite, (1, 99))
    if high <= low:
        low, high = float(finite.min()), float(finite.max()) + 1e-6
    grey = np.clip((finite - low) / (high - low) * 255, 0, 255).astype(np.uint8)[::-1, ::-1].T
    width, height = plane.shape[0] * sides[0], plane.shape[1] * sides[1]
    scale = THUMBNAIL / max(width, height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(grey)).resize(size, Image.Resampling.BILINEAR).save(stream, format="PNG")
    return stream.getvalue()


def middle_plane(
    stream: BinaryIO | InflatedFile, begin: int, shape: Sequence[int], dtype: np.dtype[np.generic]
) -> tuple[NDArray[np.float32], tuple[int, int]]:
    """The middle plane along the last of three axes, at most 1024 pixels along each of the first two.

    Args:
        stream: The file, the first axis fastest.
        begin: Where its voxels begin.
        shape: Voxels along the three axes.
        dtype: Their type, with its byte order.

    Returns:
        The plane ``(x, y)``, and which one of so many voxels it holds along x and y.

    Raises:
        UnusableImageError: If the file ends early.
    """
    width, height, depth = (int(size) for size in shape)
    across, down = math.ceil(width / _MOST), math.ceil(height / _MOST)
    place = begin + depth // 2 * width * height * dtype.itemsize
    if across == down == 1:
        stream.seek(place)
        whole = np.frombuffer(read_exactly(stream, width * height * dtype.itemsize), dtype=dtype)
        return whole.reshape(height, width).T.astype(np.float32), (1, 1)
    rows = [_row(stream, place + row * width * dtype.itemsize, width, across, dtype) for row in range(0, height, down)]
    return np.stack(rows, axis=1), (across, down)


def _row(
    stream: BinaryIO | InflatedFile, place: int, width: int, step: int, dtype: np.dtype[np.generic]
) -> NDArray[np.float32]:
    """Every ``step``-th value of a row, read block by block."""
    block = max(1, _BLOCK // (step * dtype.itemsize)) * step  # values: a multiple of the step
    parts = []
    stream.seek(place)
    for start in range(0, width, block):
        count = min(block, width - start)
        values = np.frombuffer(read_exactly(stream, count * dtype.itemsize), dtype=dtype)
        parts.append(values[::step].astype(np.float32))
    return np.concatenate(parts)
