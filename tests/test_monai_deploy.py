"""What MONAI Deploy asks of a bundle: its calls in this process, and the app of the tutorial in a Python of its own."""

import os
import subprocess
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from bundle_gate import network
from conftest import ROOT, write_volume
from dicom_series import write_series
from monai.bundle import ConfigParser
from monai.data import MetaTensor

from monai_cl import bundles, weights

PYTHON = os.environ.get("MONAI_DEPLOY_PYTHON")


def parsed(name: str) -> ConfigParser:
    """``inference.yaml`` as the operator reads it, with a window that is quick on a CPU."""
    parser = ConfigParser()
    parser.read_config([bundles.path(name) / "configs" / "inference.yaml"])
    window = [32, 32] if len(parser["roi_size"]) == 2 else [16] * 3
    parser.update({"roi_size": window, "recipe": "body_mr", "recipe_options": {"spacing": 2.0}})
    parser.parse()
    return parser


def segment(parser: ConfigParser, item: dict[str, Any], net: torch.nn.Module) -> MetaTensor:
    """Call what the operator calls, in its order; transforms whose names begin with LoadImage or SaveImage go."""
    before, after = (parser.get_parsed_content(key) for key in ("preprocessing", "postprocessing"))
    for chain in (before, after):
        chain.transforms = tuple(t for t in chain.transforms if "Image" not in type(t).__name__)
    with torch.no_grad():
        item = before(item)
        outputs = parser.get_parsed_content("inferer")(inputs=item["image"][None], network=net)
        found: MetaTensor = after({"pred": outputs[0], **item})["pred"]
    return found


@pytest.mark.parametrize("name", bundles.names())
def test_a_volume_that_was_read_elsewhere_gets_the_mask_of_its_file(name: str, tmp_path: Path) -> None:
    write_volume(tmp_path / "scan.nii.gz", 0)
    image = nib.load(tmp_path / "scan.nii.gz")
    meta = {"original_affine": image.affine, "original_channel_dim": "no_channel", "space": "RAS", "PatientID": 7}
    volume = MetaTensor(torch.as_tensor(image.get_fdata()), affine=torch.as_tensor(image.affine), meta=meta)
    torch.manual_seed(0)
    net = parsed(name).get_parsed_content("network_def").eval()
    handed = segment(parsed(name), {"image": volume}, net)
    read = segment(parsed(name), {"image": str(tmp_path / "scan.nii.gz")}, net)
    assert tuple(handed.shape) == (1, *image.shape)
    assert torch.equal(handed.as_tensor(), read.as_tensor())


@pytest.mark.skipif(not PYTHON, reason="needs MONAI_DEPLOY_PYTHON, a Python with monai-deploy-app-sdk 4 and highdicom")
@pytest.mark.timeout(1800)
@pytest.mark.filterwarnings("ignore")
def test_the_application_reads_a_series_and_writes_a_seg_beside_it(tmp_path: Path) -> None:
    whole = dict.fromkeys(("PatientSex", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"), "")
    whole["FrameOfReferenceUID"] = "1.2.826.0.1.3680043.8.498.1"
    files = write_series(tmp_path / "series", Columns=24, Rows=20, **whole)  # a SEG repeats what the study says
    root = bundles.copy("volume_contrast", tmp_path / "bundle")
    torch.manual_seed(0)
    weights.save_network(network(root), root / "models" / "model.pt")
    done = subprocess.run(
        [
            str(PYTHON), str(ROOT / "tutorials" / "deploy" / "app.py"), "--input", str(tmp_path / "series"), "--output",
            str(tmp_path / "seg"), "--model", str(root),
        ],
        capture_output=True, text=True, cwd=tmp_path, timeout=1700,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    (written,) = (tmp_path / "seg").glob("*.dcm")
    seg, source = pydicom.dcmread(written), pydicom.dcmread(files[0])
    assert seg.Modality == "SEG"
    assert (seg.StudyInstanceUID, seg.FrameOfReferenceUID) == (source.StudyInstanceUID, source.FrameOfReferenceUID)
    assert (seg.Rows, seg.Columns) == (source.Rows, source.Columns)
    referenced = seg.ReferencedSeriesSequence[0]
    assert referenced.SeriesInstanceUID == source.SeriesInstanceUID
    labels = [segment.SegmentLabel for segment in seg.SegmentSequence]
    assert labels == ["class 1", "class 2"]
    places = {tuple(f.PlanePositionSequence[0].ImagePositionPatient) for f in seg.PerFrameFunctionalGroupsSequence}
    given = {tuple(pydicom.dcmread(file).ImagePositionPatient) for file in files}
    distance = [min(np.linalg.norm(np.subtract(a, b)) for b in given) for a in places]
    assert max(distance) < 0.01  # mm
