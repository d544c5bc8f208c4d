"""Names planted in files of maps come out nowhere: not in items, logs, errors, records or digests."""

import json
import logging
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from monai_cl.data import common_maps, digest_items, find_maps, load_maps, map_items, names_of_maps
from monai_cl.data.loading.faults import Faults
from monai_cl.privacy.hidden_paths import Finder, shown
from monai_cl.privacy.pseudonyms import key_path, read_key
from monai_cl.transforms import LoadMapsd, RandMRContrast

NAMES = ("Mueller", "Hans", "mueller", "19610417", "48213")
FOLDERS = ("Mueller_Hans/Results", "P48213/Results")
CASES = ("Mueller_Hans_19610417", "mueller-48213-0002")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Results of the hMRI toolbox for two people, under their names."""
    root = tmp_path / "maps"
    for place, case in zip(FOLDERS, CASES, strict=True):
        (root / place).mkdir(parents=True)
        for kind, value, unit in (("R1", 1.1, "s-1"), ("R2s_OLS", 20.0, "s-1"), ("PD", 70.0, "p.u.")):
            path = root / place / f"{case}_{kind}.nii"
            data = np.full((4, 5, 6), value, np.float32)
            nibabel.save(nibabel.Nifti1Image(data, np.eye(4)), path)
            path.with_suffix(".json").write_text(json.dumps({"history": {"output": {"units": [unit]}}}))
    return root


def assert_silent(*texts: Any) -> None:
    for text in map(str, texts):
        assert not [name for name in NAMES if name in text], text


def told(item: dict[str, Any]) -> dict[str, Any]:
    return {**item, "image": [shown(path) for path in item["image"]]}


def test_items_carry_keyed_pseudonyms(folder: Path) -> None:
    items = map_items(folder)
    assert_silent(*map(told, items))
    assert [item["case"] for item in items] == [read_key().subject(f"name:{case}") for case in CASES]
    assert len({item["subject"] for item in items}) == 2
    assert all(Path(path).is_file() for item in items for path in item["image"])
    assert names_of_maps(items[0]["image"]) == common_maps(items) == ("pd", "t1", "t2_star")
    assert map_items(folder) == items


def test_the_holder_of_the_key_finds_the_file_again(folder: Path) -> None:
    first = map_items(folder)[0]["image"][0]
    assert Finder(folder, read_key())(shown(first)) == Path(first).relative_to(folder).as_posix()


def test_records_and_errors_of_reading_are_silent(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    items = pickle.loads(pickle.dumps(map_items(folder)))  # as a worker gets them
    maps = LoadMapsd("image")(items[0])["image"]
    image = RandMRContrast(["t1w_spgr"], ["pd", "t1", "t2_star"])(maps)
    assert_silent(json.dumps(maps.meta["mr_maps"]), image.meta["mr_maps"], image.meta["mr_simulation"])
    assert_silent(json.dumps(load_maps({"R1": folder / FOLDERS[0] / f"{CASES[0]}_R1.nii"}).meta["mr_maps"]))
    file = Path(items[1]["image"][0])
    file.write_bytes(file.read_bytes()[:400])
    faults = Faults(total=2)
    with caplog.at_level(logging.WARNING):
        assert faults.prepare(items[1], LoadMapsd("image")) is None
    assert_silent(caplog.text, faults.found)
    assert items[1]["case"] in caplog.text


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:400])


def give_no_unit(file: Path) -> None:
    file.with_suffix(".json").write_text('{"Units": "furlong"}')


def give_a_name(file: Path) -> None:
    file.with_suffix(".json").write_text('{"Units": "Mueller 19610417"}')


def break_sidecar(file: Path) -> None:
    file.with_suffix(".json").write_text("{")


def contradict(file: Path) -> None:
    file.with_suffix(".json").write_text('{"Units": "1/ms"}')


def turn(file: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.ones((4, 5, 6), np.float32), np.diag([2.0, 2, 2, 1])), file)


@pytest.mark.parametrize("damage", [cut, give_no_unit, give_a_name, break_sidecar, contradict, turn])
def test_errors_about_a_folder_name_the_kind_and_nobody(folder: Path, damage: Callable[[Path], None]) -> None:
    damage(folder / FOLDERS[0] / f"{CASES[0]}_R1.nii")
    with pytest.raises(ValueError, match=r"hidden-[0-9a-f]{12}\.nii \(R1map\)") as caught:
        load_maps(folder / FOLDERS[0])
    assert_silent(caught.value)
    with pytest.raises(ValueError, match=r"hidden-[0-9a-f]{12}\.nii \(R1map\)") as caught:
        LoadMapsd("image")(map_items(folder)[0])
    assert_silent(caught.value)


def test_the_unit_of_proton_density_is_recorded_where_it_is_one(folder: Path) -> None:
    place, case = folder / FOLDERS[0], CASES[0]
    assert load_maps(place).meta["mr_maps"]["pd"]["units"] == "p.u."
    give_a_name(place / f"{case}_PD.nii")
    record = load_maps(place).meta["mr_maps"]
    assert record["pd"]["units"] == "a text that is no unit"
    assert_silent(json.dumps(record))


def test_errors_of_finding_are_silent(folder: Path) -> None:
    with pytest.raises(ValueError, match="a folder of one subject and session is needed") as caught:
        load_maps(folder)
    assert_silent(caught.value)
    (folder / FOLDERS[1] / f"{CASES[1]}_PD.nii").unlink()
    with pytest.raises(ValueError, match=r"pd is missing for 1 of 2, such as sub-[0-9a-f]{12}:") as caught:
        common_maps(map_items(folder))
    assert_silent(caught.value)
    (folder / f"{CASES[0]}_R1.nii").touch()
    with pytest.raises(ValueError, match=r"sub-[0-9a-f]{12} must have one R1map, got hidden-") as caught:
        find_maps(folder)
    assert_silent(caught.value)


def test_a_list_made_by_hand_is_silent_too(folder: Path, tmp_path: Path) -> None:
    entries = [
        {"image": [f"{place}/{case}_{kind}.nii" for kind in ("R1", "PD")], "subject": case}
        for place, case in zip(FOLDERS, CASES, strict=True)
    ]
    (tmp_path / "list.json").write_text(json.dumps({"training": entries}))
    items = map_items(folder, tmp_path / "list.json")
    assert_silent(*map(told, items))
    assert [item["subject"] for item in items] == [item["subject"] for item in map_items(folder)]
    assert Path(items[0]["image"][0]).is_file()
    (tmp_path / "list.json").write_text(json.dumps({"training": [{"image": entries[0]["image"][0]}]}))
    with pytest.raises(ValueError, match="needs quantitative maps, a list of files") as caught:
        map_items(folder, tmp_path / "list.json")
    assert_silent(caught.value)


def test_the_digest_of_a_study_cannot_be_tried_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = digest_items(map_items(folder))
    assert digest == digest_items(map_items(folder))
    monkeypatch.setenv("MONAI_CL_KEY", str(folder.parent / "other.key"))
    assert digest_items(map_items(folder)) != digest


def test_labels_of_bids_are_kept_and_need_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONAI_CL_KEY", str(tmp_path / "none.key"))
    place = tmp_path / "maps/sub-01/ses-a/anat"
    place.mkdir(parents=True)
    for kind in ("T1map", "PDmap"):
        (place / f"sub-01_ses-a_acq-fast_{kind}.nii.gz").touch()
    (item,) = map_items(tmp_path / "maps")
    assert (item["subject"], item["case"]) == ("sub-01", "sub-01_ses-a")
    assert shown(item["image"][1]) == "sub-01/ses-a/anat/sub-01_ses-a_acq-fast_T1map.nii.gz"
    assert not key_path().exists()


@pytest.mark.parametrize("label", ["sub-19610417", "sub-123456789"])
def test_dates_and_long_numbers_are_no_pseudonyms(tmp_path: Path, label: str) -> None:
    (tmp_path / f"{label}_T1map.nii").touch()
    (item,) = map_items(tmp_path)
    assert label not in str(told(item))


def test_without_a_key_subjects_are_numbered(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (folder.parent / "file").touch()
    monkeypatch.setenv("MONAI_CL_KEY", str(folder.parent / "file/key"))
    with caplog.at_level(logging.WARNING):
        items = map_items(folder)
    assert_silent(caplog.text, *map(told, items))
    assert "set MONAI_CL_KEY to a file that can be written" in caplog.text
    assert len({item["case"] for item in items}) == 2
    assert all(item["case"].startswith("subject-") for item in items)
    assert digest_items(items) == digest_items(map_items(folder))
