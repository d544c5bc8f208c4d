import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.metrics import compute_dice

from monai_cl.engine import prediction_picture
from monai_cl.engine.drawing import LINES, LINES_ON_ANY_GROUND, YELLOW, new_figure
from monai_cl.report import PredictionPicture, foreground_dice
from monai_cl.report.pictures import draw_history


def one_hot(classes: np.ndarray) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.as_tensor(classes).long(), 3).movedim(-1, 0).float()


def evaluate(predictions: list[np.ndarray], truths: list[np.ndarray], path: Path, case: str = "case") -> None:
    picture = PredictionPicture(path, 3, names={1: "left", 2: "right"})

    def step(engine: Engine, number: int) -> list[dict[str, torch.Tensor]]:
        engine.state.batch = [{"image": torch.rand(1, *truths[0].shape), "case": f"{case}_{number}"}]
        return [{"pred": one_hot(predictions[number]), "label": one_hot(truths[number])}]

    engine = Engine(step)
    picture.attach(engine)
    engine.run(range(len(truths)))


@pytest.mark.parametrize("shape", [(9, 10, 8), (9, 10)])
def test_the_picture_is_written(shape: tuple[int, ...], tmp_path: Path) -> None:
    truths = [np.random.default_rng(i).integers(0, 3, shape) for i in range(4)]
    evaluate(truths, truths, tmp_path / "sub" / "p.png")
    assert (tmp_path / "sub/p.png").read_bytes().startswith(b"\x89PNG")
    assert [p.name for p in (tmp_path / "sub").iterdir()] == ["p.png"]


@pytest.mark.parametrize(
    ("cases", "titles"),
    [
        (1, ["best and median and worst:\ncase_0"]),
        (2, ["best and median:\ncase_1", "worst:\ncase_0"]),
        (3, ["best:\ncase_2", "median:\ncase_1", "worst:\ncase_0"]),
    ],
)
def test_each_case_is_drawn_once(
    cases: int, titles: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []
    monkeypatch.setattr(prediction_picture, "show_slice", lambda *_, title: drawn.append(title))
    truth = np.ones((6, 6, 6), dtype=int)
    predictions = [np.where(np.arange(6) <= number, truth, 2) for number in range(cases)]
    evaluate(predictions, [truth] * cases, tmp_path / "p.png")
    assert [title for title in drawn if ":\n" in title] == titles


@pytest.mark.parametrize(
    "case", ["ct-117e64bc66d11604", "a_hospital_names_a_series_at_length_as_this_one_of_the_abdomen"]
)
def test_titles_lie_within_the_picture_and_apart(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(prediction_picture, "save", lambda figure, path: drawn.append(figure) or path)
    evaluate([np.ones((12, 10, 6), dtype=int)], [np.ones((12, 10, 6), dtype=int)], tmp_path / "p.png", case)
    drawn[0].canvas.draw()
    edges = [drawn[0].bbox.x0]
    for ax in drawn[0].axes[:3]:
        extent = ax.title.get_window_extent()
        edges += [extent.x0, extent.x1]
    edges.append(drawn[0].bbox.x1)
    assert edges == sorted(edges)


def test_a_network_that_says_one_class_everywhere_is_called_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    truth = np.random.default_rng(0).integers(0, 3, (6, 6, 6))
    with caplog.at_level(logging.WARNING):
        evaluate([np.zeros_like(truth)], [truth], tmp_path / "p.png")
    assert "one and the same class everywhere" in caplog.text
    caplog.clear()
    evaluate([truth], [truth], tmp_path / "q.png")
    assert "one and the same class" not in caplog.text


def test_cases_without_a_class_are_not_ranked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    monkeypatch.setattr(prediction_picture, "show_slice", lambda *_, title: drawn.append(title))
    full, empty = np.ones((6, 6, 6), dtype=int), np.zeros((6, 6, 6), dtype=int)
    evaluate([full, full, empty], [empty, full, full], tmp_path / "p.png")
    assert [title for title in drawn if ":\n" in title] == ["best and median:\ncase_1", "worst:\ncase_2"]


def test_a_class_that_the_truth_lacks_is_left_out_as_by_mean_dice() -> None:
    prediction, truth = np.array([[1, 1, 2, 0]]), np.array([[1, 1, 1, 0]])
    (metric,) = compute_dice(*(one_hot(each)[None] for each in (prediction, truth)), include_background=False)
    assert foreground_dice(prediction, truth) == pytest.approx(float(metric.nanmean())) == pytest.approx(0.8)


def test_dice_is_the_mean_over_the_classes_of_the_truth() -> None:
    truth, prediction = np.array([0, 1, 1, 2]), np.array([0, 1, 2, 2])
    assert foreground_dice(prediction, truth) == pytest.approx((2 * 1 / 3 + 2 * 1 / 3) / 2)
    assert foreground_dice(truth, truth) == 1.0
    assert np.isnan(foreground_dice(np.zeros(3), np.zeros(3)))


def luminance(colour: str) -> float:
    """Relative luminance of an sRGB colour, as WCAG defines it."""
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_lines_stand_out_from_their_ground() -> None:
    assert contrast("#000000", "#FFFFFF") == pytest.approx(21)
    assert contrast(YELLOW, "#FFFFFF") < 1.5  # why it draws areas alone
    assert min(contrast(colour, "#FFFFFF") for colour in LINES) > 2
    dark = "#16181B"  # of a report
    assert min(contrast(colour, ground) for colour in LINES_ON_ANY_GROUND for ground in ("#FFFFFF", dark)) > 2


def test_histories_on_the_same_axes_have_the_colours_of_the_palette() -> None:
    ax = new_figure(2, 2).subplots()
    for label in ("one", "two", "three"):
        draw_history(ax, [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}], label=label)
    assert [line.get_color() for line in ax.lines] == list(LINES[:3])
