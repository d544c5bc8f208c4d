"""Makes studies, series and files with one fault each; all of it is made up."""

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from dicom_series import write_slice
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

SHAPE = (22, 26, 18)
AFFINE = np.array([[-1.25, 0, 0, 40], [0, 1.25, 0, -35], [0, 0, 2.0, 12], [0, 0, 0, 1.0]])
SLICES = 7


def classes() -> np.ndarray:
    """Two blocks in background."""
    found = np.zeros(SHAPE, np.uint8)
    found[3:11, 5:20, 4:13] = 1
    found[11:18, 5:20, 4:13] = 2
    return found


def intensities(seed: int = 0) -> np.ndarray:
    """Air, tissue and bone, with noise."""
    noise = np.random.default_rng(seed).normal(0, 15, SHAPE)
    return (noise + np.array([-950, 50, 300])[classes()]).astype(np.int16)


def labelled(root: Path, label: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    """A study of two patients with a datalist made by hand: the first has this label, the second a right one."""
    items = []
    for number, (mask, where) in enumerate([(label, affine), (classes(), AFFINE)]):
        item = {"image": f"imagesTr/c_{number}.nii.gz", "label": f"labelsTr/c_{number}.nii.gz"}
        for path in item.values():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(intensities(number), AFFINE), root / item["image"])
        nib.save(nib.Nifti1Image(mask, where), root / item["label"])
        items.append(item)
    names = {"0": "background", "1": "tissue", "2": "bone"}
    (root / "datalist.json").write_text(
        json.dumps({"labels": names, "training": items[:1], "validation": items[1:], "unlabelled": []})
    )
    return root


def float_label(one: float, two: float) -> np.ndarray:
    """Whole numbers as resampling leaves them."""
    return np.array([0, one, two], np.float32)[classes()]


def mirrored() -> np.ndarray:
    """The affine of a mask that was saved without its orientation."""
    return np.abs(np.diag(np.diag(AFFINE)))


def moved(millimetres: float) -> np.ndarray:
    """The affine of a mask that lies beside its image."""
    affine = AFFINE.copy()
    affine[1, 3] += millimetres
    return affine


def stored_the_other_way(axis: int) -> tuple[np.ndarray, np.ndarray]:
    """The same voxels at the same places, with one axis stored from its other end."""
    affine = AFFINE.copy()
    affine[:3, 3] += affine[:3, axis] * (SHAPE[axis] - 1)
    affine[:3, axis] *= -1
    return np.flip(classes(), axis).copy(), affine


def series(folder: Path, change: Callable[[Dataset, int], object] = lambda dataset, index: None, **tags: Any) -> Path:
    """A series of CT, each slice changed."""
    import pydicom

    for index in range(SLICES):
        given = {"Modality": "CT", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2", "ImageType": ["ORIGINAL", "PRIMARY"]}
        path = write_slice(folder / f"{index:02d}.dcm", index, "1.2.826.0.1.3680043.2.1", **{**given, **tags})
        dataset = pydicom.dcmread(path)
        dataset.FrameOfReferenceUID = "1.2.826.0.1.3680043.2.2"
        change(dataset, index)
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        dataset.save_as(path, enforce_file_format=True)
    return folder


def with_table(dataset: Dataset, _: int = 0) -> None:
    """A Modality LUT in place of slope and intercept: every stored value n stands for 3 n + 7."""
    for name in ("RescaleSlope", "RescaleIntercept"):
        if name in dataset:
            delattr(dataset, name)
    dataset.PixelRepresentation = 0
    item = Dataset()
    item.LUTDescriptor, item.ModalityLUTType = [1024, 0, 16], "US"
    item.add_new(0x00283006, "OW", (np.arange(1024) * 3 + 7).astype("<u2").tobytes())
    dataset.ModalityLUTSequence = Sequence([item])


def metaimage(dimensions: int, *, data: str = "LOCAL") -> bytes:
    """Header of a MetaImage file, and its voxels where they are in the same file."""
    lines = ("ObjectType = Image", f"NDims = {dimensions}", "DimSize = 5 4 3", "ElementType = MET_SHORT")
    header = "\n".join((*lines, "ElementSpacing = 1 1 2", f"ElementDataFile = {data}")) + "\n"
    return header.encode() + (bytes(120) if data == "LOCAL" else b"")


def hostile(folder: Path) -> Path:
    """Headers that claim too much, lead elsewhere or never end, beside one good volume."""
    folder.mkdir()
    nib.save(nib.Nifti1Image(intensities(), AFFINE), folder / "good.nii.gz")
    for dimensions in (57, -3, 0):
        (folder / f"dimensions_{dimensions}.mha").write_bytes(metaimage(dimensions))
    (folder.parent / "beside.raw").write_bytes(bytes(120))
    (folder / "outside.mhd").write_bytes(metaimage(3, data="../beside.raw"))
    (folder / "absolute.mhd").write_bytes(metaimage(3, data=str(folder.parent / "beside.raw")))
    os.mkfifo(folder / "pipe.nii.gz")
    os.mkfifo(folder / "pipe.mha")
    claim = bytearray(nib.Nifti1Image(np.zeros((3, 3, 3), np.int16), np.diag([0.1, 0.1, 0.1, 1])).to_bytes())
    claim[40:56] = np.array([3, 16000, 18000, 160, 1, 1, 1, 1], "<i2").tobytes()
    with open(folder / "sparse.nii", "wb") as file:
        file.write(claim[:352])
        file.truncate(352 + 2 * 16000 * 18000 * 160)
    (folder / "claims.nii").write_bytes(claim[:352])
    return folder


HOSTILE = (
    *("dimensions_57.mha", "dimensions_-3.mha", "dimensions_0.mha", "outside.mhd", "absolute.mhd"),
    *("pipe.nii.gz", "pipe.mha", "claims.nii"),
)


def flipped_bits(folder: Path, number: int) -> tuple[np.ndarray, list[Path]]:
    """Copies of one compressed volume with a bit changed each, and its true voxels."""
    folder.mkdir()
    image = nib.Nifti1Image(intensities(), AFFINE)
    whole = gzip.compress(image.to_bytes(), mtime=0)
    places = np.random.default_rng(0).integers(12 * 8, len(whole) * 8, number)
    paths = []
    for count, place in enumerate(places):
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << (place % 8)
        paths.append(folder / f"flip_{count:02d}.nii.gz")
        paths[-1].write_bytes(damaged)
    return intensities(), paths
