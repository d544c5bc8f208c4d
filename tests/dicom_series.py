"""Writes small DICOM series with planted patient data for the tests."""

from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

NAME, PATIENT_ID, BIRTH, DATE = "Planted^Patient", "PID-77421", "19610417", "20190823"
OBLIQUE = (0.9848077530, 0.1736481777, 0.0, -0.1710100717, 0.9698463104, 0.1736481777)
SHAPE = (6, 5)  # columns, rows


def normal(orientation: tuple[float, ...] = OBLIQUE) -> np.ndarray:
    return np.cross(orientation[:3], orientation[3:])


def slice_dataset(index: int, series: str, *, step: float = 6.5, orientation=OBLIQUE, **tags: Any) -> Dataset:
    """One slice whose pixel value is ``100 * index + column + 10 * row``."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = MRImageStorage
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(entropy_srcs=[series, "study"]), series
    dataset.PatientName, dataset.PatientID = NAME, PATIENT_ID
    dataset.PatientBirthDate, dataset.StudyDate = BIRTH, DATE
    dataset.Modality, dataset.ImageType = "MR", ["ORIGINAL", "PRIMARY", "M"]
    dataset.Columns, dataset.Rows = SHAPE
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 1
    dataset.PixelSpacing, dataset.SliceThickness = [0.75, 0.5], 5.0
    dataset.ImageOrientationPatient = [f"{value:.10f}" for value in orientation]
    position = np.array([-40.0, 25.0, 10.0]) + index * step * normal(orientation)
    dataset.ImagePositionPatient = [f"{value:.8f}" for value in position]
    for name, value in tags.items():
        setattr(dataset, name, value)
    rows, columns = np.indices((dataset.Rows, dataset.Columns))
    dataset.PixelData = (100 * index + columns + 10 * rows).astype("<i2").tobytes()
    return dataset


def write_slice(path: Path, index: int, series: str, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    slice_dataset(index, series, **options).save_as(path, enforce_file_format=True)
    return path


def write_series(folder: Path, indices=range(6), series: str | None = None, **options: Any) -> list[Path]:
    """Slices under names that tell nothing of their order, without extension; returned in slice order."""
    series = series or generate_uid()
    return [write_slice(folder / f"{(37 * index + 11) % 101:03d}x", index, series, **options) for index in indices]


def multi_frame(path: Path, rescale, *, indices=None, kinds=None, series: str | None = None) -> Path:
    """One enhanced MR file: frames of ``slice_dataset``, each with slope and intercept of its own."""
    indices = list(range(len(rescale))) if indices is None else indices
    slices = [slice_dataset(index, series or generate_uid()) for index in indices]
    dataset = slice_dataset(0, series or slices[0].SeriesInstanceUID)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
    dataset.NumberOfFrames = len(slices)
    del dataset.ImagePositionPatient, dataset.ImageOrientationPatient, dataset.PixelSpacing
    shared = Dataset()
    measures, orientation = Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = slices[0].PixelSpacing, 5.0
    orientation.ImageOrientationPatient = slices[0].ImageOrientationPatient
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    dataset.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for number, (one, (slope, intercept)) in enumerate(zip(slices, rescale, strict=True)):
        group, position, values, kind = Dataset(), Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = one.ImagePositionPatient
        values.RescaleSlope, values.RescaleIntercept = slope, intercept
        kind.FrameType = ["ORIGINAL", "PRIMARY", "T1", kinds[number] if kinds else "M"]
        group.PlanePositionSequence, group.PixelValueTransformationSequence = [position], [values]
        group.MRImageFrameTypeSequence = [kind]
        groups.append(group)
    dataset.PerFrameFunctionalGroupsSequence = groups
    dataset.PixelData = b"".join(one.PixelData for one in slices)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path
