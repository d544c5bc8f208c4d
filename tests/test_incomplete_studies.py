"""Studies with any subset of sequences, from a datalist to channels: names, grids, templates, what is said."""

import json
import logging
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from conftest import ROOT
from monai.transforms import Invertd

from monai_cl import data, recipes
from monai_cl.data import PreparedDataset, TooManyFaultsError
from monai_cl.transforms import PrepareStudy, laid_on

REAL = ROOT.parent / "shared" / "data"
SHAPE = (12, 10, 8)


def write(
    path: Path, value: float, *, shape: tuple[int, ...] = SHAPE, spacing: float = 1.0, shift: float = 0.0
) -> Path:
    """A box of a value in zeros, somewhere in the middle."""
    values = np.zeros(shape, np.float32)
    values[tuple(slice(side // 4, -(side // 4)) for side in shape)] = value
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = shift
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, affine), path)
    return path


def items(*names: str, subject: str = "s1", **fields: Any) -> list[dict[str, Any]]:
    return [{"image": f"{subject}_{i}.nii", "subject": subject, "sequence": n, **fields} for i, n in enumerate(names)]


# --- names


@pytest.mark.parametrize(
    ("item", "table", "name"),
    [
        ({"image": "a.nii", "sequence": "FLAIR"}, None, "FLAIR"),
        ({"image": "a.nii", "sequence": "not known to anybody"}, None, "not known to anybody"),
        ({"image": "a.nii", "sequence": ""}, None, "unnamed"),
        ({"image": "case_0.nii.gz"}, None, "unnamed"),
        ({"image": "x/sub-01_ses-2_acq-fast_FLAIR.nii.gz"}, None, "FLAIR"),
        ({"image": "sub-01_T1w.nii.gz", "sequence": "T1w"}, None, "T1w"),
        ({"image": "sub-01_ce-gad_T1w.nii.gz", "sequence": "T1w"}, None, "T1wce"),
        ({"image": ["d/2.dcm", "d/1.dcm"], "sequence": "T2w"}, None, "T2w"),
        ({"image": "p_T1CE.nii.gz", "sequence": "T1w"}, {"*_t1ce*": "T1c", "T1w": "T1"}, "T1c"),
        ({"image": "p_1.nii.gz", "sequence": "T1w"}, {"*_t1ce*": "T1c", "t1w": "T1"}, "T1"),
    ],
)
def test_a_sequence_is_named_by_table_scan_or_bids(item: dict, table: dict | None, name: str) -> None:
    assert data.sequence_name(item, table) == name


def test_images_of_a_patient_or_a_visit_are_one_study() -> None:
    listed = [*items("T1w", "T2w"), *items("FLAIR", subject="s2"), *items("T1w", "T1w", session="b", subject="s3")]
    listed += [*items("T2w", session="a", subject="s3"), {"image": "alone.nii", "case": "alone"}]
    studies = data.study_items(listed)
    assert [study["sequences"] for study in studies] == [
        ["T1w", "T2w"], ["FLAIR"], ["T1w", "T1w"], ["T2w"], ["unnamed"],
    ]  # fmt: skip
    assert studies[0]["image"] == ["s1_0.nii", "s1_1.nii"]
    assert [study["case"] for study in studies if "case" in study] == ["s1", "s3 b", "alone"]
    assert data.study_sequences(studies) == ["FLAIR", "T1w", "T2w", "unnamed"]


def test_volumes_of_a_cache_are_refused() -> None:
    with pytest.raises(ValueError, match="got volumes of a cache, such as c1; give the datalist that it was made from"):
        data.study_items([{"image": "a", "cached": {}, "case": "c1"}])


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """Patient 1: labelled FLAIR, T1w without a label; patient 2: two labelled frames of one sequence."""
    sections: dict[str, list[dict[str, str]]] = {"training": [], "unlabelled": []}
    for name, sequence, subject, labelled in (
        ("a", "FLAIR", "s1", True), ("b", "T1w", "s1", False), ("c", "cine", "s2", True), ("d", "cine", "s2", True),
    ):  # fmt: skip
        item = {"image": f"{name}.nii.gz", "sequence": sequence, "subject": subject}
        write(tmp_path / item["image"], 1.0)
        if labelled:
            item["label"] = f"{name}_seg.nii.gz"
            write(tmp_path / item["label"], 1.0)
        sections["training" if labelled else "unlabelled"].append(item)
    (tmp_path / "list.json").write_text(json.dumps({"hide_names": False, **sections}))
    return tmp_path / "list.json"


def test_other_sequences_of_a_labelled_image_are_found_in_all_sections(listed: Path) -> None:
    studies = data.labelled_studies(listed, "training")
    assert [study["sequences"] for study in studies] == [["FLAIR", "T1w"], ["cine"], ["cine"]]
    assert [Path(study["image"][0]).name for study in studies] == ["a.nii.gz", "c.nii.gz", "d.nii.gz"]
    assert all(Path(study["label"]).name[0] == Path(study["image"][0]).name[0] for study in studies)
    assert len(data.labelled_studies(listed, "training", limit=1)) == 1


def test_studies_to_pretrain_on_are_split_and_counted(listed: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "monai_cl")
    split = data.split_studies(listed, "training+unlabelled", "validation", count=0)
    assert [study["sequences"] for study in split["train"]] == [["FLAIR", "T1w"], ["cine", "cine"]]
    assert "2 studies have the sequences FLAIR 1, T1w 1, cine 1; 1 of them have one sequence alone, 1" in caplog.text


def test_channels_are_the_users_those_of_the_model_or_all(tmp_path: Path) -> None:
    studies = data.study_items(items("T2w", "T1w"))
    assert data.channel_names(None, studies) == ["T1w", "T2w"]
    assert data.channel_names(["T2w"], studies) == ["T2w"]
    (tmp_path / "model.json").write_text(json.dumps({"sequences": ["T2w", "T1w"]}))
    assert data.channel_names(None, [], tmp_path / "model.pt") == ["T2w", "T1w"]
    with pytest.raises(ValueError, match=r"each channel once, got \['a', 'a'\]"):
        data.channel_names(["a", "a"], [])
    data.check_channels(["a"], 1)
    with pytest.raises(ValueError, match=r"number of sequences, 2 \(a, b\), got 1; add `--in_channels 2`"):
        data.check_channels(["a", "b"], 1)


def test_studies_without_any_channel_are_left_out_and_named(caplog: pytest.LogCaptureFixture) -> None:
    studies = data.study_items([*items("T1w", "SWI", "FLAIR"), *items("DWI", subject="s2")])
    (kept,) = data.with_channels(studies, ["FLAIR", "T1w"])
    assert kept["sequences"] == ["FLAIR", "T1w"]
    assert data.first_series([kept])[0]["image"] == "s1_2.nii"
    placed = [{**item, "place": f"at {item['image']}"} for item in items("T1w", "FLAIR")]
    (first,) = data.first_series(data.with_channels(data.study_items(placed), ["FLAIR", "T1w"]))
    assert (first["image"], first["place"]) == ("s1_1.nii", "at s1_1.nii")
    assert "it has DWI alone" in caplog.text
    with pytest.raises(ValueError, match=r"no study has one of the sequences ADC .* give their names as `sequence_nam"):
        data.with_channels(studies, ["ADC"])


# --- grids


def prepare(**options: Any) -> PrepareStudy:
    return PrepareStudy(recipes.load("small_mr"), **options)


def study(*files: Path, names: list[str], **fields: Any) -> dict[str, Any]:
    return {"image": [str(file) for file in files], "sequences": names, "case": "c1", **fields}


def test_series_on_other_grids_lie_on_the_first_one_and_it_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "monai_cl")
    first = write(tmp_path / "a.nii.gz", 5.0, shape=(12, 12, 12))
    fine = write(tmp_path / "b.nii.gz", 9.0, shape=(24, 24, 24), spacing=0.5, shift=-0.25)  # the same box
    found = prepare()(study(first, fine, first, names=["T1w", "T2w", "T1w"]))
    assert found["image"].shape == (3, 12, 12, 12)
    assert found["sequences"] == ["T1w", "T2w", "T1w"]
    assert torch.equal(found["image"][0], found["image"][2])
    assert float((found["image"][0] - found["image"][1]).abs().max()) < 1e-5  # each from 0 to 1 by itself
    assert "c1: T2w resampled onto the grid of the first series, T1w" in caplog.text
    caplog.clear()
    prepare()(study(first, first, names=["T1w", "T2w"]))
    assert caplog.text == ""


