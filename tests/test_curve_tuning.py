"""Settings of fine-tuning tried for every arm on volumes of their own, and the best of them in its runs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_curve import Pretend, config, curve_of, measure, quiet

from monai_cl.data import load_datalist
from monai_cl.evaluation import load_curve, run_curve
from monai_cl.report._label_curve import curve_tables

__all__ = ["config"]  # a fixture

RATE = "finetune_learning_rate"
BEST = {"scratch": 0.01, "contrast": 0.001}


class Tuned(Pretend):
    """Runs no step; the best learning rate of each arm is another one."""

    def __init__(self, failing: str = "never") -> None:
        super().__init__(failing, dice=self._dice)
        self.cases = [f"case_{number}" for number in range(6)]

    @staticmethod
    def _dice(given: dict[str, Any], label: int) -> float:
        best = BEST["contrast" if given["pretrained"] else "scratch"]
        return 0.5 + 0.1 * given["pretrained"] + 0.2 * (given.get(RATE, 0.01) == best)

    def trials(self) -> list[dict[str, Any]]:
        return [given for given in self.given if "/trials/" in given["output_dir"] and "labels" in given]

    def runs(self, arm: str) -> list[dict[str, Any]]:
        return [given for given in self.given if f"/cells/{arm}/" in given["output_dir"] and "labels" in given]


@pytest.fixture
def tuned(config: Callable[..., Path], study: Path) -> Callable[..., Path]:
    """Writes a curve with trials of two learning rates, judged on a patient kept apart."""

    def write(tune: dict[str, Any] | None = None, **changes: Any) -> Path:
        settings = yaml.safe_load(config().read_text())["settings"]
        settings["datalist"] = str(study / "datalist.json")
        asked = {"trials": {RATE: [0.01, 0.001]}, "hold_out": 1, "seeds": [0, 1], **(tune or {})}
        content = {"settings": settings, "budgets": [1], "seeds": [0], "convergence": False, "equal_compute": False}
        content |= changes
        return config(tune=asked, **content)

    return write


def test_every_arm_runs_with_the_best_of_as_many_trials(tuned: Callable[..., Path], tmp_path: Path) -> None:
    launch = Tuned()
    curve = curve_of(measure(tuned(), launch))
    assert len(launch.trials()) == 2 * 2 * 2  # arms, trials, seeds
    for arm, best in BEST.items():
        assert {given[RATE] for given in launch.runs(arm)} == {best}
    order = [given["output_dir"] for given in launch.given]
    last = max(i for i, folder in enumerate(order) if "/trials/scratch/" in folder)
    assert last < min(i for i, folder in enumerate(order) if "/cells/scratch/" in folder)
    assert {(t.arm, t.values[RATE], t.chosen) for t in curve.trials} == {
        (arm, rate, rate == best) for arm, best in BEST.items() for rate in (0.01, 0.001)
    }
    chosen = next(trial for trial in curve.trials if trial.arm == "contrast" and trial.chosen)
    assert (chosen.dice, chosen.seeds, chosen.steps) == (pytest.approx(0.8), 2, 20)
    assert curve.record["tuning"] == {"section": "tuning", "cases": 1, "patients": 1, "labels": 1, "seeds": [0, 1]}
    assert not list((tmp_path / "out/trials").rglob("model.pt"))
    assert load_curve(tmp_path / "out").trials == curve.trials


def test_trials_are_judged_on_volumes_of_no_other_list(tuned: Callable[..., Path], study: Path, tmp_path: Path) -> None:
    launch = Tuned()
    path = tuned(evaluation={"resamples": 100, "hold_out": 1})
    measure(path, launch)
    apart = tmp_path / "out/datalist.json"
    lists = {name: load_datalist(apart, name, dataset_dir=study) for name in ("training", "validation", "tuning")}
    patients = {name: {item["subject"] for item in items} for name, items in lists.items()}
    assert [len(patients[name]) for name in ("training", "validation", "tuning")] == [2, 3, 1]
    assert not patients["tuning"] & (patients["training"] | patients["validation"])
    sections = {
        (given["evaluation_section"], "/trials/" in given["output_dir"])
        for given in launch.given
        if "evaluation_section" in given
    }
    assert sections == {("tuning", True), ("validation", False)}
    # those of the evaluation are the same without tuning
    settings = yaml.safe_load(path.read_text())["settings"]
    plain = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({key: value for key, value in plain.items() if key != "tune"}))
    measure(path, Tuned(), output=tmp_path / "plain")
    listed = load_datalist(tmp_path / "plain/datalist.json", "validation", dataset_dir=settings["dataset_dir"])
    assert {item["subject"] for item in listed} == patients["validation"]


def test_what_was_chosen_stays_chosen_and_is_not_tried_again(tuned: Callable[..., Path]) -> None:
    measure(tuned(), Tuned())
    launch = Tuned()
    curve = curve_of(measure(tuned(seeds=[0, 2]), launch))
    assert launch.trials() == []
    assert {given["seed"] for given in launch.runs("scratch")} == {2}
    assert {given[RATE] for given in launch.runs("scratch")} == {0.01}
    assert len(curve.trials) == 4


def test_a_trial_that_fails_counts_as_tried_and_is_not_chosen(tuned: Callable[..., Path], tmp_path: Path) -> None:
    measure(tuned(), Tuned(), output=tmp_path / "probe")
    folders = {p.parent.name: p for p in (tmp_path / "probe/trials/scratch").glob("*/labels_1")}
    contents = {key: json.loads((p / "seed_0/cell.json").read_text()) for key, p in folders.items()}
    best = next(key for key, each in contents.items() if each["settings"]["overrides"][RATE] == 0.01)
    launch = Tuned(f"/trials/scratch/{best}/labels_1/seed_1")
    result = measure(tuned(), launch)
    curve = curve_of(result)
    assert list(result.failed) == [f"trials/scratch/{best}/labels_1/seed_1"]
    assert {given[RATE] for given in launch.runs("scratch")} == {0.001}
    (failed,) = [trial for trial in curve.trials if trial.failed]
    assert failed.failed == "1 of 2 runs failed"
    again = Tuned()
    measure(tuned(), again)  # the trial is made good, and what was chosen stays
    assert len(again.trials()) == 1
    assert again.runs("scratch") == []


def test_without_a_finished_trial_an_arm_does_not_run(tuned: Callable[..., Path]) -> None:
    launch = Tuned("/trials/contrast/")
    result = measure(tuned(), launch)
    assert launch.runs("contrast") == []
    assert result.failed["cells/contrast/seed_0/labels_1/seed_0"] == (
        "no settings of contrast can be chosen, as every trial of it failed"
    )
    assert {trial.arm for trial in curve_of(result).trials} == {"scratch"}


def test_steps_can_be_tried_and_the_reference_is_lengthened_from_its_own(tuned: Callable[..., Path]) -> None:
    tune = {"trials": {"finetune_epochs": [2, 6]}, "seeds": [0]}
    path = tuned(tune, convergence={"budgets": [1]}, equal_compute={"budgets": [1]})
    launch = Tuned()
    launch.dice = lambda given, label: given["finetune_epochs"] * (0.1 if given["pretrained"] else -0.05) + 0.4
    curve = curve_of(measure(path, launch))
    assert (curve.arm("scratch").steps, curve.arm("contrast").steps) == (10, 30)
    assert {given["finetune_epochs"] for given in launch.runs("scratch_2x")} == {4}
    handed = curve.record["equal_compute"]["contrast"]
    assert handed["finetuning_seconds"] == pytest.approx(2.0)  # 30 steps less 10, of 0.1 s
    assert handed["steps"] == 10 + 100 + 20  # 10 s of pretraining
    assert any("fine-tuned for 10 or 30: a difference at equal steps is one of recipes" in note for note in curve.notes)
    assert "scratch: finetune_epochs 2 is the smallest tried, a better one may lie beyond" in curve.notes


def test_an_arm_may_have_trials_of_its_own_but_not_more(tuned: Callable[..., Path]) -> None:
    own = {"trials": [{RATE: 0.01}, {RATE: [0.001], "finetune_frozen": 0.2}]}
    arms = {"scratch": {"pretrained": "none"}, "contrast": {"pretrained": {}, **own}}
    launch = Tuned()
    measure(tuned(arms=arms), launch)
    assert {given.get("finetune_frozen") for given in launch.runs("contrast")} == {0.2}
    with pytest.raises(ValueError, match=r"every arm must have the same number of trials, got contrast 2, scratch 3; "):
        measure(tuned({"trials": {RATE: [1, 2, 3]}}, arms=arms))


def test_trials_are_drawn_from_a_large_grid(tuned: Callable[..., Path]) -> None:
    grid = {RATE: [0.1, 0.01, 0.001], "finetune_decay": [1.0, 0.3], "finetune_frozen": [0.0, 0.2]}
    launch = Tuned()
    curve = curve_of(measure(tuned({"trials": grid, "number": 4, "seeds": [0]}), launch))
    assert len(curve.trials) == 8
    drawn = [[json.dumps(t.values) for t in curve.trials if t.arm == arm] for arm in BEST]
    assert drawn[0] == drawn[1]


def test_other_trials_do_not_mix_with_what_was_chosen_before(tuned: Callable[..., Path]) -> None:
    measure(tuned(), Tuned())
    with pytest.raises(ValueError, match=r"settings were not chosen among these trials; go back to those .*--out"):
        measure(tuned({"trials": {RATE: [0.01, 0.001, 0.1]}}), Tuned())


def test_a_dry_run_says_what_will_be_tried(tuned: Callable[..., Path], tmp_path: Path) -> None:
    from rich.console import Console

    console = Console(record=True, width=300, file=quiet().file)
    run_curve(tuned(), dry_run=True, console=console, launch=Tuned())
    said = console.export_text()
    assert "known once its trials have been measured" in said
    assert "trial" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("tune", "answer"),
    [
        ({"section": "validation"}, r"tune\.section must be another than that of the evaluation, .* got 'validation'"),
        ({"hold_out": 4}, r"tune\.hold_out must leave patients to train on: training has 4 labelled ones, got 4"),
        ({"hold_out": 0}, r"has no section 'tuning'"),
        ({"trials": {}}, r"trials of tune must be ids with lists of values|tune\.trials must be ids with lists"),
        ({"trials": {RATE: []}}, rf"must have values to try for {RATE}, got \[\]"),
        ({"trials": {"finetune_epoch_length": [3]}}, r"must leave finetune_epoch_length to the curve"),
        ({"trials": {"finetune_learning_rat": [1]}}, rf"did you mean '?{RATE}"),
        ({"number": 3}, r"tune\.number must be at most the 2 trials of arm 'contrast', got 3"),
        ({"budget": 0}, r"tune\.budget must be a number of labels from 1, or all, got 0"),
        ({"budget": 9}, r"budgets must be at most the 3 labelled volumes of `training`, or all, got 9"),
        ({"datalist": "x.json"}, r"tune must keep patients of training apart .* not both, got hold_out 1 and x\.json"),
        ({"seed": 1}, r"unknown key 'seed' in tune, did you mean 'seeds'"),
    ],
)
def test_a_mistake_in_the_trials_is_answered(tuned: Callable[..., Path], tune: dict[str, Any], answer: str) -> None:
    with pytest.raises(ValueError, match=answer):
        measure(tuned(tune), Tuned())


def test_trials_of_an_arm_need_tune(config: Callable[..., Path]) -> None:
    arms = {"scratch": {"pretrained": "none", "trials": {RATE: [0.1]}}}
    with pytest.raises(ValueError, match=r"trials of arm 'scratch' need `tune`, on whose data they are judged"):
        measure(config(arms=arms))


def test_a_patient_in_tuning_and_evaluation_is_refused(tuned: Callable[..., Path], study: Path, tmp_path: Path) -> None:
    content = json.loads((study / "datalist.json").read_text())
    again = tmp_path / "again.nii.gz"  # another image of a patient who is in validation
    again.write_bytes((study / content["training"][0]["image"]).read_bytes())
    content["tuning"] = [{**content["validation"][0], "image": str(again)}]
    (tmp_path / "list.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="no patient may be in both validation and tuning, got 1"):
        measure(tuned({"hold_out": 0, "datalist": str(tmp_path / "list.json"), "dataset_dir": str(study)}), Tuned())


def test_the_report_shows_every_trial_and_what_was_chosen(tuned: Callable[..., Path]) -> None:
    curve = curve_of(measure(tuned(), Tuned()))
    table = next(table for table in curve_tables(curve) if table.caption.startswith("Settings that were tried"))
    assert table.columns == ("arm", RATE, "steps", "Dice on tuning", "")
    assert ("contrast", "0.001", 20, 0.8, "chosen") in table.rows
    assert len(table.rows) == 4
    assert "1 case of 1 patient, 1 labelled volume, 2 seeds; in no other list" in table.notes[0]


def test_a_tiny_curve_is_tuned_for_real(
    tuned: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    path = tuned({"trials": {RATE: [0.01], "finetune_decay": [1.0, 0.5]}, "seeds": [0]})
    content = yaml.safe_load(path.read_text())
    content["settings"] |= {"finetune_epochs": 1, "finetune_epoch_length": 2, "num_workers": 0}
    content |= {"arms": {"scratch": {"pretrained": "none"}}, "budgets": [1], "seeds": [0]}
    path.write_text(yaml.safe_dump(content))
    result = run_curve(path, console=quiet())
    assert result.failed == {}
    assert [trial.seeds for trial in curve_of(result).trials] == [1, 1]
    record = json.loads((tmp_path / "out/cells/scratch/labels_1/seed_0/cell.json").read_text())
    assert record["settings"]["overrides"]["finetune_decay"] in (1.0, 0.5)
