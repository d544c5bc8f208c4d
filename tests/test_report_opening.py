"""What a report opens with: what helped, by how much, with its interval; and pseudo-labels as they grew up."""

import base64
import io
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from monai_cl.evaluation import Curve, CurveArm, Interval
from monai_cl.evaluation.records import Convergence
from monai_cl.evaluation.results import load_curve, save_curve
from monai_cl.evaluation.verdicts import verdict
from monai_cl.report import card
from monai_cl.report._headline import headline
from monai_cl.report._label_curve import curve_tables
from monai_cl.report.curve_picture import curve_figure
from monai_cl.report.curve_screen import show_curve
from monai_cl.report.html import write_report

ARMS = (
    CurveArm("scratch", "from scratch", "reference", ("",), 100),
    CurveArm("dense", "dense contrast", "pretrained", ("seed_0", "seed_1", "seed_2", "seed_3", "seed_4"), 100),
    CurveArm("scratch_plus_dense", "from scratch, given time", "equal compute", ("",), 300, gets="dense"),
)


def difference(
    low: float, high: float, *, budget: int = 2, seeds: int = 5, comparison: str = "equal steps"
) -> Interval:
    other = "scratch" if comparison == "equal steps" else "scratch_plus_dense"
    return Interval(
        (low + high) / 2, low, high, 0.95, cases=20, seeds=seeds, used=100, excluded=0, patients=10, kind="difference",
        arm="dense", reference=other, budget=budget, comparison=comparison, metric="dice", label="mean", runs=seeds,
        verdict=verdict(low, high, seeds=seeds, runs=seeds),
    )  # fmt: skip


def mean(arm: str, budget: int = 2) -> Interval:
    return replace(difference(0.1, 0.9, budget=budget), kind="mean", arm=arm, reference="", comparison="")


def curve(*estimates: Interval, **more: Any) -> Curve:
    record = {"reference": "scratch", "budgets": [2, 4], "seeds": [0], "cases": 20, "patients": 10, "section": "x"}
    return Curve((), ARMS, estimates, record={**record, "classes": ["a"], "steps": 100}, **more)


def test_a_gain_is_told_with_its_interval_and_what_it_is_the_best_of() -> None:
    said = headline(curve(difference(0.02, 0.06), difference(-0.01, 0.02, budget=4)))
    assert said == (
        "Dense contrast helped: +4.0 [+2.0, +6.0] Dice points over from scratch with 2 labelled volumes at equal "
        "steps, 95 % interval over 20 cases of 10 patients and 5 seeds (the best of 2 comparisons, 1 of which have "
        "intervals above 0)."
    )


def test_equal_compute_goes_before_equal_steps() -> None:
    found = headline(curve(difference(0.05, 0.09), difference(0.01, 0.03, comparison="equal compute")))
    assert found.startswith("Dense contrast helped: +2.0 [+1.0, +3.0] Dice points over from scratch with 2 labelled")
    assert "at equal compute" in found


def doubled(converged: bool | None, budget: int = 2) -> Convergence:
    gain = replace(difference(0.01, 0.05, budget=budget), arm="scratch_2x", comparison="twice the steps")
    return Convergence(converged, gain, 0.01, "a rule", 100)


@pytest.mark.parametrize("converged", [False, None])
def test_a_reference_that_more_steps_change_is_named_beside_the_gain(converged: bool | None) -> None:
    more = " Twice the steps alone gave from scratch +3.0 [+1.0, +5.0]: a part of the gain may be faster convergence."
    for seeds in (3, 5):
        gain = difference(0.02, 0.06, seeds=seeds)
        said = headline(curve(gain, convergence=(doubled(converged),)))
        assert said == headline(curve(gain)) + more
        assert headline(curve(gain, convergence=(doubled(True),))) == headline(curve(gain))
        assert headline(curve(gain, convergence=(doubled(converged, budget=4),))) == headline(curve(gain))
    given_time = difference(0.02, 0.06, comparison="equal compute")
    assert "Twice" not in headline(curve(given_time, convergence=(doubled(converged),)))
    assert "Twice" not in headline(curve(difference(-0.01, 0.02), convergence=(doubled(converged),)))


