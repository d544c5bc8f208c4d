"""Curves whose pretraining has stages, arms that share networks, and patients kept apart for the evaluation."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_curve import Pretend, config, curve_of, measure

from monai_cl.data import load_datalist, shared_subjects, write_cache
from monai_cl.evaluation._cells import PRETRAIN
from monai_cl.evaluation._config import CurveConfig, read_config
from monai_cl.evaluation._evaluation_keys import Evaluation, LeaveOut
from monai_cl.evaluation._hold_out import kept_apart
from monai_cl.evaluation._plan import make_plan
from monai_cl.evaluation._steps import Step

__all__ = ["config"]  # a fixture

ARMS = {
    "scratch": {"pretrained": "none"},
    "first": {"pretrained": {"seeds": [0, 1], "paired": True, "settings": {"max_epochs": 3}}},
    "second": {"pretrained": {"after": "first", "settings": {"max_epochs": 1}}},
    "again": {"pretrained": {"of": "second"}, "settings": {"finetune_learning_rate": 0.001}},
}


def copied(folder: Path) -> Path:
    return Path(shutil.copytree(Path(__file__).parents[1] / "bundles" / "volume_contrast", folder / "bundle"))


@pytest.fixture
def staged(config: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """The same on a bundle whose pretraining can begin with a file."""
    root = copied(tmp_path)

    def write(**changes: Any) -> Path:
        return config(**{"bundle": str(root), "arms": ARMS, **changes})

    return write


def test_a_second_stage_begins_with_the_network_of_the_first_run_by_run(staged: Callable[..., Path]) -> None:
    launch = Pretend()
    root = measure(staged(), launch).folder
    given = {Path(each["output_dir"]).relative_to(root).as_posix(): each for each in launch.given}
    for seed in (0, 1):
        second = given[f"pretraining/second/seed_{seed}"]
        assert second["start"] == str(root / f"pretraining/first/seed_{seed}/pretrained.pt")
        assert second["max_epochs"] == 1
        assert "start" not in given[f"pretraining/first/seed_{seed}"]
    order = [each["output_dir"] for each in launch.given]
    assert order.index(str(root / "pretraining/first/seed_0")) < order.index(str(root / "pretraining/second/seed_0"))


def test_networks_of_another_arm_are_taken_without_a_run_of_their_own(staged: Callable[..., Path]) -> None:
    launch = Pretend()
    root = measure(staged(), launch).folder
    assert not (root / "pretraining/again").exists()
    tuned = [given for given in launch.given if "/cells/again/" in given["output_dir"] and "labels" in given]
    assert {given["pretrained"] for given in tuned} == {
        str(root / f"pretraining/second/seed_{seed}/pretrained.pt") for seed in (0, 1)
    }
    assert {given["finetune_learning_rate"] for given in tuned} == {0.001}


def test_the_time_of_both_stages_is_handed_to_scratch_and_not_twice(staged: Callable[..., Path]) -> None:
    curve = curve_of(measure(staged()))
    handed = curve.record["equal_compute"]
    # an epoch has 10 steps of 0.5 s in pretraining, a step of fine-tuning takes 0.1 s
    assert handed["first"]["pretraining_seconds"] == pytest.approx(15)
    assert handed["second"]["pretraining_seconds"] == pytest.approx(20)
    assert handed["second"]["extra_steps"] == 200
    assert handed["second"]["source"] == "mean of 2 measured runs, 2 stages together"
    assert set(handed) == {"first", "second"}
    assert not [note for note in curve.notes if note.startswith("again: the comparison")]


def test_the_comparison_at_equal_compute_is_made_with_the_arms_that_are_named(staged: Callable[..., Path]) -> None:
    curve = curve_of(measure(staged(equal_compute={"arms": ["second"]})))
    assert set(curve.record["equal_compute"]) == {"second"}
    with pytest.raises(ValueError, match=r"arms must be pretrained arms, or have overlays, got 'scratch'"):
        measure(staged(equal_compute={"arms": ["scratch"]}))


def test_another_first_stage_makes_the_second_another_one(staged: Callable[..., Path]) -> None:
    measure(staged())
    arms = {**ARMS, "first": {"pretrained": {"seeds": [0, 1], "paired": True, "settings": {"max_epochs": 4}}}}
    with pytest.raises(ValueError, match=r"holds a pretraining with other settings .*max_epochs: 3 -> 4"):
        measure(staged(arms=arms))


def test_a_failed_first_stage_stops_what_follows_from_it(staged: Callable[..., Path]) -> None:
    failed = measure(staged(), Pretend(failing=r"pretraining/first/seed_1")).failed
    assert failed["pretraining/second/seed_1"] == "it needs pretraining/first/seed_1, which failed"
    assert "pretraining/second/seed_0" not in failed
    assert failed["cells/again/paired/labels_1/seed_1"].startswith("it needs pretraining/second/seed_1")


@pytest.mark.parametrize(
    ("pretrained", "answer"),
    [
        ({"after": "frist"}, "after must name another arm that is pretrained, got 'frist', did you mean 'first'?"),
        ({"after": "scratch"}, "after must name another arm that is pretrained, got 'scratch' (valid: first)"),
        ({"after": "last"}, "must not lead back to where they began, got last -> last"),
        ({"after": "first", "seeds": [5]}, "must leave seeds to the arm that it is `after`, got [5]; take it out"),
        ({"after": "first", "settings": {"start": "x.pt"}}, "must leave start to the curve"),
        ({"of": "first", "settings": {}}, "must have no key beside `of`"),
    ],
)
def test_a_mistake_in_the_stages_is_answered(staged: Callable[..., Path], pretrained: Any, answer: str) -> None:
    arms = {name: ARMS[name] for name in ("scratch", "first")}
    with pytest.raises(ValueError, match=re.escape(answer)):
        measure(staged(arms={**arms, "last": {"pretrained": pretrained}}))


def test_a_bundle_whose_pretraining_begins_with_nothing_has_no_second_stage(
    config: Callable[..., Path], tmp_path: Path
) -> None:
    root = copied(tmp_path)
    path = root / "configs" / "pretrain.yaml"
    path.write_text("".join(line for line in path.read_text().splitlines(True) if not line.startswith("start:")))
    with pytest.raises(ValueError, match="the pretraining of bundle has no id `start`; use a bundle that has"):
        measure(config(bundle=str(root), arms=ARMS))


# --- patients kept apart


def spread(study: Path, target: Path) -> Path:
    """A datalist in which one patient has two volumes, one of them unlabelled."""
    content = json.loads((study / "datalist.json").read_text())
    content["unlabelled"][0]["subject"] = content["training"][0]["subject"]
    target.write_text(json.dumps(content))
    return target


def test_patients_kept_apart_are_evaluated_on_and_seen_by_nothing_else(
    config: Callable[..., Path], study: Path, tmp_path: Path
) -> None:
    source = spread(study, tmp_path / "source.json")
    settings = {"dataset_dir": str(study), "datalist": str(source), "recipe": "small_mr", "out_channels": 3}
    launch = Pretend()
    path = config(settings=settings, budgets=[1, "all"], evaluation={"resamples": 100, "hold_out": 3})
    apart = tmp_path / "out" / "datalist.json"
    measure(path, launch)
    lists = {name: load_datalist(apart, name, dataset_dir=study) for name in ("training", "validation", "unlabelled")}
    assert [len(lists[name]) for name in ("training", "validation")] == [1, 5]
    assert not shared_subjects(lists["training"] + lists["unlabelled"], lists["validation"])
    assert {Path(given["datalist"]) for given in launch.given} == {apart}


def test_a_curve_that_is_refused_leaves_the_list_of_an_earlier_one(
    config: Callable[..., Path], study: Path, tmp_path: Path
) -> None:
    settings = {"dataset_dir": str(study), "datalist": str(study / "datalist.json"), "recipe": "small_mr"}
    given = {"settings": {**settings, "out_channels": 3}, "budgets": [1]}
    measure(config(**given, evaluation={"resamples": 100, "hold_out": 1}), Pretend())
    before = (tmp_path / "out" / "datalist.json").read_bytes()
    for budgets, answer in (([1], "holds a .* with other settings"), ([9], "budgets must be at most")):
        with pytest.raises(ValueError, match=answer):
            measure(config(**{**given, "budgets": budgets}, evaluation={"resamples": 100, "hold_out": 2}), Pretend())
        assert (tmp_path / "out" / "datalist.json").read_bytes() == before


def test_a_curve_that_fails_in_its_runs_keeps_their_list(
    config: Callable[..., Path], study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    settings = {"dataset_dir": str(study), "datalist": str(study / "datalist.json"), "recipe": "small_mr"}
    given = {"settings": {**settings, "out_channels": 3}, "budgets": [1]}
    (tmp_path / "out").mkdir()
    earlier = tmp_path / "out" / "datalist.json"
    earlier.write_text('{"training": []}')
    monkeypatch.setattr("monai_cl.evaluation.curve.assemble", full)
    with pytest.raises(OSError, match="no space left"):
        measure(config(**given, evaluation={"resamples": 100, "hold_out": 1}), Pretend())
    assert '"validation"' in earlier.read_text()


def test_patients_of_a_cache_are_kept_apart_too(config: Callable[..., Path], study: Path, tmp_path: Path) -> None:
    cache = write_cache(study / "datalist.json", tmp_path / "cache", recipe="small_mr", processes=0).folder
    settings = {"dataset_dir": str(study), "datalist": str(cache), "recipe": "small_mr", "out_channels": 3}
    launch = Pretend()
    measure(config(settings=settings, budgets=[1], evaluation={"resamples": 100, "hold_out": 2}), launch)
    assert {(given["datalist"], given["dataset_dir"]) for given in launch.given} == {
        (str(tmp_path / "out" / "datalist.json"), str(cache))
    }
    moved = load_datalist(tmp_path / "out" / "datalist.json", "validation", dataset_dir=cache)
    before = load_datalist(cache, "validation")
    assert len(moved) == len(before) + 2


def test_who_is_kept_apart_depends_on_names_alone(config: Callable[..., Path], study: Path, tmp_path: Path) -> None:
    settings = {"dataset_dir": str(study), "datalist": str(study / "datalist.json"), "recipe": "small_mr"}
    chosen = []
    for number in (1, 2):
        path = config(settings={**settings, "out_channels": 3}, budgets=[1], evaluation={"hold_out": number})
        measure(path, output=tmp_path / str(number), launch=Pretend(failing="."))
        items = load_datalist(tmp_path / str(number) / "datalist.json", "validation", dataset_dir=study)
        chosen.append({item["subject"] for item in items})
    assert chosen[0] < chosen[1]
    assert len(chosen[1] - chosen[0]) == 1


def test_a_dry_run_writes_no_datalist(config: Callable[..., Path], study: Path, tmp_path: Path) -> None:
    settings = {"dataset_dir": str(study), "datalist": str(study / "datalist.json"), "recipe": "small_mr"}
    path = config(settings={**settings, "out_channels": 3}, budgets=[1], evaluation={"hold_out": 2})
    measure(path, dry_run=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("number", "answer"),
    [(4, "must leave patients to train on: training has 4 labelled ones, got 4"), (-1, "a number of patients from 0")],
)
def test_too_many_kept_apart_is_refused(config: Callable[..., Path], study: Path, number: int, answer: str) -> None:
    settings = {"dataset_dir": str(study), "datalist": str(study / "datalist.json"), "recipe": "small_mr"}
    with pytest.raises(ValueError, match=answer):
        measure(config(settings=settings, budgets=[1], evaluation={"hold_out": number}))


def of_sites(study: Path, target: Path, sites: dict[str, str]) -> Path:
    """A datalist whose entries have a site, by the number of the case; b where nothing else is said."""
    content = json.loads((study / "datalist.json").read_text())
    for name in ("training", "validation", "unlabelled"):
        for item in content[name]:
            item["site"] = sites.get(re.sub(r"\D", "", Path(item["image"]).name), "b")
    target.write_text(json.dumps(content))
    return target


def test_a_site_that_is_left_out_is_evaluated_on_and_seen_by_nothing_else(
    config: Callable[..., Path], study: Path, tmp_path: Path
) -> None:
    source = of_sites(study, tmp_path / "source.json", {"0": "a", "4": "a", "6": "a"})
    content = json.loads(source.read_text())
    content["training"][1]["subject"] = content["training"][0]["subject"]  # a patient of both sites
    source.write_text(json.dumps(content))
    settings = {"dataset_dir": str(study), "datalist": str(source), "recipe": "small_mr", "out_channels": 3}
    evaluation = {"resamples": 100, "leave_out": {"by": "site", "value": "a"}}
    measure(config(settings=settings, budgets=[1], evaluation=evaluation), Pretend())
    apart = tmp_path / "out" / "datalist.json"
    lists = {name: load_datalist(apart, name, dataset_dir=study) for name in ("training", "validation", "unlabelled")}
    cases = {name: [item["case"] for item in items] for name, items in lists.items()}
    assert cases == {"training": ["case_2", "case_3"], "validation": ["case_0", "case_4"], "unlabelled": ["case_7"]}


@pytest.mark.parametrize(
    ("sites", "evaluation", "answer"),
    [
        ({"0": "a"}, {"value": "c"}, r"names site 'c', .*known are a \(1\), b \(7\); run a curve for each"),
        ({}, {"value": "b"}, "must leave labelled volumes to train on, site b has all of them"),
        ({"6": "a"}, {"value": "a"}, "needs labelled volumes to evaluate on, site a has none"),
        (
            {},
            {"by": "scanner", "value": "a"},
            "needs the field 'scanner' in each entry of the datalist, 8 of 8 have none",
        ),
    ],
)
def test_a_site_that_cannot_be_left_out_is_refused(
    config: Callable[..., Path], study: Path, tmp_path: Path, sites: dict[str, str], evaluation: Any, answer: str
) -> None:
    source = of_sites(study, tmp_path / "source.json", sites)
    settings = {"dataset_dir": str(study), "datalist": str(source), "recipe": "small_mr", "out_channels": 3}
    with pytest.raises(ValueError, match=answer):
        measure(config(settings=settings, budgets=[1], evaluation={"leave_out": {"by": "site", **evaluation}}))


def test_leaving_out_goes_with_no_other_way_to_keep_apart(config: Callable[..., Path], study: Path) -> None:
    evaluation = {"leave_out": {"by": "site", "value": "a"}, "hold_out": 2}
    with pytest.raises(ValueError, match=r"must leave out a group \(leave_out\), keep patients .* not several of them"):
        measure(config(evaluation=evaluation))


def test_stages_are_planned_in_order(staged: Callable[..., Path]) -> None:
    plan = make_plan(read_config(staged()))
    assert [cell.folder for cell in plan.cells if cell.role == PRETRAIN] == [
        *(f"pretraining/{arm}/seed_{seed}" for seed in (0, 1) for arm in ("first", "second"))
    ]
    assert plan.config.stages("again") == ("first", "second")


TUTORIALS = Path(__file__).parents[1] / "tutorials"


def test_the_example_with_stages_trains_the_decoder_after_the_encoder() -> None:
    assert read_config(TUTORIALS / "curve_acdc.yaml").stages("gd_local") == ("gd", "gd_local")


@pytest.mark.parametrize("name", sorted(path.stem for path in TUTORIALS.glob("curve_*.yaml")))
def test_the_examples_are_curves_whose_settings_are_known(name: str) -> None:
    read = read_config(TUTORIALS / f"{name}.yaml")
    steps = [Step.of(read.bundle, configs, read.overlays) for configs in (["pretrain"], ["train"])]
    assert all(any(step.knows(key) for step in steps) for key in read.settings)
    for arm in read.arms.values():
        own = arm.pretraining
        if own is not None and not own.of:
            step = Step.of(own.bundle, ["pretrain"], (*own.overlays, *read.overlays))
            assert all(step.knows(key) for key in own.settings)
            # the network that is pretrained is the one that is fine-tuned
            shapes = [
                {key: tuple(value.shape) for key, value in each.network(each.pick(read.settings)).state_dict().items()}
                for each in (step, steps[1])
            ]
            assert shapes[0] == shapes[1]


def test_groups_and_sections_of_a_list_made_by_hand_are_not_named(tmp_path: Path) -> None:
    entries = [
        {"image": f"case_{n}.nii", "label": f"seg_{n}.nii", "subject": n, "site": site}
        for n, site in enumerate(("Mueller", "left", "Charite", "left"))
    ]
    content = {"training": entries[:3], "Dr Mueller": entries[3:], "validation": []}

    def kept(value: str, **more: Any) -> list[dict[str, Any]]:
        (tmp_path / "list.json").write_text(json.dumps(content | more))
        leave_out = LeaveOut(by="site", value=value)
        asked = CurveConfig.model_construct(
            evaluation=Evaluation.model_construct(section="validation", hold_out=0, leave_out=leave_out),
            tune=None, settings={"datalist": str(tmp_path / "list.json")}, output=tmp_path,
        )  # fmt: skip
        with kept_apart(asked, write=False) as (found, _):
            return list(json.loads(Path(found.settings["datalist"]).read_text())["validation"])

    with pytest.raises(ValueError, match=r"names site 'x', known are left \(2\) and 2 whose names might") as error:
        kept("x")
    assert "Mueller" not in str(error.value)
    with pytest.raises(ValueError, match=r"known are Charite \(1\), Mueller \(1\), left \(2\); run a curve"):
        kept("x", hide_names=False)
    assert [item["image"] for item in kept("Mueller")] == ["case_0.nii"]
