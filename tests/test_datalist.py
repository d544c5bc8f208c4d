import itertools
import json
import random
from pathlib import Path

import pytest

from monai_cl._files import atomic_write
from monai_cl.datalist import few_labels, load_datalist, shared_subjects


def write(folder: Path, content: object, name: str = "datalist.json") -> Path:
    """A datalist and empty files under the paths it names."""
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(content, dict):
        for entries in content.values():
            for entry in entries if isinstance(entries, list) else []:
                for part in [entry] if isinstance(entry, str) else [entry.get("image"), entry.get("label")]:
                    for path in part if isinstance(part, list) else [part] if part else []:
                        (folder / path).parent.mkdir(parents=True, exist_ok=True)
                        (folder / path).touch()
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


CONTENT = {
    "name": "demo",
    "labels": {"0": "background"},
    "training": [
        {"image": "imagesTr/a.nii.gz", "label": "labelsTr/a.nii.gz", "subject": 1},
        {"image": "./imagesTr/b.nii.gz", "label": "labelsTr/b.nii.gz", "subject": 1},
        {"image": "imagesTr/c.nii.gz", "label": "labelsTr/c.nii.gz", "subject": 2},
    ],
    "validation": [{"image": "imagesTr/d.nii.gz", "label": "labelsTr/d.nii.gz", "subject": 3}],
    "unlabelled": [{"image": "more/e.nii.gz", "subject": 4}, {"image": "imagesTr/b.nii.gz", "subject": 1}],
    "test": ["./imagesTs/f.nii.gz"],
    "left_out": {"4-D": 1},
}
POOL = [{"image": f"s{s}_{v}.nii.gz", "subject": s} for s in range(12) for v in range(1 + s % 3)]


def test_paths_are_resolved_and_fields_kept(tmp_path):
    first = load_datalist(write(tmp_path, CONTENT))[0]
    assert first == {
        "image": str(tmp_path / "imagesTr/a.nii.gz"),
        "label": str(tmp_path / "labelsTr/a.nii.gz"),
        "subject": 1,
        "case": "a",
    }


def test_paths_of_windows_are_read_unless_a_file_has_such_a_name(tmp_path):
    write(tmp_path, {"training": [{"image": "images/a.nii.gz"}, {"image": "images/k/1"}, {"image": "x\\b.nii.gz"}]})
    entries = [{"image": "images\\a.nii.gz"}, {"image": ["images\\k\\1"]}, {"image": "x\\b.nii.gz"}]
    (tmp_path / "list.json").write_text(json.dumps({"training": entries, "hide_names": False}))
    listed = [item["image"] for item in load_datalist(tmp_path / "list.json")]
    assert listed == [str(tmp_path / "images/a.nii.gz"), [str(tmp_path / "images/k/1")], str(tmp_path / "x\\b.nii.gz")]


def linked(folder: Path, *items: dict) -> Path:
    """A datalist of two images, with a link to the first one."""
    write(
        folder, {"training": [{"image": "a.nii.gz", "label": "la.nii.gz"}, {"image": "b.nii.gz", "label": "lb.nii.gz"}]}
    )
    (folder / "link.nii.gz").symlink_to(folder / "a.nii.gz")
    return listed(folder / "list.json", *items)


def listed(path: Path, *items: dict) -> Path:
    path.write_text(json.dumps({"training": [*items]}))
    return path


@pytest.mark.parametrize("spelling", ["link.nii.gz", "{folder}/a.nii.gz"])
def test_a_file_under_two_names_is_one_item_with_its_label(tmp_path, spelling):
    other = {"image": spelling.format(folder=tmp_path)}
    path = linked(tmp_path, other, {"image": "a.nii.gz", "label": "la.nii.gz"}, {"image": "b.nii.gz"})
    assert [item.get("label") for item in load_datalist(path)] == [str(tmp_path / "la.nii.gz"), None]
    path = listed(path, other | {"label": "lb.nii.gz"}, {"image": "a.nii.gz", "label": "la.nii.gz"})
    with pytest.raises(ValueError, match=r"lists one file as .* and as a\.nii\.gz, with two labels; keep one of them"):
        load_datalist(path)
    assert len(load_datalist(path, labelled=False)) == 1


def test_an_image_that_is_its_own_label_is_refused(tmp_path):
    path = linked(tmp_path, {"image": "a.nii.gz", "label": "link.nii.gz"})
    with pytest.raises(ValueError, match=r"names a\.nii\.gz as image and as label; correct one of them"):
        load_datalist(path)