def test_a_shorter_distance_is_a_gain_also_where_the_file_has_it_as_a_loss(tmp_path: Path) -> None:
    shorter = replace(difference(-6.0, -4.0), metric="hausdorff_95", verdict="loss")  # as earlier versions wrote it
    longer = replace(difference(4.0, 6.0, budget=4), metric="hausdorff_95", verdict="gain")
    dice = (difference(0.02, 0.06), difference(-0.01, 0.02, budget=4))
    save_curve(curve(*dice, shorter, longer), tmp_path)
    loaded = load_curve(tmp_path)
    assert [each.verdict for each in loaded.differences("dense", metric="hausdorff_95")] == ["gain", "loss"]
    assert [each.verdict for each in loaded.differences("dense")] == ["gain", "no difference shown"]
    table = next(table for table in curve_tables(loaded) if table.caption.startswith("Hausdorff distance (95 %) in mm"))
    assert [str(row[1]) for row in table.rows] == ["-5.000 [-6.000, -4.000] (gain)", "5.000 [4.000, 6.000] (loss)"]
    assert "a distance that is shorter, below 0, is the better one" in table.notes
    assert headline(loaded).startswith("Dense contrast helped: +4.0")  # Dice decides, not the distance


def test_an_end_beside_zero_shows_its_side() -> None:
    assert "helped: +0.04 [+0.02, +0.1] Dice points" in headline(curve(difference(0.0002, 0.0006)))
    found = curve(difference(0.0002, 0.0478), difference(-0.0478, -0.00004, budget=4))
    assert [str(row[1]) for row in curve_tables(found)[0].rows] == [
        "0.024 [0.0002, 0.048] (gain)",
        "-0.024 [-0.048, -0.00004] (loss)",
    ]


def test_an_interval_without_ends_is_named_beside_a_gain() -> None:
    unknown = replace(doubled(None), difference=replace(doubled(None).difference, low=math.nan, high=math.nan))
    said = headline(curve(difference(0.02, 0.06), convergence=(unknown,)))
    assert "Twice the steps alone gave from scratch +3.0 [interval undefined]: a part" in said


def test_below_five_seeds_it_is_a_hint() -> None:
    found = headline(curve(difference(0.02, 0.06, seeds=3)))
    assert found.startswith(
        "Dense contrast may have helped, which is a hint: 3 seeds; five and a run each are asked for before a gain is "
        "believed: +4.0 [+2.0, +6.0]"
    )
    assert headline(curve(difference(0.04, 0.06, seeds=3), difference(0.01, 0.02, budget=4))).startswith(
        "Dense contrast helped: +1.5"
    )


def test_the_volumes_of_one_patient_give_a_hint(tmp_path: Path) -> None:
    save_curve(curve(replace(difference(0.02, 0.06), patients=1)), tmp_path)
    assert headline(load_curve(tmp_path)).startswith("Dense contrast may have helped, which is a hint: 1 patient; sev")


def test_where_nothing_helped_it_says_so() -> None:
    assert headline(curve(difference(-0.01, 0.02))).startswith("No gain was shown: the most was that of dense contrast")
    wide, narrow = difference(-0.05, 0.03, budget=2), difference(-0.03, 0.001, budget=4)
    assert "-1.0 [-5.0, +3.0]" in headline(curve(wide, narrow))
    assert headline(curve(difference(-0.03, -0.01))).startswith("Nothing helped, every arm lost: least did dense")
    assert headline(curve()) == ""


def test_a_loss_on_few_seeds_is_a_hint_too() -> None:
    assert headline(curve(difference(-0.03, -0.01, seeds=3))).startswith(
        "Nothing helped, every arm may have lost, which is a hint of a loss: 3 seeds; five and a run each are asked "
        "for before a loss is believed: least did dense contrast, -2.0 [-3.0, -1.0]"
    )


