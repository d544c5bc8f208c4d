"""Masks and tables of metrics are written whole or not at all, and the reason of a failure is told as it is."""

import errno
import os
import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from monai.data import FolderLayout, MetaTensor, NibabelWriter
from monai.transforms import Compose, SaveImage
from test_bundle_runs import run, tiny_network

from monai_cl import bundles, weights
from monai_cl._endings import in_words
from monai_cl._locks import claim_file, release
from monai_cl.engine import SaveMetrics
from monai_cl.transforms import SaveMask, SaveMaskd

AFFINE = torch.tensor([[-1.5, 0.2, 0, 30], [0.2, 1.5, 0, -20], [0, 0, 3, 7], [0, 0, 0, 1]], dtype=torch.float64)


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """Let no file grow beyond ``size`` bytes, as on a disk that is full in mid-write."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def mask(seed: int) -> MetaTensor:
    values = np.random.default_rng(seed).integers(0, 3, (1, 40, 38, 36))
    return MetaTensor(torch.from_numpy(values), affine=AFFINE, meta={"filename_or_obj": "scan.nii.gz"})


def test_a_mask_has_the_bytes_that_monai_writes(tmp_path: Path) -> None:
    SaveImage(tmp_path / "monai", "seg", output_dtype=np.uint8, separate_folder=False, print_log=False)(mask(0))
    item = SaveMaskd("pred", FolderLayout(tmp_path / "ours", "seg", ".nii.gz", makedirs=True))({"pred": mask(0)})
    assert torch.equal(item["pred"], mask(0))
    assert (tmp_path / "ours/scan_seg.nii.gz").read_bytes() == (tmp_path / "monai/scan_seg.nii.gz").read_bytes()


def test_a_disk_that_fills_leaves_the_mask_of_before_and_is_told_as_such(tmp_path: Path) -> None:
    save = SaveMask(FolderLayout(tmp_path, "seg", ".nii.gz", makedirs=True))
    save(mask(0))
    (file,) = tmp_path.iterdir()
    before = file.read_bytes()
    with no_file_above(4096), pytest.raises(OSError, match="File too large") as caught:
        save(mask(1))
    assert in_words(caught.value).startswith(f"no file of {tmp_path} may grow further; nothing is half written")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == {file: before}


def test_a_mask_without_its_scan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"a mask must be a MetaTensor, .* got Tensor"):
        SaveMask(FolderLayout(tmp_path))(torch.zeros(1, 2, 2, 2))


@pytest.mark.parametrize("name", bundles.names())
def test_no_step_of_a_bundle_writes_in_place(name: str) -> None:
    configs = [path.read_text(encoding="utf-8") for path in (bundles.path(name) / "configs").glob("*.yaml")]
    assert not [
        text for text in configs if re.search(r"_target_: (\S+\.)?(SaveImage|MetricsSaver|CheckpointSaver)", text)
    ]


def test_inference_on_a_full_disk_says_so_and_leaves_no_part_of_a_mask(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = NibabelWriter.write

    def full(writer: NibabelWriter, *args: object, **kwargs: object) -> None:
        with no_file_above(40):
            write(writer, *args, **kwargs)

    monkeypatch.setattr(NibabelWriter, "write", full)
    root = bundles.copy("volume_contrast", tmp_path / "bundle")
    weights.save_network(tiny_network(root, study), root / "models/model.pt")
    out = tmp_path / "masks"
    with pytest.raises(RuntimeError, match="Failed to evaluate") as caught:
        run(root, "inference", study, output_dir=str(out))
    assert bundles._reason(caught.value).startswith(f"no file of {out}")
    assert "make room and give the same command again" in bundles._reason(caught.value)
    bundles.release()
    assert [path for path in out.rglob("*") if path.is_file()] == []


def test_a_mask_where_nothing_may_be_written_is_told_in_words(tmp_path: Path) -> None:
    (tmp_path / "scan_seg.nii.gz").mkdir()
    save = Compose([SaveMaskd("pred", FolderLayout(tmp_path, "seg", ".nii.gz", makedirs=True))])
    with pytest.raises(RuntimeError, match="applying transform") as caught:
        save({"pred": mask(0)})
    assert bundles._reason(caught.value).startswith(f"{tmp_path}/scan_seg.nii.gz is a folder, where a file is needed")


def test_tables_of_metrics_are_those_of_before_when_the_disk_fills(tmp_path: Path) -> None:
    saver = SaveMetrics(str(tmp_path), metrics="*", metric_details="*", summary_ops="*", batch_transform=list)

    def write(value: float) -> dict[str, bytes]:
        details = {"dice": torch.full((400, 2), value)}
        saver(SimpleNamespace(state=SimpleNamespace(metrics={"dice": value}, metric_details=details)))
        return {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    before = write(0.25)
    assert sorted(before) == ["dice_raw.csv", "dice_summary.csv", "metrics.csv"]
    with no_file_above(1000), pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
        write(0.75)
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert sorted(after) == sorted(before)
    assert after["dice_raw.csv"] == before["dice_raw.csv"]


def test_a_bundle_that_does_not_fit_is_told_and_nothing_of_it_stays(tmp_path: Path) -> None:
    with no_file_above(2000), pytest.raises(OSError, match=os.strerror(errno.EFBIG)) as caught:
        bundles.copy("volume_contrast", tmp_path / "mine")
    assert in_words(caught.value).startswith(f"no file of {tmp_path} may grow further; nothing is half written")
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_does_not_fit_leaves_no_file(tmp_path: Path) -> None:
    with no_file_above(0), pytest.raises(OSError, match=os.strerror(errno.EFBIG)) as caught:
        claim_file(tmp_path / "page.html")
    assert in_words(caught.value).startswith(f"no file of {tmp_path} may grow further; nothing is half written")
    assert list(tmp_path.iterdir()) == []
    release(claim_file(tmp_path / "page.html"))