def test_one_image_on_two_sides_is_shared_whatever_its_subject(tmp_path):
    linked(tmp_path)
    one, other = [{"image": "a.nii.gz", "subject": "x"}], [{"image": "link.nii.gz", "subject": "y"}]
    assert shared_subjects(one, other, folder=tmp_path) == ["x"]
    assert shared_subjects(one, [{"image": "b.nii.gz", "subject": "y"}], folder=tmp_path) == []


@pytest.mark.parametrize(
    ("section", "fault"),
    [
        ({"0": {"image": "a"}}, "got a dict"),
        (["a.nii.gz"], "got a list with a str in it"),
        ([{"image": "a.nii.gz"}, None], "got a list with a NoneType in it"),
    ],
)
def test_a_section_of_another_shape_is_told_as_such(tmp_path, section, fault):
    (tmp_path / "list.json").write_text(json.dumps({"training": section}))
    with pytest.raises(ValueError, match=f"'training' of .* must be a list of objects with an image, {fault}"):
        load_datalist(tmp_path / "list.json")


@pytest.mark.parametrize("n", [1.5, "1", None, 0])
def test_a_number_of_labels_that_is_none_is_refused(n):
    with pytest.raises(ValueError, match=r"must be between 1 and \d+ .*, got "):
        few_labels(POOL, n, seed=0)


def test_dataset_dir_replaces_the_folder_of_the_json(tmp_path):
    write(tmp_path / "data", CONTENT)
    elsewhere = tmp_path / "lists.json"
    elsewhere.write_text(json.dumps(CONTENT))
    items = load_datalist(elsewhere, dataset_dir=tmp_path / "data")
    assert items[1]["image"] == str(tmp_path / "data/imagesTr/b.nii.gz")


def test_a_study_without_unlabelled_scans_pretrains_on_those_it_has(tmp_path):
    path = write(tmp_path, {name: entries for name, entries in CONTENT.items() if name != "unlabelled"})
    assert load_datalist(path, "training+unlabelled") == load_datalist(path, "training")
    with pytest.raises(ValueError, match="has no section 'unlabelled'"):
        load_datalist(path, "unlabelled")


@pytest.mark.parametrize("sections", ["training+unlabelled", ["training", "unlabelled"]])
def test_sections_are_joined_and_duplicates_dropped(tmp_path, sections):
    items = load_datalist(write(tmp_path, CONTENT), sections)
    assert [item["case"] for item in items] == ["a", "b", "c", "e"]


def test_bare_strings_of_the_test_section_are_items(tmp_path):
    items = load_datalist(write(tmp_path, CONTENT), "test")
    assert items == [{"image": str(tmp_path / "imagesTs/f.nii.gz"), "case": "f"}]


def test_series_given_as_files_are_resolved_one_by_one(tmp_path):
    path = write(tmp_path, {"unlabelled": [{"image": ["s/1", "s/2"], "subject": "sub-0001"}]})
    item = load_datalist(path, "unlabelled")[0]
    assert item["image"] == [str(tmp_path / "s/1"), str(tmp_path / "s/2")]
    assert item["case"] == "s"


def test_case_is_the_relative_path_where_stems_collide(tmp_path):
    images = ["p1/brain.nii.gz", "p2/brain.nii.gz", "p2/scan.v2.nii.gz", "x.nii", "x.nii.gz"]
    items = load_datalist(write(tmp_path, {"training": [{"image": image} for image in images]}))
    assert [item["case"] for item in items] == ["p1/brain", "p2/brain", "scan.v2", "x.nii", "x.nii.gz"]


def test_labelled_false_strips_labels(tmp_path):
    assert not any("label" in item for item in load_datalist(write(tmp_path, CONTENT), labelled=False))


def test_labelled_true_refuses_items_without_label(tmp_path):
    with pytest.raises(ValueError, match=r"1 of 4 items of .* have no label, such as more/e\.nii\.gz"):
        load_datalist(write(tmp_path, CONTENT), "training+unlabelled", labelled=True)


def test_unknown_section_names_the_closest_and_all(tmp_path):
    message = r"no section 'trainng'; did you mean 'training'\? valid are: training \(3\), validation \(1\), unlabelled"
    with pytest.raises(ValueError, match=message):
        load_datalist(write(tmp_path, CONTENT), "trainng")


def test_empty_section_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"section 'training' of .* is empty; choose from training \(0\)"):
        load_datalist(write(tmp_path, {"training": []}))


