import json
from pathlib import Path

import pytest

from monai_cl.data import check_study, class_names, digest, find_images


def datalist(path: Path, **content: object) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_labels_must_fit_the_network(tmp_path: Path) -> None:
    path = datalist(tmp_path / "d.json", labels={"0": "background", "1": "a", "3": "c"}, training=[])
    check_study(path, out_channels=4)
    with pytest.raises(ValueError, match=r"out_channels must be 4 for the labels.*got 2; .*add `--out_channels 4`"):
        check_study(path, out_channels=2)
    assert class_names(path) == {1: "a", 3: "c"}


@pytest.mark.parametrize(
    "labels", [{"background": 0, "liver": 1}, ["background", "liver"], {"0": "background", "1": "liver"}]
)
def test_labels_by_name_or_in_a_row_are_those_by_number(labels: object, tmp_path: Path) -> None:
    path = datalist(tmp_path / "d.json", labels=labels, training=[], hide_names=False)
    check_study(path, out_channels=2)
    assert class_names(path) == {1: "liver"}


@pytest.mark.parametrize("labels", ["liver", {"background": 0, "whole": [1, 2]}])
def test_labels_of_another_shape_are_refused(labels: object, tmp_path: Path) -> None:
    path = datalist(tmp_path / "d.json", labels=labels, training=[], hide_names=False)
    with pytest.raises(ValueError, match=r'must be names of classes by number, as {"0": "background", "1": "liver"}'):
        check_study(path, out_channels=2)


@pytest.mark.parametrize("section", ["validation", "test"])
def test_an_image_on_both_sides_is_refused_whatever_it_is_called(section: str, tmp_path: Path) -> None:
    items = [{"image": "a", "subject": 7}], [{"image": "./a", "subject": 8}]
    path = datalist(tmp_path / "d.json", **{"training": items[0], section: items[1]})
    with pytest.raises(ValueError, match=rf"both training and {section}, got 1 \(7\)"):
        check_study(path, out_channels=2)


@pytest.mark.parametrize("section", ["validation", "test"])
def test_a_patient_on_both_sides_is_refused(section: str, tmp_path: Path) -> None:
    items = [{"image": "a", "subject": 7}], [{"image": "b", "subject": "7"}]
    path = datalist(tmp_path / "d.json", **{"training": items[0], section: items[1]})
    with pytest.raises(ValueError, match=rf"both training and {section}, got 1 \(7\)"):
        check_study(path, out_channels=2)


def test_a_digest_changes_with_the_content(tmp_path: Path) -> None:
    first = digest(datalist(tmp_path / "d.json", training=[1]))
    assert first == digest(tmp_path / "d.json")
    assert first != digest(datalist(tmp_path / "d.json", training=[2]))


def test_images_are_found_as_file_or_folder_and_labels_are_not_among_them(study: Path) -> None:
    (single,) = find_images(study / "images/case_3.nii.gz")
    assert single["case"] == "case_3"
    found = find_images(study / "images")
    assert [item["case"] for item in found] == [f"case_{i}" for i in range(8)]
    with pytest.raises(FileNotFoundError, match="no scan, series or folder at"):
        find_images(study / "absent")