def test_a_series_elsewhere_is_left_out_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, far = write(tmp_path / "a.nii.gz", 5.0), write(tmp_path / "b.nii.gz", 5.0, shift=500.0)
    found = prepare()(study(first, far, names=["T1w", "T2w"]))
    assert found["sequences"] == ["T1w"]
    assert "c1: left out T2w, which has no voxel in common with the first series, T1w" in caplog.text


def test_a_channel_that_a_study_lacks_is_its_template_or_zeros(tmp_path: Path) -> None:
    first = write(tmp_path / "a.nii.gz", 5.0)
    template = torch.rand(14, 10, 6, generator=torch.Generator().manual_seed(0))
    chain = prepare(channels=["SWI", "FLAIR", "T1w"], templates={"FLAIR": template})
    found = chain(study(first, first, names=["T1w", "PDw"]))
    assert found["image"].shape == (3, *SHAPE)
    assert found["present"].tolist() == [False, False, True]
    assert not found["image"][0].any()
    assert torch.equal(found["image"][1].as_tensor(), laid_on(template, SHAPE))
    assert torch.equal(found["image"][1, :, :, 1:7].as_tensor(), template[1:13])  # centre upon centre
    assert float(found["image"][2].max()) == 1
    with pytest.raises(ValueError, match=r"must have one of the sequences \['ADC'\], got \['T1w'\]; add its name"):
        prepare(channels=["ADC"])(study(first, names=["T1w"]))


