"""Label-efficiency curves: planned, claimed, resumed and summed up with steps that are pretended, and once for real."""

import ast
import csv
import io
import json
import math
import os
import pickle
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from rich.console import Console
from typer.testing import CliRunner

from monai_cl import cli, weights
from monai_cl.engine import StepTime, SurfaceDistance
from monai_cl.engine.machine import physical_cores
from monai_cl.evaluation import Curve, CurveResult, Score, load_curve, run_curve
from monai_cl.evaluation._cells import GIVEN, HANDED, LONG, PRETRAIN, Cell
from monai_cl.evaluation._config import read_config
from monai_cl.evaluation._launch import THREAD_VARIABLES, Forks, Processes, environment, run_process
from monai_cl.evaluation._plan import make_plan
from monai_cl.evaluation._running import Done, Job, Pool, ranks, reason
from monai_cl.evaluation._steps import Step, in_words
from monai_cl.evaluation._store import Store
from monai_cl.evaluation._summary import STEPS, VARIANT, Comparison, Statistics
from monai_cl.report._label_curve import curve_tables
from monai_cl.report.curve_picture import curve_in_words, draw_curve

Edit = Callable[[dict[str, Any]], Any]
NETWORK = {"init_filters": 8, "roi_size": [16, 16, 16]}


def quiet() -> Console:
    return Console(file=io.StringIO())


class Pretend:
    """Runs no step but writes what it would leave; Dice is higher for pretrained networks and more labels."""

    def __init__(self, failing: str = "never", *, dice: Callable[[dict[str, Any], int], float] | None = None) -> None:
        self.failing = failing
        self.dice = dice or (lambda given, label: 0.5 + 0.01 * given["labels"] + 0.1 * given["pretrained"])
        self.given: list[dict[str, Any]] = []
        self.cases = ["case_4", "case_5"]

    def __call__(self, arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> int:
        given = parsed(arguments)
        self.given.append(given)
        folder = Path(given["output_dir"])
        step = Path(given["config_file"][0]).stem
        if re.search(self.failing, str(folder)):
            log.write_text("Traceback\n\nerror: out of memory\n")
            return 1
        if Path(given["config_file"][1]).stem == "evaluate":
            self._evaluate(folder, Path(given["model"]).parent)
            return 0
        (Path(given.get("model", folder / "x")).parent / "given.json").write_text(json.dumps(given))
        steps = 10 * given.get("max_epochs", 1) if step == "pretrain" else 5 * given["finetune_epochs"]
        pace = 0.5 if step == "pretrain" else 0.1
        timing = {"steps": steps, "seconds": pace * steps, "step": steps, "total": steps}
        (folder / "timing.json").write_text(json.dumps(timing))
        Path(given["pretrained" if step == "pretrain" else "model"]).write_bytes(b"weights")
        return 0

    def _evaluate(self, folder: Path, tuned: Path) -> None:
        if not (tuned / "model.pt").is_file():
            raise FileNotFoundError("no network to evaluate")
        known = tuned / "given.json"
        given = json.loads(known.read_text()) if known.is_file() else {"pretrained": "none", "labels": 1}
        given["pretrained"] = given["pretrained"] != "none"
        dice = [self.dice(given, label) for label in (1, 2)]
        for name, values in {"mean_dice": dice, "surface_distance": [4.0, 5.0], "hausdorff_95": [6.0, 7.0]}.items():
            rows = [f"{case},{values[0]},{values[1]},{values[0]}" for case in self.cases]
            (folder / f"val_{name}_raw.csv").write_text("\n".join(["filename,class0,class1,mean", *rows]) + "\n")

    def folders(self) -> list[str]:
        return [given["output_dir"] for given in self.given]


def parsed(arguments: Sequence[str]) -> dict[str, Any]:
    """The overrides of a command, as values."""

    def value(text: str) -> Any:
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError):
            return text

    pairs = [argument.removeprefix("--").partition("=") for argument in arguments if argument.startswith("--")]
    return {key: value(text) for key, _, text in pairs}


@pytest.fixture
def config(study: Path, tmp_path: Path) -> Callable[..., Path]:
    """Writes a file of a curve; keyword arguments replace its keys, ``None`` removes one."""

    def write(**changes: Any) -> Path:
        content: dict[str, Any] = {
            "bundle": "volume_contrast",
            "output": str(tmp_path / "out"),
            "settings": {
                "dataset_dir": str(study),
                "recipe": "small_mr",
                "out_channels": 3,
                "finetune_epochs": 4,
                "finetune_epoch_length": 5,
                "max_epochs": 2,
                "epoch_length": 10,
                **NETWORK,
            },
            "budgets": [1, 2, "all"],
            "seeds": [0, 1],
            "arms": {"scratch": {"pretrained": "none"}, "contrast": {"pretrained": {"seeds": [0, 1]}}},
            "evaluation": {"resamples": 100},
            **changes,
        }
        path = tmp_path / "curve.yaml"
        path.write_text(yaml.safe_dump({key: value for key, value in content.items() if value is not None}))
        return path

    return write


def measure(path: Path, launch: Callable[..., int] | None = None, **options: Any) -> CurveResult:
    return run_curve(path, console=quiet(), launch=launch or Pretend(), **options)


def curve_of(result: CurveResult) -> Curve:
    assert result.curve is not None
    return result.curve


# --- what is run


def test_paired_runs_are_taken_in_turn(config: Callable[..., Path]) -> None:
    arms = {"scratch": {"pretrained": "none"}, "contrast": {"pretrained": {"seeds": [7, 8], "paired": True}}}
    launch = Pretend()
    curve = curve_of(measure(config(arms=arms, seeds=[0, 1, 2], equal_compute=False, convergence=False), launch))
    starts = {(g["seed"], Path(g["pretrained"]).parent.name) for g in launch.given if "labels" in g}
    assert {pair for pair in starts if pair[1].startswith("seed")} == {(0, "seed_7"), (1, "seed_8"), (2, "seed_7")}
    arm = next(arm for arm in curve.arms if arm.name == "contrast")
    assert arm.runs == ("seed_7", "seed_8")
    (estimate,) = [each for each in curve.differences("contrast", comparison="equal steps") if each.budget == 1]
    assert estimate.notes == (
        "the seeds took pretraining runs in turn: the spread between seeds holds that between runs",
    )
    assert {score.seed for score in curve.scores if score.arm == "contrast"} == {0, 1, 2}


