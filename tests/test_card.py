import json
import math
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from monai_cl import cli
from monai_cl.engine.run_record import RunRecord
from monai_cl.evaluation.sequence_invariance import Invariance, write_invariance
from monai_cl.report import card
from monai_cl.report._facts import data_tables
from monai_cl.report._folders import Run
from monai_cl.report._results import result_tables
from monai_cl.report.html import write_report
from monai_cl.report.tables import Estimate, Table, cell_text, from_json, to_json, to_markdown

ROOT = Path(__file__).parents[1]
TABLE = Table("Dice", ("arm", "value"), (("a|b", Estimate(0.81234, 0.7, 0.9)), ("none", None)), ("one seed",))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/metadata.json").write_text('{"name": "Mine", "version": "1.2.3"}')
    (tmp_path / "docs/card.md.j2").write_text("# {{ metadata.name }}\n\n{{ results }}\n")
    return tmp_path


@pytest.fixture
def evaluation(tmp_path: Path) -> Path:
    folder = tmp_path / "runs/evaluate"
    folder.mkdir(parents=True)
    (folder / "val_mean_dice_raw.csv").write_text("filename,class0,mean\ndoe,0.8,0.8\nroe,0.9,0.9\n")
    return folder


def test_a_table_survives_json() -> None:
    assert from_json(json.loads(json.dumps(to_json(TABLE)))) == TABLE


def test_a_table_in_markdown() -> None:
    assert to_markdown(TABLE).splitlines() == [
        "**Dice**", "", "| arm | value |", "| --- | ---: |", "| a\\|b | 0.812 [0.700, 0.900] |",
        "| none | not recorded |", "", "One seed.",
    ]  # fmt: skip


def test_rows_must_fit_the_columns() -> None:
    with pytest.raises(ValueError, match="needs 2 cells"):
        Table("t", ("a", "b"), (("only",),))


def test_a_card_without_records_says_so(bundle: Path) -> None:
    card.write_card(bundle)
    assert (bundle / card.CARD).read_text() == f"# Mine\n\n{card._NONE}\n"
    assert card.check_card(bundle) == ""


def test_results_reach_the_card_through_a_record_alone(bundle: Path, evaluation: Path) -> None:
    card.write_card(bundle)
    path = bundle / card.RECORDS / "hippocampus.json"
    record = card.record_results([evaluation], path, title="Hippocampus", command="monai-cl curve x", date="2026-01-02")
    assert card.read_records(bundle) == [record]
    assert "+### Hippocampus" in card.check_card(bundle)
    text = card.write_card(bundle).read_text()
    assert card.check_card(bundle) == ""
    for part in ("Measured 2026-01-02 on ", "monai-cl curve x", "0.850 [", "torch 2"):
        assert part in text, part
    assert "doe" not in path.read_text()


def test_a_record_has_the_last_day_that_a_run_recorded(bundle: Path, evaluation: Path) -> None:
    def day(*parts: dict[str, str]) -> str:
        (evaluation / "run.json").write_text(json.dumps({"format": 1, "parts": list(parts)}))
        return card.record_results([evaluation], bundle / card.RECORDS / "a.json", title="T", date="2026-01-02").date

    assert day({"hardware": "a CPU"}) == "2026-01-02"
    assert day({"hardware": "a CPU"}, {"started": "2026-03-04T05:06:07+00:00"}) == "2026-03-04"


def test_an_evaluation_resamples_patients_it_has_recorded(tmp_path: Path) -> None:
    def evaluated(name: str, patients: dict[str, str] | None) -> Run:
        folder = tmp_path / name
        folder.mkdir()
        rows = [f"{case},{dice},{dice}" for case, dice in zip("abcd", (0.5, 0.5, 0.9, 0.9), strict=True)]
        (folder / "val_mean_dice_raw.csv").write_text("\n".join(["filename,class0,mean", *rows]))
        data = {} if patients is None else {"patients": patients}
        (folder / "run.json").write_text(json.dumps({"format": 1, "data": data}))
        return Run("evaluate", name, folder)

    known, unknown = evaluated("known", {"a": "p1", "b": "p1", "c": "p2", "d": "p2"}), evaluated("unknown", None)
    table, difference = result_tables([known, unknown])
    assert table.columns[:3] == ("evaluation", "cases", "patients")
    assert [row[1:3] for row in table.rows] == [(4, 2), (4, None)]
    wide, narrow = (row[3] for row in table.rows)
    assert isinstance(wide, Estimate)
    assert isinstance(narrow, Estimate)
    assert (wide.high or 0) - wide.value > 2 * ((narrow.high or 0) - narrow.value)
    assert any(note.startswith("patients not known (the evaluation did not record them)") for note in table.notes)
    assert difference.rows[0][0] == "unknown"


