"""Verbs that need neither torch nor MONAI start without them."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import write_volume
from dicom_series import write_series

from monai_cl.transforms.mask_files import MaskFiles

HEAVY = ("torch", "monai", "ignite", "sklearn", "matplotlib")
MOST_SECONDS = 0.5  # of processor time, for the imports of a scan


def loaded_by(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run code in a new process, which prints what of the heavy libraries it has loaded in the end."""
    code = f"import atexit, sys\natexit.register(lambda: print(sorted({set(HEAVY)} & set(sys.modules))))\n{code}"
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)


def verb(*arguments: str | Path) -> str:
    """Output of a verb, the libraries it has loaded as its last line."""
    done = loaded_by("from monai_cl.cli import main; main()", *map(str, arguments))
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "module",
    ["monai_cl.intake.scan", "monai_cl.data.intake.scan", "monai_cl.data", "monai_cl.privacy.lookup", "monai_cl.cli"],
)
def test_a_module_is_light(module: str) -> None:
    done = loaded_by(f"import {module}")
    assert done.stdout.splitlines() == ["[]"], done.stderr


def test_a_scan_is_imported_in_half_a_second_of_processor_time() -> None:
    code = "import time; start = time.process_time(); import monai_cl.intake.scan; print(time.process_time() - start)"
    taken = [float(subprocess.check_output([sys.executable, "-c", code], text=True)) for _ in range(3)]
    assert min(taken) <= MOST_SECONDS


@pytest.mark.parametrize("arguments", [["--help"], ["scan", "--help"], ["curve", "--help"], ["bundles"]])
def test_help_is_light(arguments: list[str]) -> None:
    assert verb(*arguments).splitlines()[-1] == "[]"


def test_whose_a_mask_is_needs_no_torch(tmp_path: Path) -> None:
    layout = MaskFiles([{"image": str(tmp_path / "scan.nii.gz"), "place": "sub-1/ct-01"}], tmp_path / "masks")
    mask = Path(layout.filename(tmp_path / "scan.nii.gz"))
    write_volume(mask, 0, label=True)
    lines = verb("whose", mask).splitlines()
    assert lines == [f"{mask}\t{tmp_path / 'scan.nii.gz'}", "[]"]


def test_a_scan_with_its_page_needs_no_torch(tmp_path: Path) -> None:
    write_series(tmp_path / "data/series", SeriesDescription="t2_flair", BodyPartExamined="HEAD")
    write_volume(tmp_path / "data/volume.nii.gz", 0)
    output = verb("scan", tmp_path / "data", "--out", tmp_path / "study.json")
    assert output.splitlines()[-1] == "[]"
    assert (tmp_path / "study.html").read_text(encoding="utf-8").count("data:image/png") == 2
