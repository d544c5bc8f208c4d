"""The same of inputs that a script outside of this folder makes, where there is one."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cases.steps import refusal
from cases.test_intake import kept, reasons
from monai_cl import bundles
from monai_cl.data import scan

SCRIPT = Path(__file__).parents[3] / "shared" / "cases" / "make.py"
pytestmark = pytest.mark.skipif(not SCRIPT.is_file(), reason=f"needs {SCRIPT.name} beside the checkout")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    subprocess.run([sys.executable, str(SCRIPT), str(folder)], check=True, capture_output=True)
    return folder


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("label_nan", "NaN|finite"),
        ("label_mirrored", r"\d mm"),
        ("label_moved", r"\d mm"),
        ("label_255", "255.*ignore_index"),
        ("label_minus_1", "ignore_index"),
    ],
)
def test_labels_are_refused(name: str, answer: str, made: Path, tmp_path: Path) -> None:
    study = Path(shutil.copytree(made / name, tmp_path / "study"))
    content = json.loads((study / "datalist.json").read_text())
    for key, path in content["validation"][0].items():  # it lists one patient on both sides, which is refused before
        content["validation"][0][key] = path.replace("c_001", "c_002")
        shutil.copy(study / path, study / content["validation"][0][key])
    (study / "datalist.json").write_text(json.dumps(content))
    root = bundles.copy("volume_contrast", tmp_path / "bundle")
    assert re.search(answer, refusal(root, "train", study, pretrained="none"), re.DOTALL)


@pytest.mark.parametrize("name", ["modality_lut", "spacing_rounding", "secondary_capture_with_geometry"])
def test_series_are_kept(name: str, made: Path, tmp_path: Path) -> None:
    result = scan(made / name, tmp_path / "s.json", keep_derived=True)
    assert len(kept(result)) == 1, reasons(result)


@pytest.mark.timeout(600)
def test_headers_are_counted(made: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing usable"):
        scan(made / "headers", tmp_path / "s.json", pictures=True, hide_names=False)
    named = (tmp_path / "s.left_out.csv").read_text()
    for path in (made / "headers").iterdir():
        assert path.name in named, path.name


def test_a_file_outside_of_the_folder_is_told_in_whole_words(made: Path, tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    shutil.copy(made / "headers/outside.mhd", tmp_path / "scans")
    with pytest.raises(ValueError, match="nothing usable"):
        scan(tmp_path / "scans", tmp_path / "s.json")
    assert "a file with its voxels that lies outside of its own folder" in (tmp_path / "s.left_out.csv").read_text()


def test_flipped_bits_are_left_out(made: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing usable"):
        scan(made / "bit_flips", tmp_path / "s.json", pictures=True)


def test_weights_without_numbers_are_refused(made: Path, tmp_path: Path) -> None:
    root = bundles.copy("volume_contrast", tmp_path / "bundle")
    said = refusal(root, "inference", made / "2024", dataset_dir=str(made / "2024"), model=str(made / "nan_weights.pt"))
    assert "up.weight" in said
