"""A study of quantitative maps: who is found, what all have, who is held out."""

import json
import logging
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from conftest import write_maps
from typer.testing import CliRunner

from monai_cl import cli
from monai_cl.data import common_maps, digest_items, find_maps, map_items, maps_by_name, names_of_maps, split_subjects
from monai_cl.evaluation._settings import _seen
from monai_cl.evaluation._steps import Step
from monai_cl.transforms import LoadMapsd

SUFFIXES = ("PDmap", "R1map", "R2starmap")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("maps")
    for number in range(12):
        write_maps(root, f"sub-{number:02d}", number, shape=(8, 9, 7))
    return root


def listed(*suffixes: str, case: str = "sub-01") -> dict[str, Any]:
    return {"image": [f"{case}_{suffix}.nii.gz" for suffix in suffixes], "subject": case, "case": case}


def test_a_folder_gives_an_item_a_subject(folder: Path) -> None:
    items = map_items(folder)
    assert [item["subject"] for item in items] == [f"sub-{n:02d}" for n in range(12)]
    assert [Path(path).name for path in items[0]["image"]] == [f"sub-00_{suffix}.nii.gz" for suffix in SUFFIXES]


def test_sessions_of_a_patient_are_one_subject(tmp_path: Path) -> None:
    for session in ("1", "2"):
        write_maps(tmp_path, f"sub-01_ses-{session}", 0, shape=(4, 4, 4))
    assert [(item["subject"], item["case"]) for item in map_items(tmp_path)] == [
        ("sub-01", "sub-01_ses-1"),
        ("sub-01", "sub-01_ses-2"),
    ]


def test_a_datalist_may_list_the_maps(folder: Path, tmp_path: Path) -> None:
    content = {"training": [{"image": [f"sub-03_{s}.nii.gz" for s in SUFFIXES], "subject": "x"}]}
    (tmp_path / "list.json").write_text(json.dumps(content))
    (item,) = map_items(folder, tmp_path / "list.json")
    assert item["subject"] == "x"
    assert Path(item["image"][1]) == folder / "sub-03_R1map.nii.gz"


def test_maps_in_common_are_in_the_order_of_the_simulation(caplog: pytest.LogCaptureFixture) -> None:
    items = [
        listed("R2starmap", "PDmap", "R1map", "MTsat", case="a"),
        listed("PDmap", "T1map", "R2starmap", case="b"),
        listed("PDmap", "T1map", "T2starmap", "MTsat", "TB1map", case="c"),
    ]
    with caplog.at_level(logging.WARNING):
        assert common_maps(items) == ("pd", "t1", "t2_star")
    assert "mtsat is left out: 1 of 3 subjects lack it" in caplog.text


def test_without_density_or_t1_nothing_can_be_simulated() -> None:
    with pytest.raises(ValueError, match=r"needs maps of proton density .* t1 is missing for 1 of 2, such as b"):
        common_maps([listed("PDmap", "R1map", case="a"), listed("PDmap", "R2starmap", case="b")])


def test_names_tell_the_maps_and_hmri_names_do_too() -> None:
    assert names_of_maps(["x_R2s.nii", "x_MT.nii", "x_PD.nii", "x_R1.nii"]) == ("pd", "t1", "t2_star", "mtsat")
    assert set(maps_by_name(["a_T1map.nii.gz"])) == {"T1map"}
    with pytest.raises(ValueError, match=r"scan\.nii must end on a BIDS suffix of \('T1map', .* or an hMRI name"):
        maps_by_name(["scan.nii"])
    with pytest.raises(ValueError, match=r"one file is needed for each kind of map, got a_T1map\.nii and b_T1map\.nii"):
        maps_by_name(["a_T1map.nii", "b_T1map.nii"])


def test_whole_patients_are_held_out(folder: Path) -> None:
    items = map_items(folder)
    split = split_subjects(items, count=8, seed=3)
    assert len(split["probe"]) == 1  # a tenth at most
    assert {i["subject"] for i in split["train"]} | {i["subject"] for i in split["probe"]} == {
        i["subject"] for i in items
    }
    assert not {i["subject"] for i in split["train"]} & {i["subject"] for i in split["probe"]}
    assert split == split_subjects(items[::-1], count=8, seed=3) | {"train": split["train"]}
    assert split_subjects(items, count=0)["train"] == items
    assert split_subjects(items[:5])["probe"] == []


def test_the_digest_is_of_names_not_places(folder: Path) -> None:
    items = map_items(folder)
    moved = [{**item, "image": [str(Path("elsewhere") / Path(p).name) for p in item["image"]]} for item in items]
    assert digest_items(items) == digest_items(moved[::-1])
    assert digest_items(items) != digest_items(items[1:])


def test_a_list_of_files_is_read_in_the_order_asked_for(folder: Path) -> None:
    item = LoadMapsd("image", ["pd", "t1", "t2_star"])(map_items(folder)[0])
    assert item["image"].shape == (3, 8, 9, 7)
    assert float(item["image"][1].max()) == pytest.approx(1 / (0.25 * 0.9), rel=0.05)  # R1 of fluid, inverted


def test_an_unreadable_map_is_named(folder: Path, tmp_path: Path) -> None:
    write_maps(tmp_path, "sub-01", 0)
    file = tmp_path / "sub-01_R1map.nii.gz"
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"cannot use .*sub-01_R1map\.nii\.gz: "):
        LoadMapsd("image")(map_items(tmp_path)[0])


def test_a_curve_knows_what_a_pretraining_reads(folder: Path, tmp_path: Path) -> None:
    from monai_cl import bundles

    step = Step.of(bundles.path("sequence_contrast"), ["pretrain"], ["small"])
    overrides = {"dataset_dir": str(folder), "datalist": None}
    assert _seen(step, overrides) == digest_items(map_items(folder))
    write_maps(tmp_path, "sub-99", 0, shape=(4, 4, 4))
    assert _seen(step, {**overrides, "dataset_dir": str(tmp_path)}) != _seen(step, overrides)


def test_the_command_line_writes_synthetic_subjects(tmp_path: Path) -> None:
    pytest.importorskip("nilearn")
    arguments = ["phantom", str(tmp_path / "maps"), "--subjects", "2", "--spacing", "12"]
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 0, result.output
    assert "wrote 2 subjects" in result.output
    assert "monai-cl bundles copy sequence_contrast my_bundle\n" in result.output
    found = find_maps(tmp_path / "maps")
    assert list(found) == ["sub-001", "sub-002"]
    assert common_maps(map_items(tmp_path / "maps")) == ("pd", "t1", "t2", "t2_star", "mtsat")
    assert np.asarray(nib.load(found["sub-001"]["T1map"]).dataobj).max() < 6  # s
