"""Inference on DICOM as exported: the mask lies exactly on the scan."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from monai.bundle import run
from monai.networks.nets import SegResNet

from monai_cl import bundles, weights

SERIES = Path(__file__).parents[2] / "shared/data/dicom_brain/Study1/12-T1post-05670"
# one pass over the whole volume instead of many windows: the padding is undone with the rest
PADDED = "$monai.transforms.Compose([recipes.load(@recipe), monai.transforms.DivisiblePadd('image', 8)])"


def corner_in_mm(header: pydicom.Dataset, row: int, column: int) -> np.ndarray:
    """Centre of a pixel in RAS mm, by the standard's own formula (PS3.3 C.7.6.2.1.1)."""
    along_row, along_column = np.reshape(np.array(header.ImageOrientationPatient, float), (2, 3))
    per_row, per_column = map(float, header.PixelSpacing)
    lps = np.array(header.ImagePositionPatient, float) + along_row * per_column * column + along_column * per_row * row
    return lps * [-1, -1, 1]


@pytest.mark.skipif(not SERIES.is_dir(), reason=f"needs the DICOM series {SERIES.name} of the shared test data")
def test_a_mask_has_the_geometry_of_its_dicom_series(tmp_path: Path) -> None:
    bundle = bundles.copy("volume_contrast", tmp_path / "bundle")
    torch.manual_seed(0)
    weights.save_network(
        SegResNet(out_channels=3, init_filters=8, blocks_down=(1, 2, 2, 4)), bundle / "models/model.pt"
    )
    run(
        bundle_root=str(bundle),
        config_file=[str(bundle / "configs/inference.yaml"), str(bundle / "configs/small.yaml")],
        dataset_dir=str(SERIES),
        recipe="small_mr",
        inferer={"_target_": "SimpleInferer"},
        preprocessing=PADDED,
    )
    (file,) = (bundle / "runs/inference").rglob("*_seg.nii.gz")
    mask = nib.load(file)
    headers = [pydicom.dcmread(f, stop_before_pixels=True) for f in sorted(SERIES.glob("*.dcm"))]
    normal = np.cross(*np.reshape(np.array(headers[0].ImageOrientationPatient, float), (2, 3)))
    headers.sort(key=lambda h: float(np.dot(normal, h.ImagePositionPatient)))
    rows, columns = int(headers[0].Rows), int(headers[0].Columns)
    assert sorted(mask.shape) == sorted((rows, columns, len(headers)))
    expected = np.array([corner_in_mm(h, r, c) for h in headers for r in (0, rows - 1) for c in (0, columns - 1)])
    index = nib.affines.apply_affine(np.linalg.inv(mask.affine), expected)
    np.testing.assert_allclose(index, np.rint(index), atol=0.01)  # every corner is the centre of a voxel of the mask
    assert index.min() > -0.01
    assert bool((index.max(axis=0) < np.array(mask.shape) - 0.99).all())
    assert set(np.unique(np.asarray(mask.dataobj))) <= {0, 1, 2}
