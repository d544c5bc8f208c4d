"""A real server of MONAI Label on loopback segments scans and trains on labels over HTTP (``label_server.py``)."""

import json
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import orthanc
import pytest
import requests
from conftest import write_volume
from dicom_series import write_series
from label_server import NAME, PYTHON, SECONDS, SEG_TOOL, SMALL, WHY_NOT, segmented, serving

from monai_cl.io.pacs.push import WebStore, push
from monai_cl.io.pacs.web import PASSWORD, USER, WebServer
from monai_cl.transforms import LoadVolume

SCANS = ("scan", "second", "third", "unlabelled")

pytestmark = [pytest.mark.skipif(not PYTHON, reason=WHY_NOT), pytest.mark.timeout(2 * SECONDS)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a server with four scans in a folder."""
    folder = tmp_path_factory.mktemp("label")
    for number, scan in enumerate(SCANS):
        write_volume(folder / "studies" / f"{scan}.nii.gz", number)
    with serving(folder, str(folder / "studies"), [NAME, SMALL]) as address:
        yield address


def test_it_offers_the_bundle_with_its_classes_and_options(server: str) -> None:
    with urllib.request.urlopen(f"{server}/info/", timeout=SECONDS) as answer:
        info = json.load(answer)
    model = info["models"][NAME]
    assert model["labels"] == {"class 1": 1, "class 2": 2}
    assert {"overlap", "sw_batch_size", "largest_alone"} <= set(model["config"])
    assert NAME in info["trainers"]


def test_a_segmentation_over_http_lies_on_the_grid_of_the_scan(server: str, tmp_path: Path) -> None:
    mask = segmented(server, NAME, "scan", tmp_path)
    write_volume(tmp_path / "scan.nii.gz", 0)  # the one that the server has
    scan = nib.load(tmp_path / "scan.nii.gz")
    assert mask.shape == scan.shape
    np.testing.assert_allclose(mask.affine, scan.affine, atol=1e-4)
    labels = set(np.unique(np.asarray(mask.dataobj)))
    assert labels <= {0, 1, 2}
    assert len(labels) > 1  # random weights give more than one class


def give_label(server: str, scan: str, folder: Path) -> None:
    """Send the mask of a scan, as a client does when an annotator has finished."""
    path = folder / f"{scan}.nii.gz"
    write_volume(path, SCANS.index(scan), label=True)
    with path.open("rb") as stream:
        answer = requests.put(
            f"{server}/datastore/label",
            params={"image": scan, "tag": "final"},
            files={"label": stream},
            timeout=SECONDS,
        )
    answer.raise_for_status()


def trained(server: str, **request: Any) -> dict[str, Any]:
    """Ask for training over HTTP and wait for its end; gives the server's account of it."""
    requests.post(f"{server}/train/{SMALL}", json={"device": "cpu", **request}, timeout=SECONDS).raise_for_status()
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        task: dict[str, Any] = requests.get(f"{server}/train/", timeout=SECONDS).json()
        if task["status"] not in ("SUBMITTED", "RUNNING"):
            return task
        time.sleep(1)
    pytest.fail("the training did not end")


def overlap(mask: nib.Nifti1Image, number: int, folder: Path) -> float:
    """Dice of foreground with the true mask of a phantom."""
    write_volume(folder / "truth.nii.gz", number, label=True)
    truth, got = (np.asarray(one.dataobj) > 0 for one in (nib.load(folder / "truth.nii.gz"), mask))
    return float(2 * (truth & got).sum() / (truth.sum() + got.sum()))


@pytest.mark.slow
def test_training_over_http_on_two_labels_then_three_finds_the_blob(server: str, tmp_path: Path) -> None:
    before = overlap(segmented(server, SMALL, "unlabelled", tmp_path), SCANS.index("unlabelled"), tmp_path)
    for scan in ("scan", "second"):
        give_label(server, scan, tmp_path)
    first = trained(server, max_epochs=3, val_split=0)
    assert first["status"] == "DONE", "\n".join(first["details"])
    after = overlap(segmented(server, SMALL, "unlabelled", tmp_path), SCANS.index("unlabelled"), tmp_path)
    assert after > max(before, 0.6)
    give_label(server, "third", tmp_path)
    second = trained(server, max_epochs=1, val_split=0.34)  # a third of three: one to validate on
    assert second["status"] == "DONE", "\n".join(second["details"])
    again = overlap(segmented(server, SMALL, "unlabelled", tmp_path), SCANS.index("unlabelled"), tmp_path)
    assert again > 0.6  # it went on from what it had learned


# --- scans of a DICOMweb server


def corners(shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    """World coordinates of the corner voxels, in an order that flips and permutations of axes leave alone."""
    ends = np.array([[x, y, z, 1] for x in (0, shape[0] - 1) for y in (0, shape[1] - 1) for z in (0, shape[2] - 1)])
    found = (ends @ np.asarray(affine).T)[:, :3].round(2)
    return found[np.lexsort(found.T)]


@pytest.mark.slow
@pytest.mark.skipif(not orthanc.installed(), reason=orthanc.WHY_NOT)
@pytest.mark.skipif(not SEG_TOOL, reason="needs dcmqi beside monailabel, which writes its DICOM SEG")
def test_a_series_of_a_dicomweb_server_is_segmented_and_its_label_goes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(USER, orthanc.USER)
    monkeypatch.setenv(PASSWORD, orthanc.PASSWORD)
    series = "1.2.3.1"
    write_series(tmp_path / "t1", series=series, StudyInstanceUID="1.2.3", FrameOfReferenceUID="1.2.9")
    settings = {
        "MONAI_LABEL_DICOMWEB_USERNAME": orthanc.USER, "MONAI_LABEL_DICOMWEB_PASSWORD": orthanc.PASSWORD,
        "MONAI_LABEL_DICOMWEB_CACHE_PATH": str(tmp_path / "cache"),
        "MONAI_LABEL_DICOMWEB_SEARCH_FILTER": '{"Modality": "MR"}',
    }  # fmt: skip
    with orthanc.running(tmp_path / "orthanc") as pacs:
        assert push(WebStore(WebServer(pacs.url)), [tmp_path / "t1"]).stored == 6
        with serving(tmp_path / "label", pacs.url, [SMALL], **settings) as address:
            mask = segmented(address, SMALL, series, tmp_path)
            volume = LoadVolume()(tmp_path / "t1")
            np.testing.assert_allclose(
                corners(mask.shape, mask.affine), corners(volume.shape[1:], volume.affine.numpy()), atol=0.02
            )
            labels = np.unique(np.asarray(mask.dataobj))
            assert set(labels) <= {0, 1, 2}
            with (tmp_path / f"{series}_mask.nii.gz").open("rb") as stream:
                answer = requests.put(
                    f"{address}/datastore/label", params={"image": series, "tag": "final"}, files={"label": stream},
                    data={"params": json.dumps({"label_info": [{"name": "class 1"}, {"name": "class 2"}]})},
                    timeout=SECONDS,
                )  # fmt: skip
            answer.raise_for_status()
        listed = {one["SeriesInstanceUID"]: one["Modality"] for one in WebServer(pacs.url).series("1.2.3", {})}
    assert sorted(listed.values()) == ["MR", "SEG"]