def test_every_arm_gets_the_same_labels_seeds_and_steps(config: Callable[..., Path]) -> None:
    launch = Pretend()
    assert not measure(config(), launch).failed
    tuned = [given for given in launch.given if "labels" in given]

    def of(arm: str) -> list[tuple[int, int, int]]:
        mine = [given for given in tuned if f"/cells/{arm}/" in given["output_dir"]]
        return sorted((given["labels"], given["seed"], given["finetune_epochs"]) for given in mine)

    expected = [(budget, seed, 4) for budget in (1, 2, 4) for seed in (0, 1)]
    assert of("scratch") == of("contrast/seed_0") == of("contrast/seed_1") == expected
    assert of("scratch_2x") == [(budget, seed, 8) for budget in (1, 4) for seed in (0, 1)]
    assert {given["val_interval"] - given["finetune_epochs"] for given in tuned} == {1}


def test_the_time_of_a_pretraining_is_handed_to_scratch(config: Callable[..., Path]) -> None:
    launch = Pretend()
    curve = curve_of(measure(config(), launch))
    # 20 steps of 0.5 s are 100 steps of 0.1 s, 20 epochs of 5 steps
    arm = curve.arm("scratch_plus_contrast")
    assert arm.steps == 20 + 100
    assert "10 s of pretraining (mean of 2 measured runs) are 100 more steps of fine-tuning" in arm.note
    epochs = {g["finetune_epochs"] for g in launch.given if "scratch_plus" in g["output_dir"] and "labels" in g}
    assert epochs == {24}
    assert curve.record["equal_compute"]["contrast"]["seconds_per_step"] == pytest.approx(0.1)


def test_each_pretraining_run_is_fine_tuned_from_its_own_weights(config: Callable[..., Path]) -> None:
    launch = Pretend()
    measure(config(), launch)
    for given in launch.given:
        if "/cells/contrast/" in given["output_dir"] and "labels" in given:
            run = re.search(r"contrast/(seed_\d)", given["output_dir"])
            assert run is not None
            assert given["pretrained"].endswith(f"pretraining/contrast/{run[1]}/pretrained.pt")


def test_pretraining_takes_its_own_settings_only(config: Callable[..., Path]) -> None:
    launch = Pretend()
    measure(config(), launch)
    pretraining = next(given for given in launch.given if "labels" not in given and "max_epochs" in given)
    assert "finetune_epochs" not in pretraining
    assert pretraining["max_epochs"] == 2


def test_all_is_run_once_where_its_number_is_a_budget_already(config: Callable[..., Path]) -> None:
    plan = make_plan(read_config(config(budgets=[4, "all"])))
    assert plan.budgets == (4,)
    assert plan.notes == ("all is 4 labels, which is a budget already: run once",)


def test_the_arms_that_come_by_themselves_can_be_switched_off(config: Callable[..., Path]) -> None:
    plan = make_plan(read_config(config(equal_compute=False, convergence=False)))
    assert {cell.role for cell in plan.cells} == {PRETRAIN, GIVEN}
    plan = make_plan(read_config(config(equal_compute={"budgets": [2]}, convergence={"budgets": ["all"]})))
    assert {cell.budget for cell in plan.cells if cell.role == HANDED} == {2}
    assert {cell.budget for cell in plan.cells if cell.role == LONG} == {4}


def test_a_dry_run_writes_nothing(config: Callable[..., Path], tmp_path: Path) -> None:
    launch = Pretend()
    console = Console(record=True, width=300, file=io.StringIO())
    result = run_curve(config(), dry_run=True, console=console, launch=launch)
    said = console.export_text()
    assert result.curve is None
    assert not launch.given
    assert not (tmp_path / "out").exists()
    assert "to be measured" in said
    assert "python -m monai.bundle run" in said
    assert "--labels=1" in said


def test_values_survive_the_command_line() -> None:
    from fire.parser import DefaultParseValue

    step = Step(Path("b"), (Path("a.yaml"),), base=1)
    given = {"a": "none", "b": "None", "c": None, "d": [1, 2], "e": "1e-3", "f": "../x y/z", "g": True, "h": {"i": 0.5}}
    pairs = [text.removeprefix("--").partition("=") for text in step.arguments(given)[4:]]
    assert {key: DefaultParseValue(text) for key, _, text in pairs} == given
    assert in_words(step.arguments({"d": [1, 2]})).endswith("\"--config_file=['a.yaml']\" '--d=[1, 2]'")


# --- going on


def test_what_is_finished_is_not_done_again(config: Callable[..., Path]) -> None:
    first = curve_of(measure(config()))
    launch = Pretend()
    again = curve_of(measure(config(), launch))
    assert launch.given == []
    assert again.estimates == first.estimates


def test_more_seeds_and_budgets_add_only_what_is_new(config: Callable[..., Path]) -> None:
    measure(config(seeds=[0], budgets=[1, "all"]))
    launch = Pretend()
    curve = curve_of(measure(config(), launch))
    assert not [f for f in launch.folders() if "pretraining" in f or f.endswith("scratch/labels_1/seed_0")]
    assert [f for f in launch.folders() if f.endswith("scratch/labels_1/seed_1")]
    assert curve.record["seeds"] == [0, 1]


