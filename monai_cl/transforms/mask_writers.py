"""Forms in which masks are written: NIfTI, DICOM SEG for the series that a mask is of, derivatives of BIDS."""

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from monai.config import DtypeLike
from monai.data import MetaTensor, NibabelWriter

from monai_cl._files import read_json
from monai_cl._words import suggestion
from monai_cl.io.dicom import is_dicom
from monai_cl.io.segmentation.codes import Segment, segments_of
from monai_cl.io.segmentation.seg_object import Algorithm, check_seg, save, segmentation_of
from monai_cl.privacy.hidden_paths import shown
from monai_cl.transforms.bids_masks import BidsMasks

logger = logging.getLogger(__name__)

FORMATS = ("nifti", "dicom_seg", "bids")
Classes = Sequence[str] | Mapping[int, str]


class MaskWriter(Protocol):
    """Form of the files of masks."""

    extension: str
    postfix: str

    def place(self, place: str) -> str:
        """Place of a mask below the output folder, by that of its scan."""

    def begin(self, items: Iterable[Mapping[str, Any]], output_dir: Path) -> None:
        """Check that masks of these items can be written, before the first is made."""

    def write(self, mask: MetaTensor, source: Any, path: Path) -> None:
        """Write a channel-first mask of a scan to a file."""


class NiftiMasks:
    """Masks as NIfTI files, on the grid in their metadata.

    Args:
        output_dtype: Type of the voxels.
    """

    extension, postfix = ".nii.gz", "seg"

    def __init__(self, output_dtype: DtypeLike = np.uint8) -> None:
        self.output_dtype = output_dtype

    def place(self, place: str) -> str:
        """Place of its scan."""
        return place

    def begin(self, items: Iterable[Mapping[str, Any]], output_dir: Path) -> None:
        """Accept every scan."""

    def write(self, mask: MetaTensor, source: Any, path: Path) -> None:
        """Write a mask."""
        writer = NibabelWriter(output_dtype=self.output_dtype)
        writer.set_data_array(mask)
        writer.set_metadata(mask.meta, resample=False)
        writer.write(path)


class DicomSegMasks:
    """Masks as DICOM Segmentation objects of their series: clinical objects, which name its patient.

    Args:
        segments: Codes of the classes above background.
        algorithm: Identification of the network.
        kind: ``binary`` or ``labelmap``.

    Raises:
        ModuleNotFoundError: If highdicom is not installed.
        ValueError: If the kind is unknown.
    """

    extension, postfix = ".dcm", "seg"

    def __init__(self, segments: Sequence[Segment], algorithm: Algorithm, *, kind: str = "binary") -> None:
        check_seg(segments, kind)
        self.segments, self.algorithm, self.kind = list(segments), algorithm, kind

    def place(self, place: str) -> str:
        """Place of its scan."""
        return place

    def begin(self, items: Iterable[Mapping[str, Any]], output_dir: Path) -> None:
        """Check that every scan is a DICOM series.

        Raises:
            ValueError: If some are not; counts and names them.
        """
        listed = list(items)
        others = [item for item in listed if not is_dicom(_first_file(item["image"]))]
        if others:
            names = ", ".join(str(item.get("case") or shown(item["image"])) for item in others[:5])
            raise ValueError(
                f"a DICOM SEG is made for a DICOM series, {len(others)} of {len(listed)} scans are none ({names}); "
                "give a folder of series alone, or write `--format nifti`"
            )
        logger.warning("DICOM SEG name the patient of their series; keep them where the series may be")

    def write(self, mask: MetaTensor, source: Any, path: Path) -> None:
        """Write a mask.

        Raises:
            ValueError: As :func:`~monai_cl.io.segmentation.seg_object.segmentation_of`.
        """
        voxels = mask.as_tensor().squeeze(0).cpu().numpy()
        affine = mask.affine.cpu().numpy().astype(np.float64)
        made = segmentation_of(voxels, affine, source, self.segments, algorithm=self.algorithm, kind=self.kind)
        save(made, path)


def mask_writer(
    format: str = "nifti",
    *,
    metadata: str | os.PathLike[str] | None = None,
    model: str | os.PathLike[str] | None = None,
    out_channels: int | None = None,
    classes: Classes | None = None,
    codes: str | os.PathLike[str] | None = None,
    segmentation: str = "binary",
) -> MaskWriter:
    """Form of the masks of an inference.

    Args:
        format: ``nifti``; ``bids``, which takes the metadata and the classes; or ``dicom_seg``, which takes all.
        metadata: ``metadata.json`` of the bundle: name, version, and ``channel_def`` of its first output.
        model: File of the weights, whose hash identifies the algorithm.
        out_channels: Classes with the background.
        classes: Names of the classes above background in order, or by label; ``channel_def`` when left out.
        codes: YAML file with codes of a user, beside those of the package.
        segmentation: ``binary`` or ``labelmap``.

    Raises:
        ModuleNotFoundError: If highdicom is not installed.
        ValueError: If the format is unknown, classes are not as many as the network has, or one has no code.
    """
    if format not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, got {format!r}{suggestion(format, FORMATS)}")
    if format == "nifti":
        return NiftiMasks()
    content = {} if metadata is None else _metadata(metadata)
    names = class_names_of(content, classes, out_channels=out_channels)
    if format == "bids":
        return BidsMasks(names, name=str(content.get("name", "network")), version=str(content.get("version", "0")))
    algorithm = Algorithm(
        str(content.get("name", "network")),
        str(content.get("version", "0")),
        {} if model is None or not os.path.isfile(model) else {"weights": f"sha256:{_hash(model)}"},
    )
    return DicomSegMasks(segments_of(names, codes=codes), algorithm, kind=segmentation)


def class_names_of(
    metadata: Mapping[str, Any], classes: Classes | None = None, *, out_channels: int | None = None
) -> dict[int, str]:
    """Names of classes by label: those given, else of ``channel_def`` of the first output of a bundle's metadata.

    Raises:
        ValueError: If none are given, or not as many as the network has.
    """
    if classes is None:
        outputs = list((metadata.get("network_data_format") or {}).get("outputs", {}).values())
        names = {
            int(label): str(name) for label, name in (outputs[0].get("channel_def", {}) if outputs else {}).items()
        }
        where = "channel_def of configs/metadata.json"
    else:
        pairs = classes.items() if isinstance(classes, Mapping) else enumerate(classes, 1)
        names, where = {int(label): str(name) for label, name in pairs}, "classes"
    above = {label: name for label, name in sorted(names.items()) if label > 0}
    if out_channels is not None and len(above) != out_channels - 1:
        raise ValueError(
            f"{where} must name the {out_channels - 1} classes above background, got {len(above)} "
            f"({', '.join(above.values())}); give `--classes \"['liver', 'tumor']\"`, one name for each"
        )
    return above


def _metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    try:
        content = read_json(Path(path))
    except (OSError, ValueError, json.JSONDecodeError) as error:
        raise ValueError(f"cannot read the metadata of the bundle, {path}: {error}") from None
    return content if isinstance(content, dict) else {}


def _first_file(image: Any) -> Path:
    """A file of a scan, to look at its kind."""
    path = Path(image[0] if isinstance(image, (list, tuple)) else image)
    if not path.is_dir():
        return path
    files = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
    return next((file for file in files if is_dicom(file)), files[0])


def _hash(file: str | os.PathLike[str]) -> str:
    total = hashlib.sha256()
    with open(file, "rb") as stream:
        while block := stream.read(1 << 20):
            total.update(block)
    return total.hexdigest()[:32]