def test_losses_are_counted_beside_a_gain() -> None:
    said = headline(curve(difference(0.02, 0.06), difference(-0.05, -0.02, budget=4)))
    assert "(the best of 2 comparisons, 1 of which have intervals above 0 and 1 below)" in said


def test_a_file_gives_the_sentence_of_the_screen_where_weights_have_a_twin(tmp_path: Path) -> None:
    arms = (
        ARMS[0],
        CurveArm("suprem", "published weights", "pretrained", ("suprem",), 100, twin="suprem_scratch"),
        CurveArm("suprem_scratch", "their network from scratch", "scratch", ("",), 100),
    )
    own = replace(difference(-0.01, 0.02), arm="suprem", reference="suprem_scratch", comparison="equal network")
    to_reference = [replace(difference(0.2, 0.3), arm=name) for name in ("suprem", "suprem_scratch")]
    found = replace(curve(own, *to_reference), arms=arms)
    save_curve(found, tmp_path)
    expected = "No gain was shown: the most was that of published weights, +0.5 [-1.0, +2.0] Dice points over their "
    assert headline(found).startswith(expected)
    assert headline(load_curve(tmp_path)) == headline(found)


def test_the_page_begins_with_the_sentence(tmp_path: Path) -> None:
    save_curve(curve(difference(0.02, 0.06)), tmp_path / "curve")
    page = write_report([tmp_path / "curve"], tmp_path / "report.html").read_text()
    header = page[page.index("<header>") : page.index("</header>")]
    assert '<p class="lead">Dense contrast helped: +4.0 [+2.0, +6.0] Dice points' in header
    save_curve(curve(difference(-0.01, 0.02)), tmp_path / "other")
    page = write_report([tmp_path / "curve", tmp_path / "other"], tmp_path / "report.html").read_text()
    assert page.count('<p class="lead">Label efficiency: ') == 2


def test_the_screen_ends_with_the_sentence_and_a_card_carries_it(tmp_path: Path) -> None:
    console = Console(record=True, width=500, file=io.StringIO())
    found = curve(difference(0.02, 0.06), *(mean(arm) for arm in ("scratch", "dense")))
    show_curve(found, tmp_path, console)
    assert console.export_text().rstrip().splitlines()[-1] == headline(found)
    save_curve(found, tmp_path / "curve")
    record = card.record_results([tmp_path / "curve"], tmp_path / card.RECORDS / "found.json", title="Found")
    assert record.lead == (headline(found),)
    assert card.read_records(tmp_path) == [record]
    assert f"\n\n{headline(found)}\n\n" in card._markdown(record)


@pytest.mark.parametrize("arms", [3, 8])
def test_legends_of_the_curve_cover_no_interval(arms: int) -> None:
    more = tuple(CurveArm(f"arm{n}", f"another arm {n}", "pretrained", ("",), 100) for n in range(arms - 2))
    estimates = [
        replace(difference(-0.9, 0.9, budget=budget), arm=arm.name) for arm in (ARMS[1], *more) for budget in (2, 4)
    ]
    means = [mean(arm.name, budget) for arm in (*ARMS[:2], *more) for budget in (2, 4)]
    found = curve()
    figure = curve_figure(replace(found, arms=(*ARMS[:2], *more), estimates=(*means, *estimates)))
    figure.draw_without_rendering()
    for ax in figure.axes:
        legend = ax.get_legend()
        assert legend is not None
        assert legend.get_window_extent().y1 < ax.get_window_extent().y0
        assert legend.get_window_extent().y0 >= 0