def test_a_stopped_cell_is_done_anew(config: Callable[..., Path], tmp_path: Path) -> None:
    measure(config())
    cell = tmp_path / "out/cells/scratch/labels_1/seed_0"
    (cell / "cell.json").unlink()  # written last: without it the cell is not finished
    launch = Pretend()
    measure(config(), launch)
    assert set(launch.folders()) == {str(cell)}


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (
            lambda c: c["settings"].update(max_faults=0.1),
            r"overrides\.max_faults: None -> 0\.1",
        ),
        (lambda c: c["settings"].update(finetune_epochs=6), r"overrides\.finetune_epochs: 4 -> 6"),
        (lambda c: c["arms"]["contrast"]["pretrained"].update(settings={"grid": [2, 2, 2]}), r"overrides\.grid: None"),
        (lambda c: c["settings"].update(recipe_options={"spacing": 2.0}), r"recipe: '?\w+\.\.\. -> '?\w+\.\.\."),
    ],
)
def test_other_settings_are_named_and_not_mixed(config: Callable[..., Path], edit: Edit, named: str) -> None:
    path = config()
    measure(path)
    content = yaml.safe_load(path.read_text())
    edit(content)
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ValueError, match=named):
        measure(path)


def test_the_folder_of_a_curve_on_other_volumes_is_refused(
    config: Callable[..., Path], study: Path, tmp_path: Path
) -> None:
    arms = {"scratch": {"pretrained": "none"}}
    measure(config(arms=arms), Pretend())
    before = {file: file.read_bytes() for file in (tmp_path / "out").glob("*.*")}
    content = json.loads((study / "datalist.json").read_text())
    content["training"][-1]["subject"] = "another"
    (tmp_path / "list.json").write_text(json.dumps(content))
    settings = {**yaml.safe_load(config().read_text())["settings"], "datalist": str(tmp_path / "list.json")}
    launch = Pretend()
    with pytest.raises(ValueError, match=r"holds a curve of \d+ fine-tunings on other volumes than those of training"):
        measure(
            config(arms=arms, settings=settings, seeds=[7, 8]), launch
        )  # none of its runs has the name of one there
    assert not launch.given
    assert before
    assert before == {file: file.read_bytes() for file in (tmp_path / "out").glob("*.*")}


def test_another_output_folder_takes_other_settings(config: Callable[..., Path], tmp_path: Path) -> None:
    path = config()
    measure(path)
    path = config(settings={**yaml.safe_load(path.read_text())["settings"], "finetune_epochs": 6})
    with pytest.raises(ValueError, match=r"holds a .* with other settings .*another output folder \(--out\)"):
        measure(path)
    assert measure(path, output=tmp_path / "other").folder == tmp_path / "other"


# --- failures


def test_a_failed_run_is_told_and_the_others_go_on(config: Callable[..., Path], tmp_path: Path) -> None:
    result = measure(config(), Pretend(r"scratch/labels_1/seed_1"))
    curve = curve_of(result)
    assert list(result.failed) == ["cells/scratch/labels_1/seed_1"]
    complaint = result.complaint()
    assert re.search(r"1 runs failed, .*\n  .*labels_1/seed_1: fine-tuning ended with code 1: out of memory", complaint)
    (difference,) = [d for d in curve.differences("contrast") if d.budget == 1]
    assert difference.seeds == 1
    assert "seed 1 left out: not finished in every arm" in difference.notes
    assert [d.seeds for d in curve.differences("contrast")] == [1, 2, 2]
    assert (
        "error: out of memory"
        in json.loads((tmp_path / "out/cells/scratch/labels_1/seed_1/failed.json").read_text())["reason"]
    )
    assert load_curve(tmp_path / "out").failed == result.failed


def test_the_same_command_tries_a_failed_run_again(config: Callable[..., Path]) -> None:
    measure(config(), Pretend(r"scratch/labels_1/seed_1"))
    launch = Pretend()
    assert not measure(config(), launch).failed
    assert len({*launch.folders()}) == 1


def test_without_its_pretraining_a_fine_tuning_is_not_tried(config: Callable[..., Path]) -> None:
    launch = Pretend("pretraining/contrast/seed_1")
    result = measure(config(), launch)
    blocked = [text for name, text in result.failed.items() if "cells/contrast/seed_1" in name]
    assert len(blocked) == 6
    assert set(blocked) == {"it needs pretraining/contrast/seed_1, which failed"}
    curve = curve_of(result)
    assert {d.runs for d in curve.differences("contrast")} == {1}
    assert curve.differences("contrast", comparison="equal compute")  # the time of the other run is known


def test_if_no_pretraining_works_there_is_no_equal_compute(config: Callable[..., Path]) -> None:
    result = measure(config(), Pretend("pretraining/"))
    curve = curve_of(result)
    assert (
        "is unknown, as every run of it or of the reference failed"
        in result.failed["cells/scratch_plus_contrast/labels_1/seed_0"]
    )
    assert curve.differences("contrast") == []
    assert "contrast: the comparison at equal compute was switched off or failed" in curve.notes


def test_an_evaluation_that_leaves_cases_out_is_a_failure(config: Callable[..., Path]) -> None:
    launch = Pretend()
    launch.cases = ["case_4"]
    result = measure(config(budgets=[1]), launch)
    assert result.curve is None
    text = result.failed["cells/scratch/labels_1/seed_0"]
    assert re.search(r"every case must have its scores, 1 of 2 have none in val_mean_dice_raw\.csv \(case_5\)", text)