def evaluated(folder: Path, table: str, rows: dict[str, tuple[float, ...]], classes: tuple[str, ...] = ()) -> Run:
    """An evaluation whose cases are a patient each."""
    folder.mkdir()
    heads = ",".join(f"class{number}" for number in range(len(next(iter(rows.values())))))
    lines = [f"{case},{','.join(map(str, values))},{sum(values) / len(values)}" for case, values in rows.items()]
    (folder / table).write_text("\n".join([f"filename,{heads},mean", *lines]))
    (folder / "run.json").write_text(json.dumps({"format": 1, "data": {"patients": {case: case for case in rows}}}))
    if classes:
        names = {str(number): name for number, name in enumerate(classes, start=1)}
        (folder / "cases").mkdir()
        (folder / "cases/cases.json").write_text(json.dumps({"classes": names, "cases": []}))
    return Run("evaluate", folder.name, folder)


FAR = {case: (value,) for case, value in zip("abcdef", (9.0, 8.0, 9.5, 8.5, 9.0, 9.2), strict=True)}
NEAR = {case: (value,) for case, value in zip("abcdef", (3.0, 2.5, 3.1, 2.9, 3.3, 3.0), strict=True)}


@pytest.mark.parametrize(
    ("metric", "first", "second", "remark"),
    [
        ("val_surface_distance", FAR, NEAR, "hint"),
        ("val_hausdorff_95", FAR, NEAR, "hint"),
        ("val_mean_hausdorff_95", FAR, NEAR, "hint"),
        ("val_hausdorff_95", NEAR, FAR, "hint of a loss"),
        ("val_mean_dice", NEAR, FAR, "hint"),
        ("psnr", FAR, NEAR, "hint of a loss"),
        ("val_mae", FAR, NEAR, ""),  # of no known side
    ],
)
def test_an_evaluation_is_the_better_one_by_its_metric(
    tmp_path: Path, metric: str, first: dict[str, Any], second: dict[str, Any], remark: str
) -> None:
    runs = [evaluated(tmp_path / name, f"{metric}_raw.csv", rows) for name, rows in (("a", first), ("b", second))]
    *_, difference = result_tables(runs)
    cell = difference.rows[0][1]
    assert isinstance(cell, Estimate)
    assert cell.remark == remark
    assert ("not known: whether a larger or a smaller mae is the better one" in difference.notes) == (remark == "")


def test_classes_are_named_where_evaluations_agree_on_them(tmp_path: Path) -> None:
    def of(name: str, *classes: str, columns: int = 2) -> Run:
        rows = dict.fromkeys(name, (0.5,) * columns)
        return evaluated(tmp_path / name, "val_mean_dice_raw.csv", rows, classes)

    hip, other = of("abc", "anterior", "posterior"), of("def")
    heart, with_background = of("xyz", "ventricle", "muscle"), of("uvw", "anterior", "posterior", columns=3)
    assert result_tables([hip, other])[0].columns[4:] == ("anterior", "posterior")
    table = result_tables([hip, heart])[0]
    assert table.columns[4:] == ("class 1", "class 2")
    assert {"the classes of abc, in order: anterior, posterior", "the classes of xyz, in order: ventricle, muscle"} <= {
        *table.notes
    }
    assert result_tables([with_background])[0].columns[4:] == ("class0", "class1", "class2")


def test_values_of_an_image_are_of_no_class(tmp_path: Path) -> None:
    (table,) = result_tables([evaluated(tmp_path / "a", "psnr_raw.csv", NEAR)])
    assert table.columns[3:] == ("mean over channels", "channel 1")


def test_an_infinite_distance_leaves_no_mean(tmp_path: Path) -> None:
    rows = {**NEAR, "a": (math.inf,)}
    runs = [evaluated(tmp_path / name, "val_hausdorff_95_raw.csv", each) for name, each in (("n", NEAR), ("i", rows))]
    table, difference = result_tables(runs)
    assert [cell_text(row[3]).partition(" [")[0] for row in table.rows] == ["2.967", "not defined"]
    assert "infinite scores (1) leave the means with them not defined; evaluate with finite ones" in table.notes
    assert [cell_text(row[1]) for row in difference.rows] == ["not defined"]


def test_differences_are_those_of_the_same_case_in_any_order(tmp_path: Path) -> None:
    one = {"a": (0.5,), "b": (math.nan,)}
    other = {"b": (0.5,), "a": (math.nan,)}
    runs = [evaluated(tmp_path / name, "val_mean_dice_raw.csv", each) for name, each in (("one", one), ("two", other))]
    assert len(result_tables(runs)) == 1  # no case has both scores


