"""What a curve says while it runs, when it is stopped, and beside its intervals."""

import io
import json
import os
import re
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from rich.console import Console
from test_curve import Doing, Pretend, config, curve_of, measure
from typer.testing import CliRunner

from monai_cl import cli
from monai_cl.engine.planning import FlightPlan
from monai_cl.evaluation import CurveStoppedError, load_curve
from monai_cl.evaluation._cells import GIVEN, PRETRAIN
from monai_cl.evaluation._config import Arm, CurveConfig, Pretraining, read_config
from monai_cl.evaluation._plan import make_plan
from monai_cl.evaluation._progress import Forecast, Lines
from monai_cl.evaluation._running import Pool
from monai_cl.evaluation._store import Store, write_json
from monai_cl.evaluation._work import EVALUATION, EVALUATIONS
from monai_cl.evaluation.curve_plan import is_curve, plan_curve
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
    pool = Pool(plan.cells, store, Doing(store, lambda cell: None), ThreadPoolExecutor(1))
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


def test_a_network_that_lacks_an_evaluation_takes_as_long_as_other_evaluations_did(
    config: Callable[..., Path], tmp_path: Path
) -> None:
    plan = make_plan(read_config(config()))
    store = Store(tmp_path / "out")
    forecast = Forecast(plan, store, lambda cell: 4)
    for cell in plan.cells:
        store.finish(cell, {"seconds": 400.0, "finished": "2026-01-01T10:00:00+00:00"})
    trained = [cell for cell in plan.cells if cell.role != PRETRAIN]
    done = {cell.folder for cell in plan.cells if cell.role == PRETRAIN}
    assert forecast.seconds(done, set(), 2) is None
    then = {10.0: "2026-01-01T10:00:00+00:00", 20.0: "2026-02-01T10:00:00+00:00"}
    for cell, (seconds, finished) in zip(trained[:2], then.items(), strict=True):
        folder = store.folder(cell) / EVALUATIONS / "a"
        folder.mkdir(parents=True)
        write_json(folder / EVALUATION, {"seconds": seconds, "finished": finished})
    done |= {cell.folder for cell in trained[:2]}
    # the first was evaluated with its training, and its seconds are those of both
    assert forecast.seconds(done, set(), 2) == pytest.approx(20 * (len(trained) - 2) / 2)


def test_caveats_stand_beside_the_interval(config: Callable[..., Path]) -> None:
    def dice(given: dict[str, object], label: int) -> float:
        longer = given["finetune_epochs"] == 8 and given["labels"] == 1
        return 0.5 + 0.1 * bool(given["pretrained"]) + 0.05 * longer

    arms = {"scratch": {"pretrained": "none"}, "contrast": {"pretrained": {"seeds": [0]}}}
    curve = curve_of(measure(config(arms=arms), Pretend(dice=dice)))
    (found,) = [each for each in curve.differences("contrast") if each.budget == 1]
    assert list(caveats(curve, found)) == [
        "hint: 2 seeds on 1 pretraining run; five and a run each are asked for before a gain is believed",
        "one pretraining run (seed_0): the spread between pretraining runs is unknown",
        "scratch is not converged: a part may be faster convergence",
    ]
    console = Console(record=True, width=400, file=io.StringIO())
    console.print(differences_table(curve))
    said = console.export_text()
    assert re.search(r"contrast less scratch .* 1 .*\+10\.0 \[\+10\.0, \+10\.0\].* hint: 2 seeds", said)


# --- what is asked for, and what it will take


def listed(text: str) -> set[str]:
    return set(re.findall(r"\w+", text))


def every_key() -> set[str]:
    sections = [CurveConfig, Arm, Pretraining, *CurveConfig.sections().values()]
    return {key for section in sections for key in section.known()}


@pytest.mark.parametrize("verb", ["curve", "plan"])
def test_help_and_example_name_every_key(verb: str) -> None:
    said = CliRunner().invoke(cli.app, [verb, "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"}).output
    example = (Path(__file__).parents[1] / "tutorials/curve_hippocampus.yaml").read_text()
    assert not every_key() - listed(said)
    assert not every_key() - listed(example)
    named = re.search(r"Keys of the file of a curve, which \S+ explains: ([^.]*)\.", said)
    assert named is not None
    assert listed(named[1]) == {*CurveConfig.known()}  # and no key that the reader does not know


