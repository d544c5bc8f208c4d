"""Simulated sequences in the place of measured ones, from maps among the series of a study to a run of the bundle."""

import json
import logging
from pathlib import Path
from typing import Any

import monai.bundle
import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.utils import set_determinism
from test_missing_sequences_bundle import OPTIONS, SPACING, images, pretrained

from monai_cl import bundles, data, recipes
from monai_cl.engine import read_history
from monai_cl.phantoms import brain_maps
from monai_cl.phantoms.bids import save_subject
from monai_cl.privacy.hidden_paths import HiddenPath, without_hidden
from monai_cl.qmri import FAMILIES
from monai_cl.transforms import PrepareStudy, RandMRContrast, RandStudyViews

NAMES = ["T1w", "T2w", "FLAIR"]
TISSUES = torch.tensor([[70.0, 0.86, 0.07, 0.05, 0.0175], [82, 1.45, 0.08, 0.062, 0.009], [100, 4.3, 2.0, 1.0, 5e-4]])
TINY = {
    "crop_size": [16, 16, 16], "template_size": [24, 32, 24], "max_epochs": 1, "epoch_length": 2, "batch_size": 2,
    "probe_volumes": 0, "donor_start": 0.0, "contrast_start": 0.0, "sections": "training",
}  # fmt: skip


# --- maps among series


def studies() -> list[dict[str, Any]]:
    return [
        {"case": "a", "image": ["1", "2", "3", "4"], "sequences": ["T1w", "PDmap", "R1map", "MTsat"], "subject": "a"},
        {"case": "b", "image": ["5", "6", "7"], "sequences": ["T1map", "PDmap", "FLAIR"], "places": [0, 1, 2]},
        {"case": "c", "image": ["8"], "sequences": ["T2w"]},
    ]


def test_maps_are_no_series_and_those_that_all_have_are_simulated_from() -> None:
    a, b, c = data.maps_apart(studies())
    assert a == {
        "case": "a", "image": ["1"], "sequences": ["T1w"], "subject": "a",
        "maps": {"PDmap": "2", "R1map": "3", "MTsat": "4"},
    }  # fmt: skip
    assert (b["image"], b["sequences"], b["places"]) == (["7"], ["FLAIR"], [2])
    assert c == studies()[2]
    assert data.study_maps([a, c]) == ("pd", "t1", "mtsat")
    assert data.study_maps([a, b, c]) == ("pd", "t1")


def test_maps_that_simulate_nothing_and_studies_of_maps_alone_are_left_out_and_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    alone = {"case": "d", "image": ["9"], "sequences": ["PDmap"]}
    short = {"case": "e", "image": ["x", "y"], "sequences": ["T1w", "T1map"]}
    found = data.maps_apart([*studies(), alone, short])
    assert [study["case"] for study in found] == ["a", "b", "c", "e"]
    assert found[-1] == {"case": "e", "image": ["x"], "sequences": ["T1w"]}
    assert "left out 1 of 5 studies: they have maps and no series" in caplog.text
    assert "left out the maps of 1 of 4 studies, such as e: simulation needs those of proton density" in caplog.text


def test_studies_that_cannot_be_simulated_from_are_refused() -> None:
    with pytest.raises(ValueError, match=r"none of 1 has both; list the maps under the `subject`.*set `simulated` to"):
        data.study_maps(data.maps_apart(studies()[2:]))
    with pytest.raises(ValueError, match=r"one map of a kind, a has PDmap twice or more; leave one"):
        data.maps_apart([{"case": "a", "image": ["1", "2", "3"], "sequences": ["PDmap", "PDmap", "T1w"]}])
    with pytest.raises(ValueError, match="studies need a series beside their maps, got 1 studies of maps alone"):
        data.maps_apart([{"case": "a", "image": ["1"], "sequences": ["PDmap"]}])
    with pytest.raises(ValueError, match="a map must be one file, a has one in many; convert it to NIfTI"):
        data.maps_apart([{"case": "a", "image": [["1.dcm", "2.dcm"], "3"], "sequences": ["PDmap", "T1w"]}])


def split_with_maps(folder: Path, count: int = 8, **subjects: int) -> dict[str, list[dict[str, Any]]]:
    """Sections of so many subjects, each with four maps and, but for the section ``maps``, an image sorted last."""
    content = {
        section: [
            {"image": f"{section}{n}_{name}.nii", "subject": f"{section} {n}", "sequence": name}
            for n in range(number)
            for name in ("MTsat", "PDmap", "R1map", "R2starmap", *(["T1w"] if section != "maps" else []))
        ]
        for section, number in subjects.items()
    }
    for item in (item for items in content.values() for item in items):
        (folder / item["image"]).touch()
    (folder / "list.json").write_text(json.dumps(content))
    probe = next((section for section in content if section != "training"), "validation")
    return data.split_studies(folder / "list.json", "training", probe, dataset_dir=folder, count=count, maps=True)