@pytest.mark.parametrize("rest", [{}, {"validation": []}])
def test_a_validation_that_holds_nothing_is_refused_with_the_way_to_fill_it(tmp_path, rest):
    with pytest.raises(ValueError, match=r"training \(1\).*; `monai-cl curate DATALIST --hold-out 0\.2` moves a fifth"):
        load_datalist(write(tmp_path, {"training": [{"image": "a.nii.gz", "label": "l.nii.gz"}]} | rest), "validation")
    with pytest.raises(ValueError, match=r"choose from training \(0\), validation \(0\)$"):
        load_datalist(write(tmp_path, {"training": [], "validation": []}), "validation")


def test_no_sections_are_refused(tmp_path):
    with pytest.raises(ValueError, match="sections must name at least one section"):
        load_datalist(write(tmp_path, CONTENT), [])


def test_missing_files_are_reported_together(tmp_path):
    path = write(tmp_path, {"training": [{"image": f"i{n}.nii.gz"} for n in range(9)]})
    for n in range(1, 8):
        (tmp_path / f"i{n}.nii.gz").unlink()
    told = r"7 of 9 files that .* names are absent, .*i1\.nii\.gz, .*i5\.nii\.gz;"
    with pytest.raises(FileNotFoundError, match=told):
        load_datalist(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"training": [', "is not valid JSON: .*line 1"),
        ("[1, 2]", "must hold a JSON object of sections, got a list"),
        ('{"training": [{"label": "a.nii.gz"}]}', "each entry of 'training' .* needs a path as 'image'"),
        ('{"training": [{"image": "a", "label": 3}]}', "needs a path as 'label'"),
    ],
)
def test_malformed_datalist_is_refused(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        load_datalist(write(tmp_path, text))


def test_absent_datalist_names_the_command_that_writes_one(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such datalist: .*lost\.json; `monai-cl scan FOLDER"):
        load_datalist(tmp_path / "lost.json")


def test_limit_takes_the_few_labels(tmp_path):
    path = write(tmp_path, CONTENT)
    assert load_datalist(path, limit=2, seed=5) == few_labels(load_datalist(path), 2, seed=5)


def test_few_labels_are_nested():
    draws = [few_labels(POOL, n, seed=3) for n in range(1, len(POOL) + 1)]
    assert all(larger[: len(smaller)] == smaller for smaller, larger in itertools.pairwise(draws))


def test_few_labels_take_whole_patients_before_the_next():
    subjects = [item["subject"] for item in few_labels(POOL, len(POOL), seed=1)]
    changes = sum(a != b for a, b in itertools.pairwise(subjects))
    assert changes == len(set(subjects)) - 1


def test_few_labels_do_not_depend_on_the_order_of_items():
    shuffled = random.Random(0).sample(POOL, len(POOL))
    assert few_labels(POOL, 7, seed=2) == few_labels(shuffled, 7, seed=2)


def test_few_labels_do_not_change_when_a_later_patient_joins():
    order = few_labels(POOL, len(POOL), seed=2)
    without_last = [item for item in POOL if item["subject"] != order[-1]["subject"]]
    assert few_labels(without_last, 5, seed=2) == order[:5]


def test_seeds_draw_different_patients():
    firsts = {few_labels(POOL, 1, seed=seed)[0]["subject"] for seed in range(30)}
    assert len(firsts) > 5


@pytest.mark.parametrize("n", [0, -1, len(POOL) + 1])
def test_few_labels_refuse_more_than_there_are(n):
    with pytest.raises(
        ValueError,
        match=rf"\(labels of a bundle, here n\) must be between 1 and 24 \(24 items of 12 subjects\), got {n}",
    ):
        few_labels(POOL, n, seed=0)


def test_items_without_subject_are_patients_of_their_own():
    items = [{"image": name} for name in "abc"]
    assert shared_subjects(items[:2], items[1:]) == ["b"]
    assert len(few_labels(items, 3, seed=0)) == 3


def test_shared_subjects_compares_numbers_and_text_alike():
    assert shared_subjects([{"image": "a", "subject": 7}], [{"image": "b", "subject": "7"}]) == ["7"]
    assert shared_subjects([{"image": "a", "subject": 7}], [{"image": "b", "subject": 8}]) == []


def test_atomic_write_leaves_the_old_file_when_writing_fails(tmp_path):
    target = tmp_path / "a.json"
    target.write_text("old")

    def fail() -> None:
        with atomic_write(target) as temporary:
            temporary.write_text("half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]