@pytest.mark.parametrize(
    ("changes", "answer"),
    [
        ({"keep_model": True}, "unknown key 'keep_model' in .*, did you mean 'keep_models'"),
        ({"evaluation": {"holdout": 3}}, "unknown key 'holdout' in evaluation, did you mean 'hold_out'"),
        ({"equal_compute": {"budget": [1]}}, "unknown key 'budget' in equal_compute, did you mean 'budgets'"),
        ({"convergence": {"tolerances": 1}}, "unknown key 'tolerances' in convergence, did you mean 'tolerance'"),
        ({"arms": {"a": {"pretraind": 1}}}, "unknown key 'pretraind' in arm 'a', did you mean 'pretrained'"),
        (
            {"arms": {"a": {"pretrained": {"seed": [1]}}}},
            "unknown key 'seed' in pretrained of arm 'a', did you mean 'seeds'",
        ),
    ],
)
def test_an_unknown_key_is_answered_with_the_closest(
    config: Callable[..., Path], changes: dict[str, object], answer: str
) -> None:
    with pytest.raises(ValueError, match=answer):
        read_config(config(**changes))


def flight(seconds: float, steps: int, volumes: int) -> FlightPlan:
    return FlightPlan(
        device="2 CPU cores", precision="fp32", steps=steps, measured_steps=3, volumes=volumes, loader_seconds=0.1,
        step_seconds=0.5, seconds=seconds, first_batch_seconds=2.0, prepare_seconds=4.0, hours=0.0, memory=1.0,
        memory_free=1.0, gpu_memory=None, gpu_memory_total=None, disk=1.0, disk_free=1.0, cache_disk=1.0,
        from_cache=False,
    )  # fmt: skip


def test_a_plan_takes_a_curve(config: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    measured: list[dict[str, object]] = []

    def plan_run(files: Sequence[Path], *, steps: int, seconds: float, **overrides: object) -> FlightPlan:
        measured.append(overrides)
        return flight(2.0, 20, 4) if files[0].stem == "pretrain" else flight(1.0, 20, 4)

    monkeypatch.setattr("monai_cl.evaluation.curve_plan.plan_run", plan_run)
    path = config()
    found = plan_curve(path, console=Console(file=io.StringIO()))
    assert [overrides.get("labels") for overrides in measured] == [None, 4]
    kinds = {(kind.arm, kind.what): kind for kind in found.kinds}
    assert kinds["contrast", "pretraining"].seconds == 2 * (4 + 2 + 20 * 2.0)
    # preparing 1, 2 and 4 volumes at 1 s, the first batch, 4 epochs of 5 steps, 2 cases of 1.5 s; of 2 seeds
    assert kinds["scratch", "given"].seconds == 2 * sum(volumes + 2 + 20 + 3 for volumes in (1, 2, 4))
    # 40 s of pretraining are 40 steps
    assert kinds["scratch_plus_contrast", "equal compute"].seconds == 2 * sum(n + 2 + 60 + 3 for n in (1, 2, 4))
    assert found.hours == pytest.approx(sum(kind.seconds for kind in found.kinds) / 3600)
    assert not (tmp_path / "out").exists()
    measure(path)
    assert plan_curve(path, console=Console(file=io.StringIO())).hours == 0


def test_the_command_plans_a_curve_from_real_steps(config: Callable[..., Path], tmp_path: Path) -> None:
    settings = {**yaml.safe_load(config().read_text())["settings"], "num_workers": 0}
    arms = {"scratch": {"pretrained": "none"}}
    path = config(budgets=[1], seeds=[0], settings=settings, arms=arms, equal_compute=False, convergence=False)
    assert is_curve(path)
    assert not is_curve(Path(__file__).parents[1] / "bundles/volume_contrast/configs/train.yaml")
    options = ["--measured-steps", "3", "--measured-seconds", "1", "--json", str(tmp_path / "p.json")]
    result = CliRunner().invoke(cli.app, ["plan", str(path), *options])
    assert result.exit_code == 0, result.output
    assert "2 cases of 2 patients" in result.output
    written = json.loads((tmp_path / "p.json").read_text())
    assert written["hours"] > 0
    assert written["step_seconds"]["fine-tuning"] > 0
