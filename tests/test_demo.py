"""The demo runs every step, and says of its own figures alone whether anything helped."""

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from rich.console import Console

from monai_cl.demo import ARMS, LONGER, command_line, run_demo
from monai_cl.evaluation._launch import Processes
from monai_cl.evaluation._running import CellError
from monai_cl.report.demo_finding import Gain, finding, gains_of

TINY = {"max_epochs": 1, "epoch_length": 2, "finetune_epochs": 2, "finetune_epoch_length": 2, "batch_size": 2}


def test_the_demo_runs_every_step_and_draws_its_picture(tmp_path: Path) -> None:
    console = Console(record=True, width=400)
    result = run_demo(
        tmp_path / "d", unlabelled=2, labelled=1, draws=1, test=2, overrides=TINY, processes=2, console=console
    )
    assert list(result.dice) == [arm.title for arm in ARMS]
    assert all(0 <= value <= 1 for values in result.dice.values() for value in values)
    assert result.picture.read_bytes().startswith(b"\x89PNG")
    text = console.export_text()
    commands = [line for line in text.splitlines() if line.startswith("python -m monai.bundle run")]
    assert len(commands) == len(result.seconds) == 1 + 3 * len(ARMS)
    assert len(list((tmp_path / "d/logs").iterdir())) == len(commands)
    assert f"--finetune_epochs={2 * LONGER}" in text
    assert result.finding in text
    assert result.finding.startswith("One draw of the labels has no spread and shows nothing")
    with pytest.raises(FileExistsError, match="the demo needs an empty folder"):
        run_demo(tmp_path / "d")


class Refusing(Processes):
    """Launch that runs nothing: pretraining fails, all else succeeds."""

    def __init__(self) -> None:
        super().__init__()
        self.titles: list[str] = []

    def __call__(self, arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> int:
        self.titles.append(log.stem)
        log.write_text("error: no room for a checkpoint\n", encoding="utf-8")
        return 1 if log.stem == "pretrain" else 0


@pytest.mark.parametrize("processes", [1, 3])
def test_a_pretraining_that_failed_ends_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int
) -> None:
    """What rests on it would fine-tune half a network."""
    launch = Refusing()
    monkeypatch.setattr("monai_cl.demo.quickest", lambda: launch)
    console = Console(quiet=True)
    with pytest.raises(CellError, match=r"^pretrain ended with code 1: no room for a checkpoint"):
        run_demo(tmp_path / "d", unlabelled=1, labelled=1, draws=2, test=1, processes=processes, console=console)
    assert "pretrain" in launch.titles
    assert launch.stopped
    assert not [title for title in launch.titles if "self-trained" in title]


def test_a_demo_needs_a_process(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="processes must be at least 1, got 0"):
        run_demo(tmp_path / "d", processes=0)
    assert not (tmp_path / "d").exists()


def test_gains_are_paired_differences_in_dice_points_with_their_spread() -> None:
    first, second = gains_of({"a": (0.5, 0.7), "b": (0.4, 0.5), "c": (0.6, 0.6)}, "a")
    assert (first.over, second.over) == ("b", "c")
    assert first.each == pytest.approx((10, 20))
    assert first.mean == pytest.approx(15)
    assert first.spread == pytest.approx(math.sqrt(50))
    assert first.shown
    assert not second.shown
    assert not second.lost


@pytest.mark.parametrize(
    ("over_same", "over_all", "said"),
    [
        (
            (2.0, 3.0, 4.0),
            (1.0, 2.0, 3.0),
            "X may have helped (a hint: 3 draws of the labels): +3.0 Dice points over s",
        ),
        (
            (2.0, 3.0, 4.0, 2.0, 3.0),
            (1.0, 2.0, 3.0, 2.0, 2.0),
            "X may have helped (a hint: 5 draws of the labels on one pretraining run): +2.8 Dice points over",
        ),
        (
            (0.02, 0.03, 0.04),
            (0.02, 0.03, 0.04),
            "X may have helped (a hint: 3 draws of the labels): +0.03 Dice points",
        ),
        ((2.0, 3.0, 4.0), (-1.0, 2.0, 3.0), "X was ahead of same, which is not shown for all: +3.0"),
        ((0.1, 0.2, 9.0), (9.0, 2.0, 0.1), "No gain is shown for x: +3.1"),
        (
            (-2.0, -3.0, -4.0),
            (-1.0, -2.0, -3.0),
            "X did not help and may have lost (a hint: 3 draws of the labels): -3.0 Dice points over",
        ),
        ((-2.0, -3.0, -4.0), (-1.0, 2.0, 0.0), "No gain is shown for x: -3.0"),
        (
            (5.0,),
            (6.0,),
            "One draw of the labels has no spread and shows nothing: +5.0 Dice points over same and +6.0",
        ),
    ],
)
def test_the_sentence_follows_from_the_figures(
    over_same: tuple[float, ...], over_all: tuple[float, ...], said: str
) -> None:
    assert finding("X", [Gain("same", over_same), Gain("all", over_all)]).startswith(said)


def test_commands_can_be_pasted() -> None:
    words = shlex.split(command_line({"bundle_root": "a b", "config_file": ["x.yaml", "y.yaml"], "labels": 4}))
    assert words[:4] == ["python", "-m", "monai.bundle", "run"]
    assert words[4:] == ["--bundle_root", "a b", "--config_file", "['x.yaml', 'y.yaml']", "--labels", "4"]