def test_a_channel_can_be_taken_away_to_see_what_that_costs(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a.nii.gz", 5.0), write(tmp_path / "b.nii.gz", 5.0)
    chain = prepare(channels=["T1w", "FLAIR"], without=["FLAIR"])
    found = chain(study(second, first, names=["FLAIR", "T1w"]))
    assert found["present"].tolist() == [True, False]
    assert not found["image"][1].any()
    with pytest.raises(ValueError, match=r"without must name some of the channels \['T1w'\], got \['T2w'\]"):
        prepare(channels=["T1w"], without=["T2w"])


def test_a_prediction_goes_back_onto_the_first_series(tmp_path: Path) -> None:
    first = write(tmp_path / "a.nii.gz", 5.0)
    other = write(tmp_path / "b.nii.gz", 5.0, shape=(6, 5, 4), spacing=2.0)
    chain = PrepareStudy(recipes.load("small_mr", spacing=2.0))
    found = chain(study(first, other, names=["T1w", "T2w"]))
    assert found["image"].shape[1:] == (6, 6, 4)
    item = {"image": found["image"], "pred": found["image"][:1].clone()}
    back = Invertd("pred", orig_keys="image", transform=chain, nearest_interp=False, to_tensor=True)(item)
    assert back["pred"].shape == (1, *SHAPE)


def test_an_unreadable_series_leaves_its_study_out_under_the_limit(tmp_path: Path) -> None:
    good, broken = write(tmp_path / "a.nii.gz", 5.0), tmp_path / "b.nii.gz"
    broken.write_bytes(good.read_bytes()[:60])
    studies = [study(good, broken, names=["T1w", "T2w"]), study(good, names=["T1w"]) | {"case": "c2"}]
    kept = PreparedDataset(studies, prepare(), max_faults=0.5)
    assert [name for name, _ in kept.faults] == ["c1"]
    assert "b.nii.gz" in kept.faults[0][1]
    with pytest.raises(TooManyFaultsError, match="got 1 of 2"):
        PreparedDataset(studies, prepare(), max_faults=0.4)


def test_templates_are_written_and_read_with_their_centre_at_the_origin(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "monai_cl")
    templates = {"T1w": torch.rand(4, 5, 6), "a/b c": torch.zeros(4, 5, 6)}
    index = data.write_templates(templates, tmp_path / "templates", (2.0, 2.0, 3.0))
    found = data.read_templates(index.parent, ["T1w", "a/b c"])
    assert all(torch.equal(found[name], values) for name, values in templates.items())
    assert "with the template of its sequence; with zeros for a/b c, which pretraining never saw" in caplog.text
    affine = nib.load(next(index.parent.glob("00_*"))).affine
    np.testing.assert_allclose(affine @ [1.5, 2.0, 2.5, 1.0], [0, 0, 0, 1], atol=1e-6)
    before = {path.name: path.read_bytes() for path in index.parent.iterdir()}
    data.write_templates(templates, tmp_path / "templates", (2.0, 2.0, 3.0))
    assert before == {path.name: path.read_bytes() for path in index.parent.iterdir()}
    assert data.read_templates(None, ["T1w"], beside=tmp_path / "model.pt").keys() == found.keys()
    caplog.clear()
    assert data.read_templates("none", ["a", "b"]) == {}
    assert "a channel that a study lacks is filled with zeros" in caplog.text
    with pytest.raises(
        FileNotFoundError, match=r"no templates\.json in .*run the pretraining.*or set `templates` to n"
    ):
        data.read_templates(tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(not (REAL / "mr_misc").is_dir(), reason="the real scans are not there")
def test_three_sequences_of_a_real_patient_are_one_study(tmp_path: Path) -> None:
    files = {name: REAL / "mr_misc" / f"stroke_{name}.nii.gz" for name in ("T1", "T2", "FLAIR")}
    found = PrepareStudy(recipes.load("brain_mr", spacing=4.0), channels=["T1", "T2", "FLAIR", "SWI"])(
        study(*files.values(), names=list(files))
    )
    assert found["present"].tolist() == [True, True, True, False]
    values = found["image"].as_tensor()[:3].flatten(1)
    assert bool((values.std(1) > 0.1).all())