def test_maps_are_not_counted_among_the_images_to_probe_with(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    split = split_with_maps(tmp_path, training=20)  # 20 images, of which a tenth is held out, beside 80 maps
    assert [study["sequences"] for study in split["probe"]] == [["T1w"], ["T1w"]]
    assert len(split["train"]) == 18
    assert all(len(study["maps"]) == 4 for study in split["train"])
    assert "no study has two sequences" not in caplog.text  # maps give others


def test_nobody_is_held_out_where_a_tenth_of_the_images_is_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        split = split_with_maps(tmp_path, training=6)
    assert (len(split["train"]), split["probe"]) == (6, [])
    assert "too few volumes to probe with: only 6" in caplog.text


def test_a_section_to_probe_on_gives_as_many_images_as_asked_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    split = split_with_maps(tmp_path, count=2, training=3, validation=3)
    assert [study["sequences"] for study in split["probe"]] == [["T1w"], ["T1w"]]
    with caplog.at_level(logging.INFO):
        split = split_with_maps(tmp_path, training=3, maps=3)
    assert (len(split["train"]), split["probe"]) == (3, [])
    assert "no volume to probe with in section 'maps'" in caplog.text


def test_hidden_names_of_maps_stay_hidden_in_errors() -> None:
    item = {"image": ["a"], "maps": {"PDmap": HiddenPath("/scans/smith/a.nii", "hidden-0123456789ab/a.nii")}}
    assert without_hidden("cannot read /scans/smith/a.nii", item) == "cannot read hidden-0123456789ab/a.nii"


# --- views

CONTRAST = RandMRContrast()


def blocks(size: int = 24) -> MetaTensor:
    """Maps of blocks of tissues with air around them."""
    chosen = torch.randint(0, 3, (size // 4,) * 3, generator=torch.Generator().manual_seed(0))
    for axis in range(3):
        chosen = chosen.repeat_interleave(4, axis)
    values = TISSUES[chosen].movedim(-1, 0).clone()
    values[:, :3] = 0
    return MetaTensor(values, affine=torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0])))


def views(**options: Any) -> RandStudyViews:
    return RandStudyViews(NAMES, (8, 8, 8), (24, 24, 24), **{"simulate": CONTRAST, "simulated": 1.0, **options})


def test_a_simulated_donor_is_never_of_the_weighting_of_its_target() -> None:
    series, maps = torch.rand(3, 24, 24, 24), blocks()
    seen = set()
    for seed in range(90):
        record = views().set_random_state(seed=seed).draw(series, NAMES, maps)
        family = record["contrast"]["protocol"]["family"]
        assert family.partition("_")[0] != NAMES[record["target"]].casefold()
        seen.add((record["target"], family))
    others = [[name for name in FAMILIES if name.partition("_")[0] != target.casefold()] for target in NAMES]
    assert {family for target, family in seen if target == 0} <= set(others[0])
    assert len({family for _, family in seen}) == len(FAMILIES)
    only = views(simulate=RandMRContrast(["t1w_mprage"]), k=1).set_random_state(seed=0)
    for name in ("T1w", "T1"):  # so none is left for it, and the study has no donor
        assert only.randomize(([name], (24, 24, 24), True))["contrast"] is None
    assert only.randomize((["T2w"], (24, 24, 24), True))["contrast"] is not None
    star = views(simulate=RandMRContrast(["t2sw_gre"]))
    assert star.randomize((["T2starw"], (24, 24, 24), True))["contrast"] is None


def test_a_simulated_donor_has_the_intensities_that_its_whole_volume_would_have() -> None:
    """On maps small enough for the coarse image to be all of them."""
    maps, series = blocks(), torch.rand(1, 24, 24, 24)
    found = views(intensities=recipes.intensities("brain_mr")).set_random_state(seed=3)
    record = found.draw(series, ["T2w"], maps)
    whole = found.simulate.apply(maps, record["contrast"])
    expected = recipes.intensities("brain_mr")(whole)
    window = (slice(None), *(slice(first, first + 8) for first in record["start"]))
    torch.testing.assert_close(
        found.apply(series, ["T2w"], record, maps)["donor"], expected.as_tensor()[window], rtol=1e-4, atol=1e-4
    )


def test_simulation_draws_as_often_as_asked_for() -> None:
    series, maps = torch.rand(3, 24, 24, 24), blocks()
    records = [views(simulated=0.3).set_random_state(seed=seed).draw(series, NAMES, maps) for seed in range(120)]
    assert abs(sum(record["contrast"] is not None for record in records) / 120 - 0.3) < 0.12
    assert all(record["donor"] is not None for record in records)  # the measured one of a draw is the same in any case