@pytest.mark.parametrize(("budgets", "drawn"), [([2], "bars"), ([2, 4], "bands and bars")])
def test_means_have_visible_intervals_with_one_number_of_labels_too(budgets: list[int], drawn: str) -> None:
    found = curve(*(mean(arm.name, budget) for arm in ARMS[:2] for budget in budgets))
    figure = curve_figure(replace(found, arms=ARMS[:2], record={**found.record, "budgets": budgets}))
    figure.draw_without_rendering()
    (left, _), heights = figure.axes, []
    for collection in left.collections:
        ends = [path.get_extents() for path in collection.get_paths()]
        assert all(end.width > 0 or len(budgets) == 1 for end in ends)
        heights += [round(end.height, 6) for end in ends]
    assert heights == [0.8, 0.8]
    assert f"; {drawn} are 95 % intervals" in figure.get_suptitle()


def test_the_title_of_the_picture_counts_the_seeds_that_are_drawn_and_names_their_hints() -> None:
    of_a_class = replace(difference(0.1, 0.2, seeds=3), label="a")
    means = [replace(mean(arm), seeds=3, confidence=0.999) for arm in ("scratch", "dense")]
    found = curve(*means, difference(-0.1, 0.2, seeds=3), of_a_class)
    title = curve_figure(replace(found, record={**found.record, "seeds": [0, 1, 2, 3, 4]})).get_suptitle()
    assert ", 3 seeds; bands and bars are 99.9 % intervals" in title
    assert "hint" not in title


def test_a_table_counts_the_runs_of_arms_that_are_pretrained() -> None:
    means = curve_tables(curve(replace(mean("scratch"), runs=1), mean("dense")))[0]
    assert means.notes[0] == "95 % intervals over 20 cases of 10 patients, 5 seeds and 5 pretraining runs"
    one = curve_tables(curve(replace(mean("scratch"), runs=1, seeds=1)))[0]
    assert one.notes[0] == "95 % intervals over 20 cases of 10 patients, 1 seed"


def self_trained(folder: Path) -> Path:
    folder.mkdir()
    (folder / "history.csv").write_text("step,loss\n1,0.5\n2,0.4\n")
    (folder / "pseudo_labels.csv").write_text("step,pseudo_certain\n1,0.5\n2,0.9\n")
    (folder / "checkpoint.pt").write_bytes(b"nothing that is read")
    return folder


def grown(folder: Path, looks: int) -> None:
    """Keep two slices with labels that grow from look to look."""
    (folder / "pseudo_labels").mkdir()
    image = np.stack([np.random.default_rng(0).random((12, 10))] * 2)
    for look in range(looks):
        labels = np.zeros((2, 12, 10), np.uint8)
        labels[:, 3 : 5 + look, 3:6] = 1
        file = folder / f"pseudo_labels/step_{2 * look + 2:06d}.npz"
        np.savez_compressed(file, step=2 * look + 2, image=image, labels=labels, certain=labels > 0)


def test_pseudo_labels_are_shown_as_they_grew_up(tmp_path: Path) -> None:
    folder = self_trained(tmp_path / "run")
    grown(folder, 3)
    page = write_report([folder], tmp_path / "report.html").read_text()
    assert "Fine-tuning: loss" in page  # though it has a checkpoint, it is no pretraining
    assert "Pseudo-labels of unlabelled slices in run" in page
    picture = re.search(r'src="data:image/png;base64,([^"]+)"', page)
    assert picture is not None
    assert base64.b64decode(picture[1]).startswith(b"\x89PNG")


def test_damaged_pictures_of_pseudo_labels_are_said_and_passed_over(tmp_path: Path) -> None:
    folder = self_trained(tmp_path / "run")
    (folder / "pseudo_labels").mkdir()
    zeros = np.zeros((1, 4, 4))
    file = folder / "pseudo_labels/step_000001.npz"
    np.savez_compressed(file, step=1, image=zeros, labels=np.zeros(3), certain=zeros > 0)
    page = write_report([folder], tmp_path / "report.html").read_text()
    assert "run: the pictures of its pseudo-labels cannot be read, the log has the reason." in page