def test_a_report_counts_volumes_without_labels_apart(tmp_path: Path) -> None:
    def trained(name: str, **data: Any) -> Run:
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(json.dumps({"format": 1, "data": {"processes": 1, **data}}))
        return Run("train", name, tmp_path / name)

    plain = trained("train", prepared=4, faults=[])
    both = trained("selftrain", prepared=4, prepared_unlabelled=121, faults=[["cut", "cannot read it"]])
    (table,) = data_tables([plain])
    assert (table.columns, table.rows) == (
        ("run", "volumes used", "left out as unreadable", "processes"),
        (("train", 4, 0, 1),),
    )
    (table,) = data_tables([plain, both])
    assert table.columns[2] == "beside them without labels"
    assert table.rows == (("train", 4, "", 0, 1), ("selftrain", 4, 121, 1, 1))


def test_the_record_of_an_evaluation_says_which_cases_are_of_one_patient(study: Path, tmp_path: Path) -> None:
    content = json.loads((study / "datalist.json").read_text())
    for item in content["validation"]:
        item["subject"] = "Doe^Jane"
    (tmp_path / "list.json").write_text(json.dumps(content))
    record = RunRecord(tmp_path, "evaluate", datalist=tmp_path / "list.json", sections="validation")
    assert record._content["data"]["patients"] == {"case_4": "patient_1", "case_5": "patient_1"}
    assert "Doe" not in json.dumps(record._content)


def test_the_command_line_checks_records_and_writes(bundle: Path, evaluation: Path) -> None:
    run = CliRunner().invoke
    record = bundle / card.RECORDS / "a.json"
    assert run(cli.app, ["report", str(evaluation), "--record", str(record), "--title", "T"]).exit_code == 0
    stale = run(cli.app, ["report", "--check", str(bundle)])
    assert stale.exit_code == 1
    assert "+### T" in stale.output
    assert run(cli.app, ["card", str(bundle)]).exit_code == 0
    assert run(cli.app, ["report", "--check", str(bundle)]).exit_code == 0
    assert run(cli.app, ["card", "--check", str(bundle)]).exit_code == 0


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"format": 2}', '{"format": 1, "title": "t"}'])
def test_what_is_no_record_is_refused(bundle: Path, content: str) -> None:
    (bundle / card.RECORDS).mkdir()
    (bundle / card.RECORDS / "a.json").write_text(content)
    with pytest.raises(ValueError, match=r"a\.json is no record: .*monai-cl report --record"):
        card.read_records(bundle)


def test_prose_that_names_the_unknown_is_refused(bundle: Path) -> None:
    (bundle / card.PROSE).write_text("{{ resluts }}")
    with pytest.raises(ValueError, match="'resluts' is undefined"):
        card.render_card(bundle)


def test_a_bundle_without_prose_is_refused(bundle: Path) -> None:
    (bundle / card.PROSE).unlink()
    with pytest.raises(FileNotFoundError, match="the prose of the card must be in"):
        card.render_card(bundle)


def test_a_record_needs_results(bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "train"
    folder.mkdir()
    (folder / "history.csv").write_text("step,loss\n1,1\n")
    with pytest.raises(ValueError, match="needs an evaluation, a curve or a measurement of invariance"):
        card.record_results([folder], bundle / "r.json", title="t")


def measured(folder: Path) -> Path:
    results = [
        Invariance("MIND-SSC", 20.0, (15.0, 25.0), 0.25, (0.2, 0.3), 0.0, (0.0, 0.0), {"p: T1 -> T2": (20.0, 0.25)}),
        Invariance("ours", 4.0, (3.0, 5.0), 0.75, (0.7, 0.8), 0.5, (0.4, 0.6), {"p: T1 -> T2": (4.0, 0.75)}),
    ]
    settings = {"sequences": {"p": ["T1", "T2"]}, "points": 64, "spacing": 2.0, "stride": 2}
    write_invariance(results, folder, settings=settings)
    return folder


def test_invariance_reaches_card_and_page(bundle: Path, tmp_path: Path) -> None:
    folder = measured(tmp_path / "invariance")
    card.record_results([folder], bundle / card.RECORDS / "invariance.json", title="Invariance")
    text = card.render_card(bundle)
    assert "| MIND-SSC | 20.0 [15.0, 25.0] | 25.0 [20.0, 30.0] | reference |" in text
    assert "| ours | 4.000 [3.000, 5.000] | 75.0 [70.0, 80.0] | 50.0 [40.0, 60.0] |" in text
    assert "Patients: 1 (T1, T2), 64 points each, spacing 2 mm" in text
    page = write_report([folder], tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Sequence invariance" in page
    assert "found within 5 mm" in page


def test_another_file_of_that_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "invariance.json").write_text("{}")
    with pytest.raises(ValueError, match=r"is no measurement of invariance .*run `monai-cl invariance` again"):
        card.record_results([tmp_path], tmp_path / "r.json", title="t")


@pytest.mark.parametrize("prose", sorted(ROOT.glob("bundles/*/docs/card.md.j2")), ids=lambda p: p.parts[-3])
def test_cards_are_up_to_date(prose: Path) -> None:
    assert card.check_card(prose.parents[1]) == ""
