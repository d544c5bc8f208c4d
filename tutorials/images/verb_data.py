"""Data of the pictures of commands: synthetic scans and sequences, a training of a minute, and a PACS on loopback."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import yaml

TESTS = Path(__file__).parents[2] / "tests"
TINY = {  # half a minute on a core
    "recipe": "small_mr",
    "in_channels": 1,
    "out_channels": 4,
    "num_crops": 2,
    "batch_size": 2,
    "crop_size": [16, 16, 16],
    "max_epochs": 2,
    "epoch_length": 4,
    "roi_size": [24, 32, 24],
    "finetune_epochs": 2,
    "finetune_epoch_length": 4,
    "pretrained": "my/models/pretrained.pt",
}


def scans() -> None:
    """Write four abdominal CTs with their labels, two without, a copy, a damaged file and a text."""
    from monai_cl.phantoms import abdomen_ct_phantom
    from monai_cl.phantoms.volume import write_nifti

    root = Path("scans")
    for kind in ("images", "labels"):
        (root / kind).mkdir(parents=True)
    for number in range(6):
        volume = abdomen_ct_phantom(number, shape=(48, 40, 24), spacing=(8.0, 8.0, 10.0))
        write_nifti(root / f"images/ct_{number:03}.nii.gz", volume.image[0], volume.affine)
        if number < 4:
            write_nifti(root / f"labels/ct_{number:03}.nii.gz", volume.label[0], volume.affine)
    (root / "images/ct_900.nii.gz").write_bytes((root / "images/ct_000.nii.gz").read_bytes()[:4000])
    (root / "images/ct_901.nii.gz").write_bytes((root / "images/ct_005.nii.gz").read_bytes())
    (root / "images/notes.txt").write_text("no scan\n", "utf-8")


def public_hearts() -> None:
    """Write empty files under the names of the public hearts, of which a split reads the names alone."""
    from monai_cl.intake.protocols import published_split

    for case in (case for cases in published_split("acdc").values() for case in cases):
        for name in (f"{case}_frame{frame}{end}.nii.gz" for frame in ("01", "10") for end in ("", "_gt")):
            path = Path("ACDC") / case / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()


def sequences() -> None:
    """Write synthetic heads in three MR sequences, and the file that compares them by a network with random weights."""
    from monai_cl.phantoms import brain_maps
    from monai_cl.phantoms.volume import write_nifti
    from monai_cl.report.sequence_gallery import SEQUENCES

    shown = {"T1": "T1w MPRAGE", "T2": "T2w spin echo", "FLAIR": "FLAIR"}
    patients: dict[str, dict[str, str]] = {}
    for number in (1, 2, 3):
        subject = brain_maps(number, spacing=4.0)
        for short, sequence in shown.items():
            path = Path(f"heads/head_{number}_{short}.nii.gz")
            path.parent.mkdir(exist_ok=True)
            write_nifti(path, subject.image(SEQUENCES[sequence])[0], subject.affine)
            patients.setdefault(f"patient {number}", {})[short] = str(path)
    network = {"_target_": "SegResNet", "spatial_dims": 3, "in_channels": 1, "out_channels": 3, "init_filters": 8}
    settings = {"patients": patients, "spacing": 4.0, "points": 64, "network": network, "output": "invariance"}
    Path("invariance.yaml").write_text(yaml.safe_dump(settings), "utf-8")


def random_weights() -> None:
    """Write a network with random weights."""
    import torch
    from monai.networks.nets import SegResNet

    from monai_cl.weights import save_network

    torch.manual_seed(0)
    network = SegResNet(init_filters=8, blocks_down=[1, 2, 2, 4], blocks_up=[1, 1, 1], out_channels=2)
    save_network(network, "weights.pt", contract={"recipe": "small_mr", "recipe_options": {}})


def tiny_run() -> None:
    """Pretrain, fine-tune and evaluate for a few steps on synthetic brains, in the bundle ``my``."""
    import monai.bundle
    from monai.bundle import ConfigParser

    from monai_cl import bundles
    from monai_cl.phantoms import write_brain_dataset

    write_brain_dataset("brains", unlabelled=4, labelled=4, test=4, spacing=4.5)
    bundles.copy("volume_contrast", "my")
    given = {**TINY, "bundle_root": "my", "dataset_dir": "brains", "datalist": "brains/dataset.json"}
    for step in (["pretrain"], ["train"], ["train", "evaluate"]):
        files = [f"my/configs/{name}.yaml" for name in (*step, "small")]
        parser = ConfigParser()
        parser.read_config(files)
        known: dict[str, Any] = {name: value for name, value in given.items() if name in parser}
        if step == ["pretrain"]:
            known.pop("pretrained", None)
        monai.bundle.run(config_file=files, logging_file=False, **known)


@contextmanager
def archive() -> Iterator[str]:
    """Address of a real Orthanc on loopback with a synthetic study, whose masks lie in ``masks``; empty without one."""
    sys.path.append(str(TESTS))
    import orthanc
    from dicom_series import write_series

    from monai_cl.io.pacs.push import WebStore, push
    from monai_cl.io.pacs.web import PASSWORD, USER, WebServer
    from monai_cl.io.segmentation.codes import segments_of
    from monai_cl.io.segmentation.seg_object import Algorithm, save, segmentation_of
    from monai_cl.transforms import LoadVolume

    if not orthanc.installed():
        yield ""
        return
    uids = {"StudyInstanceUID": "1.2.3", "FrameOfReferenceUID": "1.2.9"}
    write_series(Path("study/t1"), series="1.2.3.1", SeriesDescription="T1", **uids)
    write_series(Path("study/t2"), series="1.2.3.2", SeriesDescription="T2", **uids)
    volume = LoadVolume()(Path("study/t1"))
    mask = segmentation_of(
        np.ones(volume.shape[1:], np.uint8),
        volume.affine.numpy(),
        Path("study/t1"),
        segments_of({1: "brain"}),
        algorithm=Algorithm("example", "1"),
    )
    Path("masks").mkdir()
    save(mask, Path("masks/mask_1.dcm"))
    os.environ |= {USER: orthanc.USER, PASSWORD: orthanc.PASSWORD}
    with orthanc.running(Path("orthanc").absolute()) as server:
        push(WebStore(WebServer(server.url)), [Path("study")])
        yield server.url
