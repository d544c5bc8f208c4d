"""Curves read back: those of this version, and those that version 0.1.0 has begun or finished."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import write_study
from rich.console import Console
from test_curve import NETWORK, Pretend, config, curve_of, measure

from monai_cl.evaluation import load_curve, run_curve
from monai_cl.evaluation._config import read_config
from monai_cl.evaluation._hold_out import kept_apart
from monai_cl.report._label_curve import curve_tables, curve_warnings
from monai_cl.report.curve_picture import curve_in_words
from monai_cl.report.html import write_report

__all__ = ["config"]  # a fixture

# written by 0.1.0 with pretended steps: two validation volumes of one patient, two seeds, a pretraining run each
STORED = json.loads((Path(__file__).parent / "data/curve_0_1_0.json").read_text())


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A finished curve of 0.1.0, with its study beside it."""
    write_study(tmp_path / "study")
    (tmp_path / "study/datalist.json").write_text(STORED["datalist"])
    for name, text in STORED["files"].items():
        path = tmp_path / "out" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "out"


def patients_twice(study: Path, target: Path) -> Path:
    """The datalist of a study whose validation volumes are of one patient, who has a name."""
    content = json.loads((study / "datalist.json").read_text())
    for item in content["validation"]:
        item["subject"] = "Doe^Jane"
    target.write_text(json.dumps(content))
    return target


