"""What a curve says while it runs, when it is stopped, and beside its intervals."""

import io
import os
import re
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from rich.console import Console
from test_curve import Pretend, config, curve_of, measure
from typer.testing import CliRunner

from monai_cl import cli
from monai_cl.evaluation import CurveStoppedError, load_curve
from monai_cl.evaluation._plan import GIVEN, PRETRAIN, make_plan
from monai_cl.evaluation._pool import Pool
from monai_cl.evaluation._progress import Forecast, Lines
from monai_cl.evaluation._read_config import read_config
from monai_cl.evaluation._store import Store
from monai_cl.report.curve_screen import caveats, differences_table

__all__ = ["config"]  # a fixture


class Stopped(Pretend):
    """Ends this process, as a cluster does, when a folder is reached."""

    def __call__(self, arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> int:
        code = super().__call__(arguments, log, environment)
        if re.search(r"scratch/labels_2/seed_1", self.given[-1]["output_dir"]):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1.0)
            return 1
        return code


def test_what_completes_a_seed_comes_first(config: Callable[..., Path]) -> None:
    arms = {"scratch": {"pretrained": "none"}, "contrast": {"pretrained": {"seeds": [0, 1], "paired": True}}}
    plan = make_plan(read_config(config(arms=arms)))
    folders = [cell.folder for cell in plan.cells]
    second = folders.index("pretraining/contrast/seed_1")
    first = [cell.folder for cell in plan.cells[:second]]
    assert sum("/seed_0" in folder for folder in first) == len(first) == 1 + 3 * 2 + 2
    assert {cell.role for cell in plan.cells[-6:]} == {"equal compute"}


def test_a_stopped_curve_writes_its_whole_seeds(config: Callable[..., Path]) -> None:
    with pytest.raises(CurveStoppedError, match="the same command goes on") as caught:
        measure(config(), Stopped())
    curve = load_curve(caught.value.result.folder)
    seeds = {(e.budget, e.seeds) for e in curve.estimates if e.arm in ("scratch", "contrast")}
    assert seeds == {(1, 2), (2, 1), (4, 1)}
    assert re.match(r"stopped after \d+ of 30 runs, the same command goes on: only seeds that are", curve.notes[0])
    assert not measure(config(), Pretend()).failed
    assert {e.seeds for e in load_curve(caught.value.result.folder).estimates} == {2}


def test_the_command_draws_what_there_is_and_says_that_it_was_stopped(
    config: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("monai_cl.evaluation.curve.quickest", Stopped)
    result = CliRunner().invoke(cli.app, ["curve", str(config())])
    assert result.exit_code == 130
    assert "stopped; the same command goes on" in result.output
    assert (tmp_path / "out/curve.png").is_file()


def test_means_are_over_the_seeds_that_every_arm_has(config: Callable[..., Path]) -> None:
    curve = curve_of(measure(config(), Pretend(r"cells/contrast/seed_1/labels_2/seed_1")))
    assert [(e.budget, e.seeds) for e in curve.means("scratch")] == [(1, 2), (2, 1), (4, 2)]
    (mean,) = [e for e in curve.means("scratch") if e.budget == 2]
    assert "seed 1 left out: not finished in every arm" in mean.notes
    assert {s.seed for s in curve.scores if s.budget == 2 and s.arm == "scratch"} == {0, 1}  # the table keeps all


def test_the_time_left_is_told_in_plain_text_each_minute(
    config: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(read_config(config()))
    store = Store(tmp_path / "out")
    pool = Pool(plan.cells, store, lambda cell, worker: None)
    epochs = {GIVEN: 4, "twice the steps": 8, "equal compute": 0}
    forecast = Forecast(plan, store, lambda cell: epochs[cell.role])
    text = io.StringIO()
    lines = Lines(plan, pool, forecast, Console(file=text, width=200), workers=2)
    now = time.monotonic()
    monkeypatch.setattr("time.monotonic", lambda: now + 61)
    lines()
    assert re.search(r"^\d\d:\d\d 0/30 runs, time left not known yet; at nothing here$", text.getvalue(), re.M)
    pretraining = next(cell for cell in plan.cells if cell.role == PRETRAIN)
    tuned = next(cell for cell in plan.cells if cell.role == GIVEN)
    for cell, seconds in ((pretraining, 3600.0), (tuned, 400.0)):
        store.finish(cell, {"seconds": seconds})
        pool.done.add(cell.folder)
    # one more pretraining; 17 fine-tunings of 4 epochs and 4 of 8; the 6 whose steps are not known take the mean
    known = 3600 + 17 * 400 + 4 * 800
    assert forecast.seconds(set(pool.done), set(), 2) == pytest.approx(known * 28 / 22 / 2)
    monkeypatch.setattr("time.monotonic", lambda: now + 122)
    lines()
    assert re.search(r"^\d\d:\d\d 2/30 runs, about 2\.4 h left; at nothing here$", text.getvalue(), re.M)
    assert "\x1b" not in text.getvalue()


def test_caveats_stand_beside_the_interval(config: Callable[..., Path]) -> None:
    def dice(given: dict[str, object], label: int) -> float:
        longer = given["finetune_epochs"] == 8 and given["labels"] == 1
        return 0.5 + 0.1 * bool(given["pretrained"]) + 0.05 * longer

    arms = {"scratch": {"pretrained": "none"}, "contrast": {"pretrained": {"seeds": [0]}}}
    curve = curve_of(measure(config(arms=arms), Pretend(dice=dice)))
    (found,) = [each for each in curve.differences("contrast") if each.budget == 1]
    assert list(caveats(curve, found)) == [
        "hint: 2 seeds on 1 pretraining run; five and a run each are asked for before a gain is believed",
        "one pretraining run (seed_0): the spread between pretraining runs cannot be told",
        "scratch is not converged: a part may be faster convergence",
    ]
    console = Console(record=True, width=400, file=io.StringIO())
    console.print(differences_table(curve))
    said = console.export_text()
    assert re.search(r"contrast less scratch .* 1 .*\+10\.0 \[\+10\.0, \+10\.0\].* hint: 2 seeds", said)