# --- the bundle


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three brains with maps, of which one has a single sequence; a fourth has two sequences and no maps."""
    tmp_path, listed = tmp_path_factory.mktemp("maps"), list[dict[str, str]]()
    for number in range(4):
        made, affine = images(number)
        for name in ["T1w"] if number == 0 else ["T1w", "FLAIR"]:
            path = tmp_path / f"brain_{number}_{name}.nii.gz"
            nib.save(nib.Nifti1Image(made[name].numpy(), affine.numpy()), path)
            listed.append({"image": path.name, "subject": f"brain {number}", "sequence": name})
        if number < 3:
            files = save_subject(brain_maps((11, number), spacing=SPACING), tmp_path, f"{number:03d}")
            listed += [{"image": str(f.relative_to(tmp_path)), "subject": f"brain {number}"} for f in files.values()]
    (tmp_path / "datalist.json").write_text(json.dumps({"training": listed}))
    return tmp_path


def parser(root: Path, study: Path, **options: Any) -> ConfigParser:
    """The configuration of a run, to look at its parts."""
    found = ConfigParser()
    found.read_config([str(root / "configs" / f"{name}.yaml") for name in ("pretrain", "small")])
    given = {"bundle_root": str(root), "dataset_dir": str(study), "datalist": str(study / "datalist.json")}
    found.update(given | {"recipe_options": OPTIONS} | TINY | options)
    return found


def test_a_donor_of_a_run_is_what_the_simulator_gives_of_the_subjects_own_maps(study: Path, tmp_path: Path) -> None:
    """The maps of the phantom itself, which no file has carried, played with the drawn protocol."""
    config = parser(bundles.copy("missing_sequences", tmp_path / "bundle"), study, simulated=1.0)
    config["simulated_sequences"] = ["t2w_fse"]  # as nothing measured
    config["simulator"].update(receive_prob=0.0, noise_prob=0.0)
    drawn, volumes = config.get_parsed_content("views").views, config.get_parsed_content("train#dataset")
    assert config.get_parsed_content("names") == ["FLAIR", "T1w"]
    assert [volume.get("maps") is not None for volume in volumes] == [True, True, True, False]
    for number in range(3):
        volume = volumes[number]
        image, names, maps = volume["image"], volume["sequences"], volume["maps"]
        record = drawn.set_random_state(seed=number).draw(image, names, maps)
        found = drawn.apply(image, names, record, maps)
        assert found["has_donor"]
        truth = brain_maps((11, number), spacing=SPACING)
        played = RandMRContrast().apply(truth.maps, record["contrast"]["protocol"]).as_tensor()
        there = PrepareStudy(recipes.load("brain_mr", **OPTIONS))._onto(MetaTensor(played, affine=truth.affine), image)
        window = tuple(slice(first, first + 16) for first in record["start"])
        expected, got = there.as_tensor()[(0, *window)], found["donor"][0]
        body = maps.as_tensor()[(0, *window)] > 0
        ranks = [values[body].argsort().argsort().double() for values in (expected, got)]
        assert float(torch.corrcoef(torch.stack(ranks))[0, 1]) > 0.95
        for measured in image.as_tensor():
            assert float((measured[window][body] - got[body]).abs().mean()) > 0.2


@pytest.mark.parametrize("simulated", [0.0, 1.0])
def test_a_run_counts_donors_and_records_its_settings(
    simulated: float, study: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "monai_cl")
    root = pretrained(
        tmp_path / "bundle", study, study / "datalist.json", simulated=simulated,
        simulated_sequences=["t2w_fse", "stir"], units={"MTsat": "p.u."}, **TINY,
    )  # fmt: skip
    settings = json.loads((root / "runs/pretrain/run.json").read_text())["settings"]
    assert (settings["simulated"], settings["simulated_sequences"]) == (simulated, ["t2w_fse", "stir"])
    assert (settings["field_strength"], settings["units"]) == (3.0, {"MTsat": "p.u."})
    (row,) = read_history(root / "runs/pretrain/history.csv")
    templates = sorted(data.read_templates(root / "models/templates"))
    if simulated:
        assert settings["maps"] == ["pd", "t1", "t2", "t2_star", "mtsat"]
        assert "3 of 4 studies have maps of pd, t1, t2, t2_star, mtsat to simulate from" in caplog.text
        assert row["with_donor"] == 1  # also of the brain with one sequence
        assert templates == ["FLAIR", "T1w"]
    else:  # maps are series as all others
        assert settings["maps"] == []
        assert templates == ["FLAIR", "MTsat", "PDmap", "R2starmap", "T1map", "T1w", "T2map"]


def test_a_run_repeats_goes_on_and_refuses_another_share(study: Path, tmp_path: Path) -> None:
    runs = {}
    for name in ("whole", "parted"):
        root, options = tmp_path / name, {**TINY, "simulated": 0.7, "max_epochs": 2, "steps": 4}
        if name == "parted":
            pretrained(root, study, study / "datalist.json", **options | {"max_epochs": 1})
            with pytest.raises(RuntimeError, match="Failed to evaluate") as caught:  # MONAI's words
                go_on(root, study, **options | {"simulated": 0.6})
            assert "simulated: 0.7 -> 0.6" in bundles._reason(caught.value)
            go_on(root, study, **options)
        else:
            pretrained(root, study, study / "datalist.json", **options)
        state = torch.load(root / "models/pretrained.pt", weights_only=True)
        losses = [row["loss"] for row in read_history(root / "runs/pretrain/history.csv")]
        runs[name] = (losses, state)
    assert runs["parted"][0] == runs["whole"][0]
    assert all(torch.equal(value, runs["whole"][1][key]) for key, value in runs["parted"][1].items())


def go_on(root: Path, study: Path, **options: Any) -> None:
    try:
        monai.bundle.run(
            bundle_root=str(root), config_file=[str(root / "configs" / f"{n}.yaml") for n in ("pretrain", "small")],
            dataset_dir=str(study), datalist=str(study / "datalist.json"), logging_file=False, recipe_options=OPTIONS,
            **options,
        )  # fmt: skip
    finally:
        set_determinism(seed=None)
        bundles.release()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"simulated": 1.5}, "simulated must be a probability between 0 and 1, got 1.5"),
        ({"simulated": 0.5, "simulated_sequences": ["t2w_tse"]}, "t2w_fse"),
        ({"simulated": 0.5, "field_strength": 12.0}, "field_strength must be 1.5 to 7 tesla"),
        ({"simulated": 0.5, "sequence_names": {"*map*": "odd"}}, "none of 4 has both; list the maps under"),
    ],
)
def test_bad_settings_stop_a_run_and_are_named(
    options: dict[str, Any], match: str, study: Path, tmp_path: Path
) -> None:
    config = parser(bundles.copy("missing_sequences", tmp_path / "bundle"), study, **options)
    with pytest.raises(Exception, match=r"Failed|must be") as caught:
        config.get_parsed_content("views")
    assert match in bundles._reason(caught.value)


def test_maps_of_another_grid_come_onto_that_of_the_series_by_density(tmp_path: Path) -> None:
    """White matter in air keeps its T1 at a border that the grid of the series cuts."""
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    inside = np.zeros((10, 10, 10), np.float32)
    inside[2:8, 2:8, 2:8] = 1
    for name, value in (("PDmap", 70.0), ("T1map", 0.85)):
        nib.save(nib.Nifti1Image(value * inside, affine), tmp_path / f"sub-1_{name}.nii.gz")
    fine = np.diag([1.0, 1.0, 1.0, 1.0])
    image = np.kron(inside, np.ones((2, 2, 2), np.float32)) * np.linspace(1, 2, 20, dtype=np.float32)
    nib.save(nib.Nifti1Image(image, fine), tmp_path / "sub-1_T1w.nii.gz")
    maps = {name: str(tmp_path / f"sub-1_{name}.nii.gz") for name in ("PDmap", "T1map")}
    item = {"image": [str(tmp_path / "sub-1_T1w.nii.gz")], "sequences": ["T1w"], "maps": maps}
    prepare = PrepareStudy(recipes.load("small_mr", spacing=None), maps=("pd", "t1"))
    found = prepare(item)
    assert found["maps"].shape[1:] == found["image"].shape[1:]
    pd, t1 = found["maps"].as_tensor()
    assert ((pd > 0) & (pd < 69)).any()
    tissue = t1[pd > 0.01]
    torch.testing.assert_close(tissue, torch.full_like(tissue, 0.85))


def test_maps_apart_from_the_series_are_left_out_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    affine, values = np.diag([2.0, 2.0, 2.0, 1.0]), np.ones((8, 8, 8), np.float32)
    for name, value in (("PDmap", 70.0), ("T1map", 0.85)):
        nib.save(nib.Nifti1Image(value * values, affine), tmp_path / f"{name}.nii.gz")
    affine[:3, 3] = 500
    nib.save(nib.Nifti1Image(values * np.arange(1, 9, dtype=np.float32), affine), tmp_path / "T1w.nii.gz")
    maps = {name: str(tmp_path / f"{name}.nii.gz") for name in ("PDmap", "T1map")}
    item = {"case": "a", "image": [str(tmp_path / "T1w.nii.gz")], "sequences": ["T1w"], "maps": maps}
    assert "maps" not in PrepareStudy(recipes.load("small_mr", spacing=None), maps=("pd", "t1"))(item)
    assert "a: left out the maps, which have no voxel in common with the first series, T1w" in caplog.text