def test_the_table_says_who_is_the_same_patient_and_not_who_it_is(
    config: Callable[..., Path], study: Path, tmp_path: Path
) -> None:
    datalist = patients_twice(study, tmp_path / "list.json")
    settings = {"dataset_dir": str(study), "datalist": str(datalist), "recipe": "small_mr", "out_channels": 3}
    result = measure(config(settings={**settings, "finetune_epochs": 4, "finetune_epoch_length": 5, **NETWORK}))
    curve = curve_of(result)
    with open(result.folder / "curve.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["case"], row["patient"]) for row in rows} == {("case_4", "patient_1"), ("case_5", "patient_1")}
    assert {(e.cases, e.patients) for e in curve.estimates} == {(2, 1)}
    assert curve.record["patients"] == 1
    assert load_curve(result.folder).scores == curve.scores
    assert "Doe" not in "".join(path.read_text() for path in result.folder.glob("*.[cj]s*"))
    assert curve_tables(curve)[0].notes[0].startswith("95 % intervals over 2 cases of 1 patient, 2 seeds")


def test_a_curve_of_0_1_0_says_that_its_patients_are_not_known(old: Path) -> None:
    curve = load_curve(old)
    assert {e.patients for e in curve.estimates} == {0}
    assert curve_warnings(curve)[0].startswith("The curve is of version 0.1.0, which took every case for a patient of")
    (first, *_) = curve.differences("contrast")
    assert first.verdict == (
        "hint: 2 seeds, patients not known; five and a run each, and the patients of the cases are asked for before a "
        "gain is believed"
    )
    assert "95 % intervals over 2 cases (patients not known), 2 seeds" in curve_tables(curve)[0].notes


def test_a_datalist_tells_the_patients_of_a_curve_of_0_1_0(old: Path) -> None:
    curve = load_curve(old, datalist=old.parent / "study/datalist.json")
    assert {(e.cases, e.patients) for e in curve.estimates} == {(2, 1)}
    assert {score.patient for score in curve.scores} == {"patient_1"}
    assert curve.record["patients"] == 1
    assert [e.estimate for e in curve.estimates] == pytest.approx([e.estimate for e in load_curve(old).estimates])
    content = json.loads(STORED["datalist"])
    (old.parent / "other.json").write_text(json.dumps({**content, "validation": content["training"]}))
    with pytest.raises(ValueError, match="must list the cases of the curve in validation, 2 of 2 are missing"):
        load_curve(old, datalist=old.parent / "other.json")


def test_the_report_reads_the_patients_from_its_datalist(old: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"neighbours": False}
    page = write_report([old], tmp_path / "a.html", **options).read_text()
    assert "patients not known" in page
    page = write_report([old], tmp_path / "b.html", datalist=tmp_path / "study/datalist.json", **options).read_text()
    assert "2 cases of 1 patient" in page
    (tmp_path / "other.json").write_text(json.dumps({**json.loads(STORED["datalist"]), "validation": [{"image": "x"}]}))
    page = write_report([old], tmp_path / "c.html", datalist=tmp_path / "other.json", **options).read_text()
    assert "The datalist given to the report does not know the cases of this curve." in page


@pytest.mark.parametrize("finished", [True, False])
def test_a_curve_of_0_1_0_goes_on(old: Path, finished: bool, config: Callable[..., Path]) -> None:
    study = old.parent / "study"
    settings = {"dataset_dir": str(study), "datalist": str(study / "datalist.json"), "recipe": "small_mr"}
    steps = {"out_channels": 3, "finetune_epochs": 4, "finetune_epoch_length": 5, "max_epochs": 2, "epoch_length": 10}
    path = config(
        settings={**settings, **steps, **NETWORK},
        budgets=[1, 2],
        arms={"scratch": {"pretrained": "none"}, "contrast": {"pretrained": {"seeds": [0, 1], "paired": True}}},
        equal_compute={"budgets": [2]},
        convergence={"budgets": [2]},
    )
    if not finished:
        (old / "cells/contrast/paired/labels_2/seed_1/cell.json").unlink()
    launch = Pretend()
    curve = curve_of(measure(path, launch))
    assert len(launch.given) == (0 if finished else 2)
    assert {(e.cases, e.patients) for e in curve.estimates} == {(2, 1)}
    assert [round(d.estimate, 6) for d in curve.differences("contrast")] == [0.1, 0.1]


# --- what is finished is not done again


def other_set(study: Path, target: Path, *, cases: tuple[int, ...] = (5,)) -> Path:
    """A datalist whose validation holds some of the cases."""
    content = json.loads((study / "datalist.json").read_text())
    items = [item for item in content["validation"] if any(f"case_{case}." in item["image"] for case in cases)]
    target.write_text(json.dumps({"labels": content["labels"], "validation": items}))
    return target


def tuned(launch: Pretend) -> list[str]:
    return [given["output_dir"] for given in launch.given if "labels" in given]


def test_another_evaluation_set_takes_the_networks_that_are_there(
    config: Callable[..., Path], study: Path, tmp_path: Path
) -> None:
    first = curve_of(measure(config()))
    wanted = {"resamples": 100, "datalist": str(other_set(study, tmp_path / "other.json"))}
    launch = Pretend()
    launch.cases = ["case_5"]
    curve = curve_of(measure(config(evaluation=wanted), launch))
    assert not tuned(launch)
    assert len(launch.given) == 28
    assert {Path(given["datalist"]).name for given in launch.given} == {"other.json"}
    assert {score.case for score in curve.scores} == {"case_5"}
    launch = Pretend()
    assert curve_of(measure(config(), launch)).estimates == first.estimates
    assert not launch.given
    assert curve_of(measure(config(evaluation=wanted), launch)).scores == curve.scores
    assert not launch.given


def test_networks_that_were_not_kept_are_fine_tuned_again_for_another_set_and_this_is_said(
    config: Callable[..., Path], study: Path, tmp_path: Path
) -> None:
    first = curve_of(measure(config(keep_models=False)))
    assert not list((tmp_path / "out/cells").rglob("model.pt"))
    wanted = {"resamples": 100, "datalist": str(other_set(study, tmp_path / "other.json"))}
    path = config(evaluation=wanted, keep_models=False)
    console = Console(record=True, width=300, file=io.StringIO())
    run_curve(path, dry_run=True, console=console, launch=Pretend())
    assert "28 of them were not kept (keep_models: false): they are fine-tuned again for it" in console.export_text()
    launch = Pretend()
    launch.cases = ["case_5"]
    curve = curve_of(measure(path, launch))
    assert len(tuned(launch)) == 28
    assert not [given for given in launch.given if "/pretraining/" in given["output_dir"]]
    assert {score.case for score in curve.scores} == {"case_5"}
    launch = Pretend()
    assert curve_of(measure(config(keep_models=False), launch)).scores == first.scores
    assert not launch.given


def test_further_cases_in_the_datalist_leave_the_networks_as_they_are(
    config: Callable[..., Path], study: Path, tmp_path: Path
) -> None:
    content = json.loads((study / "datalist.json").read_text())
    listed = tmp_path / "list.json"
    settings = {"dataset_dir": str(study), "datalist": str(listed), "recipe": "small_mr", "out_channels": 3}
    short: dict[str, Any] = {"settings": {**settings, **NETWORK}, "equal_compute": False, "budgets": [1]}
    listed.write_text(json.dumps({**content, "validation": content["validation"][1:]}))
    launch = Pretend()
    launch.cases = ["case_5"]
    measure(config(**short), launch)
    listed.write_text(json.dumps(content))
    launch = Pretend()
    curve = curve_of(measure(config(**short), launch))
    assert not tuned(launch)
    assert {score.case for score in curve.scores} == {"case_4", "case_5"}
    listed.write_text(json.dumps({**content, "training": content["training"][:3]}))
    with pytest.raises(ValueError, match=r"holds a pretraining with other settings \(datalist: "):
        measure(config(**short))


def test_more_pretraining_runs_keep_the_first_one(config: Callable[..., Path], tmp_path: Path) -> None:
    def arms(*seeds: int) -> dict[str, Any]:
        return {"scratch": {"pretrained": "none"}, "contrast": {"pretrained": {"seeds": [*seeds], "paired": True}}}

    short: dict[str, Any] = {"budgets": [1], "equal_compute": False, "convergence": False}
    measure(config(arms=arms(0), seeds=[0], **short))
    launch = Pretend()
    curve = curve_of(measure(config(arms=arms(0, 1), seeds=[0, 1], **short), launch))
    assert not [folder for folder in launch.folders() if folder.endswith("seed_0")]
    assert [(d.seeds, d.verdict[:7]) for d in curve.differences("contrast")] == [(2, "hint: 2")]
    assert {score.run for score in curve.scores if score.arm == "contrast"} == {"paired"}
    # seed 1 starts from another run now: done anew beside the old one, not instead of it
    launch = Pretend()
    measure(config(arms=arms(0, 2), seeds=[0, 1], **short), launch)
    assert {Path(folder).parts[-4:] for folder in tuned(launch)} == {("contrast", "seed_2", "labels_1", "seed_1")}
    launch = Pretend()
    measure(config(arms=arms(0, 1), seeds=[0, 1], **short), launch)
    assert not launch.given


def test_cases_that_are_excluded_do_not_count_and_nothing_is_done_again(
    config: Callable[..., Path], tmp_path: Path
) -> None:
    measure(config())
    launch = Pretend()
    result = measure(config(evaluation={"resamples": 100, "exclude": ["case_4"]}), launch)
    curve = curve_of(result)
    assert not launch.given
    assert {score.case for score in curve.scores} == {"case_5"}
    assert {estimate.cases for estimate in curve.estimates} == {1}
    assert curve.record["excluded"] == {"named": ["case_4"], "cases": 1}
    said = "1 case left out of every score and interval, as the file asks for (evaluation.exclude)"
    assert said in load_curve(result.folder).notes
    assert "1 case left out" in curve_tables(curve)[0].notes[0]
    assert "1 case of 1 patient, 1 case left out" in curve_in_words(curve)
    page = write_report([result.folder], tmp_path / "page.html", neighbours=False).read_text()
    assert said in page
    assert "case_4" not in page
    by_patient = {"resamples": 100, "exclude": ["s4"]}
    assert curve_of(measure(config(evaluation=by_patient), launch)).estimates == curve.estimates
    assert {score.case for score in curve_of(measure(config(), launch)).scores} == {"case_4", "case_5"}
    assert not launch.given


@pytest.mark.parametrize(
    ("names", "answer"),
    [
        (
            ["case_7"],
            r"exclude must name cases or patients of validation, got 'case_7', did you mean 'case_[45]'\?; it",
        ),
        (["case_4", "s5"], "exclude must leave cases to evaluate on, got all 2 of validation"),
        ({"a": 1}, "evaluation.exclude must be names or paths, got"),
    ],
)
def test_what_cannot_be_excluded_is_refused(config: Callable[..., Path], names: Any, answer: str) -> None:
    with pytest.raises(ValueError, match=answer):
        measure(config(evaluation={"exclude": names}))


def test_apart_and_another_set_at_once_are_refused(config: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match=r"must keep patients of training apart \(hold_out\) or name another datalist"):
        measure(config(evaluation={"hold_out": 1, "datalist": "x.json"}))


def test_a_patient_of_training_in_another_set_is_refused(
    config: Callable[..., Path], study: Path, tmp_path: Path
) -> None:
    content = json.loads((study / "datalist.json").read_text())
    (tmp_path / "other.json").write_text(json.dumps({"labels": content["labels"], "test": content["training"][:1]}))
    wanted = {"datalist": str(tmp_path / "other.json"), "section": "test"}
    with pytest.raises(ValueError, match=r"no patient may be in both training and test, got 1"):
        measure(config(evaluation=wanted))


def test_runs_of_other_versions_count_and_are_named(config: Callable[..., Path], tmp_path: Path) -> None:
    measure(config())
    for path in (tmp_path / "out").rglob("cell.json"):
        record = json.loads(path.read_text())
        record["settings"]["versions"].update(monai_cl="0.1.7", torch="1.0")
        (name,) = record["settings"]["configs"].keys() & {"train.yaml", "pretrain.yaml"}
        record["settings"]["configs"][name] = "another"
        path.write_text(json.dumps(record))
    launch = Pretend()
    curve = curve_of(measure(config(), launch))
    assert not launch.given
    for what in ("monai_cl 0.1.7", "torch 1.0", "other configs or recipes of the package"):
        assert f"30 runs were made with {what}, the others with what is recorded" in curve.notes
    record["settings"]["configs"]["mine.yaml"] = "an overlay of one's own"
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"with other settings \(configs\.mine\.yaml: "):
        measure(config())


def test_the_list_of_patients_kept_apart_stays_as_an_earlier_version_wrote_it(
    config: Callable[..., Path], study: Path, tmp_path: Path
) -> None:
    settings = {"dataset_dir": str(study), "datalist": str(study / "datalist.json"), "recipe": "small_mr"}
    short: dict[str, Any] = {"budgets": [1], "equal_compute": False, "convergence": False, "seeds": [0]}
    path = config(settings={**settings, "out_channels": 3, **NETWORK}, evaluation={"hold_out": 2}, **short)
    launch = Pretend(failing=".")
    measure(path, launch)
    written = tmp_path / "out/datalist.json"
    content = json.loads(written.read_text())
    written.write_text(json.dumps({**content, "name": "as 0.1.0 had it"}))  # this version hides such texts
    measure(path, launch)
    assert json.loads(written.read_text())["name"] == "as 0.1.0 had it"
    with kept_apart(read_config(path), write=False) as (settled, _):  # 0.1.0 recorded the digest of this very file
        assert settled.settings["datalist"] == str(written)
    content["training"].pop()
    written.write_text(json.dumps(content))
    measure(path, launch)
    assert len(json.loads(written.read_text())["training"]) == len(content["training"]) + 1