def test_a_training_that_ends_early_is_not_taken_for_finished(config: Callable[..., Path]) -> None:
    class Stops(Pretend):
        def __call__(self, arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> int:
            code = super().__call__(arguments, log, environment)
            folder = Path(self.given[-1]["output_dir"])
            if "pretraining" in str(folder):
                (folder / "timing.json").write_text('{"steps": 3, "seconds": 1, "step": 3, "total": 20}')
            return code

    result = measure(config(), Stops())
    assert result.failed["pretraining/contrast/seed_0"] == "it stopped at step 3 of 20; the same command goes on"


def test_the_command_line_ends_with_an_error_after_writing_what_there_is(
    config: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    launch = Pretend("labels_2/seed_1")
    monkeypatch.setattr("monai_cl.evaluation.curve.quickest", lambda: launch)
    launch.stop = lambda: None  # type: ignore[attr-defined]
    monkeypatch.setattr(sys, "argv", ["monai-cl", "curve", str(config())])
    with pytest.raises(SystemExit, match="1"):
        cli.main()
    assert "runs failed, the same command tries them again" in capsys.readouterr().err
    assert {"curve.csv", "summary.csv", "summary.json", "curve.png"} <= {p.name for p in (tmp_path / "out").iterdir()}


# --- who does what


def cells(count: int) -> list[Cell]:
    return [Cell(f"cells/a/labels_1/seed_{i}", GIVEN, "a", "a", "", 1, i) for i in range(count)]


class Doing:
    """Work that calls a function."""

    def __init__(self, store: Store, do: Callable[[Cell], Any]) -> None:
        self.store, self.do = store, do

    def job(self, cell: Cell, slot: int) -> Callable[[], Any]:
        return lambda: self.do(cell)

    def finish(self, cell: Cell, job: Any, done: Any) -> None:
        self.store.finish(cell, {"done": done})

    def finished(self, cell: Cell) -> bool:
        return self.store.record(cell) is not None


def test_a_cell_is_claimed_once(tmp_path: Path) -> None:
    (cell,) = cells(1)
    stores = [Store(tmp_path) for _ in range(7)]
    won: list[bool] = []
    barrier = threading.Barrier(7)

    def work(store: Store) -> None:
        barrier.wait()
        won.append(store.claim(cell))

    threads = [threading.Thread(target=work, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(won) == 1
    for store in stores:
        store.release(cell)
    assert not list((tmp_path / cell.folder).iterdir())


CLAIM_AND_WAIT = """
import sys, time
from pathlib import Path
from monai_cl.evaluation._cells import Cell
from monai_cl.evaluation._store import Store
print(Store(Path(sys.argv[1])).claim(Cell("cells/a/labels_1/seed_0", "given", "a", "a", "", 1, 0)), flush=True)
time.sleep(60)
"""


def test_the_claim_of_a_process_that_was_killed_is_free_and_that_of_a_living_one_is_not(tmp_path: Path) -> None:
    (cell,) = cells(1)
    with subprocess.Popen([sys.executable, "-c", CLAIM_AND_WAIT, str(tmp_path)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"True\n"
        assert not Store(tmp_path).claim(cell)
        other.kill()
        other.wait()
        store = Store(tmp_path)
        assert store.claim(cell)
        store.release(cell)


@pytest.mark.parametrize(("age", "taken"), [(0, False), (600, True)])
def test_a_claim_of_0_1_0_counts_while_it_is_renewed(age: float, taken: bool, tmp_path: Path) -> None:
    (cell,), store = cells(1), Store(tmp_path)
    path = tmp_path / cell.folder / "claim.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "token": "t"}))
    then = path.stat().st_mtime - age
    os.utime(path, (then, then))
    assert store.claim(cell) is taken
    assert path.is_file() is not taken
    store.release(cell)


def test_two_pools_share_the_cells_and_do_each_once(tmp_path: Path) -> None:
    done: list[str] = []
    with ThreadPoolExecutor(4) as executor:
        pools = []
        for rank in (0, 1):
            store = Store(tmp_path)
            work = Doing(store, lambda cell: done.append(cell.folder))
            pools.append(Pool(cells(20), store, work, executor, slots=2, rank=rank, pools=2, poll=0.05))
        threads = [threading.Thread(target=each.run) for each in pools]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(done) == sorted(cell.folder for cell in cells(20))
    assert pools[0].settled()
    assert not list(tmp_path.rglob(".*.lock"))


def test_an_interrupt_releases_what_was_claimed(tmp_path: Path) -> None:
    ended = threading.Event()

    def interrupt() -> None:
        if pool.running:
            raise KeyboardInterrupt("by the user")

    with ThreadPoolExecutor(1) as executor:
        store = Store(tmp_path)
        pool = Pool(cells(3), store, Doing(store, lambda cell: ended.wait(5) and 1 / 0), executor, poll=0.05)
        with pytest.raises(KeyboardInterrupt, match="by the user"):
            pool.run(stop=ended.set, watch=interrupt)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]  # neither claims nor failures


class Submitted:
    """The job of a cluster as its executor returns it: `done` and `result`, and nothing else."""

    def __init__(self, sent: bytes) -> None:
        self.sent, self.looks = sent, 0

    def done(self) -> bool:
        self.looks += 1
        return self.looks > 1

    def result(self) -> Any:
        return pickle.loads(self.sent)()

    def cancel(self) -> bool:
        return True


class Cluster:
    """Sends jobs to another machine, for which they must be bytes."""

    def submit(self, job: Callable[[], Any]) -> Submitted:
        return Submitted(pickle.dumps(job))


def test_the_executor_of_a_cluster_can_run_the_cells(config: Callable[..., Path]) -> None:
    short: dict[str, Any] = {"budgets": [1], "seeds": [0], "equal_compute": False, "convergence": False}
    path = config(**short, arms={"scratch": {"pretrained": "none"}})
    launch = pretend_elsewhere
    curve = curve_of(measure(path, launch, executor=Cluster(), processes=2))
    assert {score.case for score in curve.scores} == {"case_4", "case_5"}


def pretend_elsewhere(arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> int:
    """A step that another process can import."""
    return Pretend()(arguments, log, environment)


def test_a_job_is_sent_as_bytes_and_tells_the_machine_it_ran_on(tmp_path: Path) -> None:
    steps = (("saying", ("-c", "print('hello')")), ("failing", ("-c", "raise SystemExit('error: no room')")))
    job = pickle.loads(pickle.dumps(Job(steps[:1], tmp_path / "log.txt", run_process, {"seed": 0})))
    done = job()
    assert isinstance(done, Done)
    assert " of " in done.host
    assert "hello" in (tmp_path / "log.txt").read_text()
    with pytest.raises(RuntimeError, match="failing ended with code 1: no room"):
        Job(steps, tmp_path / "log.txt", run_process, {})()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, (0, 1)),
        ({"RANK": "1", "WORLD_SIZE": "3"}, (1, 3)),
        ({"SLURM_PROCID": "2", "SLURM_NTASKS": "4"}, (2, 4)),
    ],
)
def test_torchrun_and_slurm_say_which_process_this_is(
    values: dict[str, str], expected: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    assert ranks() == expected


def test_a_rank_beyond_their_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ValueError, match=r"RANK must be below WORLD_SIZE, got '3', '3'; unset both to run alone"):
        ranks()


def test_steps_share_the_cores_and_are_no_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monai_cl.evaluation._launch.physical_cores", lambda: 8)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr("monai_cl.evaluation._launch._gpus", lambda: ["0", "2"])
    given = environment(2, 1)
    assert {given[name] for name in THREAD_VARIABLES} == {"2"}
    assert given["OMP_WAIT_POLICY"] == "PASSIVE"
    assert "RANK" not in given
    assert given["CUDA_VISIBLE_DEVICES"] == "2"


@pytest.mark.parametrize(
    ("processes", "said", "threads", "expected"),
    [(1, "", None, 4), (3, "", None, 1), (9, "", None, 1), (1, "2", None, 2), (2, "16", None, 2), (2, "1", 3, 3)],
)
def test_threads_are_a_share_of_the_physical_cores_unless_said_otherwise(
    processes: int, said: str, threads: int | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("psutil.cpu_count", lambda logical: 4)
    monkeypatch.setattr("os.cpu_count", lambda: 8)  # two threads run on each
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert environment(processes, 0, threads)["OMP_NUM_THREADS"] == str(expected)


def test_how_threads_wait_is_the_users_to_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert environment(1, 0)["OMP_WAIT_POLICY"] == "ACTIVE"


def test_a_process_that_may_use_fewer_cores_counts_those(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psutil.cpu_count", lambda logical: 4)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1}, raising=False)
    assert physical_cores() == 1


@pytest.mark.skipif(sys.platform != "linux", reason="forks of a warm process are taken on Linux alone")
def test_a_fork_has_the_threads_that_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "threads_here.py").write_text(
        "import os, torch\nprint('threads', torch.get_num_threads(), os.environ['OMP_WAIT_POLICY'])\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert Forks()(["-m", "threads_here"], tmp_path / "log.txt", environment(1, 0, 3)) == 0
    assert "threads 3 PASSIVE" in (tmp_path / "log.txt").read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="forks of a warm process are taken on Linux alone")
def test_a_fork_that_fails_ends_with_the_reason_that_its_program_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fails_here.py").write_text(
        "import sys\nsys.excepthook = lambda kind, error, trace: print('error:', error.__cause__)\n"
        "raise RuntimeError('Failed to evaluate') from OSError('no room')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    log = tmp_path / "log.txt"
    assert Forks()(["-m", "fails_here"], log, environment(1, 0, 1)) == 1
    assert reason(log) == "no room"


def test_a_process_that_fails_leaves_its_reason_in_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    code = Processes()(["-c", "import sys; print('error: no room'); print('after'); sys.exit(3)"], log, os.environ)
    assert code == 3
    assert reason(log) == "no room"
    stopped = Processes()
    stopped.stop()
    assert stopped(["-c", "pass"], log, os.environ) == -1


@pytest.mark.skipif(sys.platform != "linux", reason="forks of a warm process are taken on Linux alone")
def test_forks_of_a_warm_process_do_what_processes_do(tmp_path: Path) -> None:
    log, environment = tmp_path / "log.txt", {**os.environ, "OMP_NUM_THREADS": "1"}
    forks = Forks()
    assert forks(["-m", "calendar", "2026", "2"], log, environment) == 0
    assert log.read_text().startswith("$ python -m calendar 2026 2\n")
    assert "February 2026" in log.read_text()
    assert forks(["-m", "calendar", "no_year"], log, environment) == 2
    assert "invalid int value: 'no_year'" in reason(log)
    assert forks(["-m", "no_such_module"], log, environment) == 1
    assert "No module named no_such_module" in reason(log)
    forks.stop()
    assert forks(["-m", "calendar"], log, environment) == -1


# --- mistakes


@pytest.mark.parametrize(
    ("changes", "answer"),
    [
        ({"budgetz": [1]}, r"unknown key 'budgetz' in .*, did you mean 'budgets'\? \(valid: bundle, "),
        ({"seeds": None}, r"must have the keys bundle, .*; missing: seeds"),
        ({"bundle": "volume_contrasts"}, r"unknown bundle 'volume_contrasts', did you mean 'volume_contrast'"),
        ({"overlays": ["smal"]}, r"must be a file or one of volume_contrast's \(.*small.*\), got 'smal'"),
        ({"budgets": [0]}, r"budgets must be numbers of labels from 1, or all, got 0"),
        ({"budgets": [1, 8, 9]}, r"budgets must be at most the 4 labelled volumes of `training`, or all, got 8, 9"),
        ({"seeds": [0, 0]}, r"seeds must be different numbers, got \[0, 0\]"),
        ({"seeds": [-1]}, r"seeds must be whole numbers from 0, got"),
        ({"equal_compute": {"budgets": [3]}}, r"equal_compute\.budgets must be among the budgets 1, 2, all, got 3"),
        ({"convergence": {"tolerance": -1}}, r"convergence\.tolerance must be a number from 0 to 1, got -1"),
        ({"evaluation": {"resample": 100}}, r"unknown key 'resample' in evaluation, did you mean 'resamples'"),
        ({"evaluation": {"section": "validaton"}}, r"has no section 'validaton'; did you mean 'validation'\?"),
        ({"reference": "other"}, r"name it as reference, got 'other', arms without pretraining: scratch"),
        ({"arms": {"a_2x": {"pretrained": "none"}}}, r"the name of an arm must be .* got 'a_2x'"),
        ({"arms": {"a": {}}}, r"arm 'a' must name what it is `pretrained` with"),
        ({"arms": {"a": {"pretrained": "x.pt"}}}, r"compared with one arm without pretraining .* pretraining: none"),
        ({"keep_models": "no"}, r"keep_models must be true or false, got 'no'"),
        ({"keep_models": "no", "seeds": "a"}, r"seeds must be whole numbers from 0, got .*; keep_models must be"),
        ({"overlays": {"a": 1}}, r"overlays must be names or paths, got \[\{'a': 1\}\]"),
        ({"evaluation": {"confidence": 95}}, r"evaluation\.confidence must be a number from 0\.5 to 0\.999, got 95"),
        ({"evaluation": False}, r"evaluation must hold the keys section, .*exclude, variants, got False"),
        ({"equal_compute": 3}, r"equal_compute must be false or hold the keys budgets, arms, got 3"),
        ({"settings": ["a"]}, r"settings must hold ids of the bundle's configs and their values, got \['a'\]"),
        ({"arms": []}, r"arms must hold at least one name with its settings, got \[\]"),
        (
            {"arms": {"s": {"pretrained": "none"}, "a": {"pretrained": {"seeds": [1, 1]}}}},
            r"seeds of pretrained of arm 'a' must be different numbers, got \[1, 1\]",
        ),
        (
            {"arms": {"s": {"pretrained": "none"}, "a": {"pretrained": ["x.pt", "x.pt"]}}},
            r"pretrained of arm 'a' must be different paths",
        ),
    ],
)
def test_a_mistake_in_the_file_is_answered(config: Callable[..., Path], changes: dict[str, Any], answer: str) -> None:
    with pytest.raises(ValueError, match=answer):
        measure(config(**changes))


@pytest.mark.parametrize(
    ("edit", "answer"),
    [
        (
            lambda c: c["settings"].update(max_fault=3),
            r"unknown: --max_fault, did you mean 'max_faults'",
        ),
        (lambda c: c["settings"].update(labels=3), r"settings must leave labels to the curve, which sets it alike"),
        (
            lambda c: c["arms"]["scratch"].update(settings={"finetune_epochs": 9}),
            r"settings of arm 'scratch' must leave finetune_epochs to the curve",
        ),
        (lambda c: c["arms"]["scratch"].update(settings={"lr": 9}), r"an override must name an id .*unknown: --lr"),
        (
            lambda c: c["arms"]["contrast"]["pretrained"].update(settings={"grids": 1}),
            r"unknown: --grids, did you mean 'grid'",
        ),
        (lambda c: c["settings"].update(out_channels=2), r"out_channels must be 3 for the labels"),
        (lambda c: c["settings"].update(finetune_epochs=0), r"finetune_epoch_length must be at least 1, got 0 and "),
        (
            lambda c: c["arms"]["contrast"]["pretrained"].update(settings={"init_filters": 16}),
            r"arm 'contrast' pretrains another network than it fine-tunes: at least 90 %",
        ),
        (lambda c: c["arms"].update(file={"pretrained": "nowhere.pt"}), r"no file of weights at nowhere\.pt"),
    ],
)
def test_what_would_fail_later_is_refused_before_anything_runs(
    config: Callable[..., Path], edit: Edit, answer: str, tmp_path: Path
) -> None:
    path = config()
    content = yaml.safe_load(path.read_text())
    edit(content)
    path.write_text(yaml.safe_dump(content))
    launch = Pretend()
    with pytest.raises((ValueError, FileNotFoundError), match=answer):
        measure(path, launch)
    assert not launch.given
    assert not (tmp_path / "out").exists()


def test_the_checkpoint_of_another_network_is_refused_first(config: Callable[..., Path], tmp_path: Path) -> None:
    network = make_plan(read_config(config())).train.network({**NETWORK, "init_filters": 16})
    weights.save_network(network, tmp_path / "other.pt")
    arms = {"scratch": {"pretrained": "none"}, "file": {"pretrained": str(tmp_path / "other.pt")}}
    with pytest.raises(ValueError, match=r"arm 'file' cannot start from .*other\.pt: at least 90 % of the parameters"):
        measure(config(arms=arms))


def test_checkpoints_are_runs_and_their_time_must_be_stated(config: Callable[..., Path], tmp_path: Path) -> None:
    network = make_plan(read_config(config())).train.network(NETWORK)
    files = [str(tmp_path / name) for name in ("a.pt", "b.pt")]
    for file in files:
        weights.save_network(network, file)
    arms: dict[str, Any] = {"scratch": {"pretrained": "none"}, "file": {"pretrained": files}}
    curve = curve_of(measure(config(arms=arms)))
    assert curve.arm("file").runs == ("a", "b")
    assert [note for note in curve.notes if "equal compute needs pretraining_seconds, which the file does not" in note]
    arms["file"]["pretraining_seconds"] = 1.0
    assert curve_of(measure(config(arms=arms))).arm("scratch_plus_file").steps == 30


def test_a_patient_on_both_sides_is_refused(config: Callable[..., Path], study: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(study, tmp_path / "study"))
    content = json.loads((own / "datalist.json").read_text())
    content["validation"][0]["subject"] = "s1"
    (own / "datalist.json").write_text(json.dumps(content))
    settings = yaml.safe_load(config().read_text())["settings"]
    with pytest.raises(ValueError, match=r"no patient may be in both training and validation, got 1 \(s1\)"):
        measure(config(settings={**settings, "dataset_dir": str(own)}))


def test_missing_files_of_the_study_are_named(config: Callable[..., Path], study: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(study, tmp_path / "study"))
    (own / "labels/case_5.nii.gz").unlink()
    settings = yaml.safe_load(config().read_text())["settings"]
    with pytest.raises(FileNotFoundError, match=r"1 of 4 files .* are absent, such as .*case_5\.nii\.gz"):
        measure(config(settings={**settings, "dataset_dir": str(own)}))


def test_no_file_no_curve(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such file: .*none\.yaml"):
        measure(tmp_path / "none.yaml")
    with pytest.raises(FileNotFoundError, match=r"no curve in .*; `monai-cl curve CONFIG` measures one"):
        load_curve(tmp_path)
    (tmp_path / "list.yaml").write_text("[1, 2")
    with pytest.raises(ValueError, match=r"must be valid YAML, .*list\.yaml is not: while parsing"):
        measure(tmp_path / "list.yaml")


def test_the_example_is_a_curve() -> None:
    read = read_config(Path(__file__).parents[1] / "tutorials/curve_hippocampus.yaml")
    assert list(read.arms) == ["scratch", "volume_contrast", "masked"]
    assert read.reference == "scratch"


# --- what comes out


def test_the_estimates_are_those_of_the_scores(config: Callable[..., Path]) -> None:
    curve = curve_of(measure(config()))
    assert [round(e.estimate, 6) for e in curve.means("scratch")] == [0.51, 0.52, 0.54]
    assert [round(d.estimate, 6) for d in curve.differences("contrast")] == [0.1, 0.1, 0.1]
    assert [(d.runs, d.seeds, d.cases) for d in curve.differences("contrast")] == [(2, 2, 2)] * 3
    (distance,) = {e.estimate for e in curve.means("scratch", metric="surface_distance", label="right")}
    assert distance == 5.0
    assert {e.label for e in curve.estimates} == {"mean", "left", "right"}


def test_a_pretraining_that_harms_is_told_and_drawn_just_the_same(config: Callable[..., Path], tmp_path: Path) -> None:
    harm = Pretend(dice=lambda given, label: 0.5 + 0.01 * given["labels"] - 0.2 * given["pretrained"])
    curve = curve_of(measure(config(), harm))
    assert [round(d.estimate, 6) for d in curve.differences("contrast", comparison="equal compute")] == [-0.2] * 3
    said = "contrast less scratch at equal steps, in Dice points: -20.0 [-20.0, -20.0] (hint of a loss) with 1"
    assert said in curve_in_words(curve)
    picture = draw_curve(curve, tmp_path / "curve.png")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert all(math.isnan(entry.saved) for entry in curve.labels_saved)


def test_convergence_is_judged_and_told(config: Callable[..., Path]) -> None:
    def dice(given: dict[str, Any], label: int) -> float:
        return 0.5 + 0.02 * (given["finetune_epochs"] > 4) * (given["labels"] == 1)

    curve = curve_of(measure(config(), Pretend(dice=dice)))
    assert [(each.budget, each.converged) for each in curve.convergence] == [(1, False), (4, True)]
    assert [note for note in curve.notes if note.startswith("scratch is not converged with 1 labels")]
    curve = curve_of(measure(config(convergence=False, output=str(Path(config()).parent / "b"))))
    assert "whether scratch was trained long enough was not tried (convergence: false)" in curve.notes


def test_a_wide_interval_leaves_convergence_undecided(config: Callable[..., Path]) -> None:
    def dice(given: dict[str, Any], label: int) -> float:
        return 0.5 + 0.1 * (given["finetune_epochs"] > 4) * (given["seed"] - 0.5)

    curve = curve_of(measure(config(), Pretend(dice=dice)))
    table = next(table for table in curve_tables(curve) if table.caption.startswith("Was scratch"))
    assert [row[3] for row in table.rows] == ["undecided", "undecided"]


def test_a_class_without_truth_is_left_out_and_counted(config: Callable[..., Path]) -> None:
    curve = curve_of(measure(config(), Pretend(dice=lambda given, label: 0.8 if label == 1 else math.nan)))
    assert {round(e.estimate, 6) for e in curve.means("scratch")} == {0.8}
    assert not [e for e in curve.estimates if e.label == "right" and e.metric == "dice"]
    assert "2 of 4 pairs of case and class have an empty truth: their scores are undefined and left out" in curve.notes


def test_a_missed_class_is_counted() -> None:
    assert Score("a", "", 1, 0, "c", "left", 0.0, 30.0, 30.0).missed
    assert not Score("a", "", 1, 0, "c", "left", 0.0, 20.0, 30.0).missed


def test_the_table_is_tidy_and_the_curve_reads_back(config: Callable[..., Path], tmp_path: Path) -> None:
    result = measure(config())
    curve = curve_of(result)
    with open(result.folder / "curve.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:6] == ["arm", "run", "budget", "seed", "case", "class"]
    # (2 seeds) x (3 budgets x (scratch, 2 runs, equal compute) + 2 budgets of twice the steps) x 2 cases x 2 classes
    assert len(rows) == 2 * (3 * 4 + 2) * 4
    back = load_curve(result.folder)
    assert back.scores == curve.scores
    assert back.arms == curve.arms
    assert repr(back.estimates) == repr(curve.estimates)  # NaN differs from NaN
    assert repr(back.labels_saved) == repr(curve.labels_saved)
    assert back.record == curve.record
    assert {"monai_cl", "monai", "torch"} <= set(back.record["versions"])
    assert "NaN" not in (result.folder / "summary.json").read_text()


def test_the_pretraining_of_the_evaluation_cases_is_told(config: Callable[..., Path]) -> None:
    arms = {
        "scratch": {"pretrained": "none"},
        "all": {"pretrained": {"settings": {"sections": "training+validation"}}},
    }
    notes = curve_of(measure(config(arms=arms))).notes
    assert "the pretraining of all sees images of 2 patients of validation, without labels" in notes


def test_statistics_leave_out_a_run_that_never_finished() -> None:
    scores = [
        Score(arm, run, budget, seed, case, "left", 0.7 + 0.1 * (arm == "a"), 1.0, 2.0)
        for arm, runs in (("a", ("r", "s")), ("b", ("",)))
        for run in runs
        for budget in (1, 2)
        for seed in (0, 1)
        for case in ("x", "y")
        if (run, budget) != ("s", 2)
    ]
    statistics = Statistics(scores, resamples=100)
    found = [e for e in statistics.estimates([], [Comparison(STEPS, "a", "b")]) if e.metric == "dice"]
    assert [(e.budget, e.runs) for e in found] == [(1, 2), (2, 1)]
    saved = list(statistics.labels_saved(Comparison(STEPS, "a", "b")))
    assert "run s of a left out: not finished" in saved[0].notes


def test_another_evaluation_is_paired_with_the_plain_one_by_run() -> None:
    scores = [
        Score(arm, run, 1, seed, case, "left", 0.4 + 0.2 * number + 0.01 * (arm == "a:flips"), 1.0, 2.0)
        for arm in ("a", "a:flips")
        for number, run in enumerate(("r", "s"))
        for seed in (0, 1)
        for case in ("x", "y")
    ]
    statistics = Statistics(scores, resamples=100)
    pairs = [Comparison(kind, "a:flips", "a") for kind in (VARIANT, STEPS)]
    same, other = (e for e in statistics.estimates([], pairs) if e.metric == "dice")
    assert (same.low, same.high, same.runs) == (pytest.approx(0.01), pytest.approx(0.01), 2)
    assert other.low < 0 < other.high


# --- handlers


def cube(start: int, *, spacing: tuple[float, float, float] = (1.0, 1.0, 1.0), size: int = 4) -> MetaTensor:
    """One-hot (2, 12, 12, 12): a cube that begins at ``start`` along the first axis; none where ``size`` is 0."""
    inside = torch.zeros(12, 12, 12)
    inside[start : start + size, 3 : 3 + size, 3 : 3 + size] = 1
    return MetaTensor(torch.stack([1 - inside, inside]), affine=torch.diag(torch.tensor([*spacing, 1.0])).double())


def distances(metric: SurfaceDistance, *pairs: tuple[torch.Tensor, torch.Tensor]) -> list[float]:
    metric._engine, metric._name = Engine(lambda engine, batch: None), "distance"
    metric._engine.state.metric_details = {}
    metric.reset()
    metric.update(([a for a, _ in pairs], [b for _, b in pairs]))
    metric.compute()
    return [float(value) for value in metric._engine.state.metric_details["distance"].flatten()]


def test_distances_are_in_mm_of_each_case() -> None:
    thick = (2.0, 1.0, 1.0)
    # moved by 2 voxels along the first axis: 95 % of the surface are at most that far, so many mm
    found = distances(
        SurfaceDistance(percentile=100), (cube(3), cube(5)), (cube(3, spacing=thick), cube(5, spacing=thick))
    )
    assert found == [2.0, 4.0]


def test_the_average_distance_is_that_of_a_slow_loop() -> None:
    spacing = (1.5, 1.0, 0.5)
    prediction, truth = cube(2, spacing=spacing, size=5), cube(4, spacing=spacing, size=4)

    def surface(mask: torch.Tensor) -> torch.Tensor:
        padded = torch.nn.functional.pad(mask, (1,) * 6)
        n = [12] * 3
        neighbours = [
            padded[1 + dx : 1 + dx + n[0], 1 + dy : 1 + dy + n[1], 1 + dz : 1 + dz + n[2]]
            for dx, dy, dz in ((1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1))
        ]
        inner = torch.stack(neighbours).amin(0) > 0
        return torch.nonzero((mask > 0) & ~inner).float() * torch.tensor(spacing)

    a, b = surface(torch.as_tensor(prediction[1])), surface(torch.as_tensor(truth[1]))
    table = torch.cdist(a, b)
    expected = torch.cat([table.amin(1), table.amin(0)]).mean()
    assert distances(SurfaceDistance(), (prediction, truth)) == pytest.approx([float(expected)], rel=1e-5)


@pytest.mark.parametrize("percentile", [None, 95])
def test_an_empty_truth_has_no_distance_and_a_missed_class_the_diagonal(percentile: float | None) -> None:
    metric = SurfaceDistance(percentile=percentile)
    empty = cube(0, size=0)
    found = distances(metric, (cube(3), empty), (empty, empty), (empty, cube(3)))
    assert math.isnan(found[0])
    assert math.isnan(found[1])
    assert found[2] == pytest.approx(math.sqrt(3) * 12)


def test_a_label_without_spacing_is_refused() -> None:
    metric = SurfaceDistance()
    with pytest.raises(ValueError, match=r"labels that know their spacing \(MONAI's MetaTensor\), got Tensor; "):
        metric.update(([torch.zeros(2, 4, 4, 4)], [torch.zeros(2, 4, 4, 4)]))
    with pytest.raises(ValueError, match=r"percentile must be above 0 and at most 100, or None, got 0"):
        SurfaceDistance(percentile=0)


def test_the_time_of_the_steps_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = {"now": 0.0}
    monkeypatch.setattr("time.perf_counter", lambda: clock["now"])

    def step(engine: Engine, batch: int) -> None:
        clock["now"] += 2.0

    engine = Engine(step)
    StepTime(tmp_path / "timing.json").attach(engine)

    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: clock.update(now=clock["now"] + 50))  # a validation
    engine.run(range(3), max_epochs=2)
    content = json.loads((tmp_path / "timing.json").read_text())
    assert content == {"steps": 6, "seconds": 12.0, "step": 6, "total": 6}


# --- for real


def test_the_command_runs_the_steps_of_the_bundle(
    config: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    settings = {**yaml.safe_load(config().read_text())["settings"], "finetune_epochs": 1, "finetune_epoch_length": 2}
    path = config(
        settings={**settings, "num_workers": 0},
        budgets=[1],
        seeds=[0],
        arms={"scratch": {"pretrained": "none"}},
        equal_compute=False,
        convergence=False,
    )
    result = CliRunner().invoke(cli.app, ["curve", str(path)])
    assert result.exit_code == 0, result.output
    assert "1/1 cells/scratch/labels_1/seed_0 done" in result.output
    curve = load_curve(tmp_path / "out")
    assert [(s.case, s.label) for s in curve.scores] == [
        (case, label) for case in ("case_4", "case_5") for label in ("left", "right")
    ]
    assert all(0 <= score.dice <= 1 and score.surface_distance > 0 for score in curve.scores)
    folder = tmp_path / "out/cells/scratch/labels_1/seed_0"
    record = json.loads((folder / "cell.json").read_text())
    assert record["timing"]["total"] == 2
    assert (folder / "log.txt").read_text().startswith("$ python -m monai.bundle run ")
