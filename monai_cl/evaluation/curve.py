"""Measurement of a label-efficiency curve: every run, resumable and in parallel, and their summary."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from monai_cl.evaluation._assembly import assemble, role_of
from monai_cl.evaluation._cells import HANDED, PRETRAIN, TRIAL, Cell
from monai_cl.evaluation._checks import check
from monai_cl.evaluation._config import read_config
from monai_cl.evaluation._hold_out import earlier_list, kept_apart
from monai_cl.evaluation._launch import Launch, quickest, run_process
from monai_cl.evaluation._plan import Plan, make_plan
from monai_cl.evaluation._progress import Forecast, first_line, progress
from monai_cl.evaluation._running import Pool, ranks
from monai_cl.evaluation._steps import in_words
from monai_cl.evaluation._store import Store, read_json
from monai_cl.evaluation._work import LOG, Work
from monai_cl.evaluation.records import Curve
from monai_cl.evaluation.results import SUMMARY, save_curve


@dataclass(frozen=True)
class CurveResult:
    """Outcome of :func:`run_curve`.

    Attributes:
        folder: The output folder.
        curve: The curve; ``None`` after a dry run, in processes other than the first, and if nothing was finished.
        failed: Name and reason of each run that failed.
    """

    folder: Path
    curve: Curve | None
    failed: dict[str, str]

    def complaint(self) -> str:
        """Runs that failed and where to look; empty where none did."""
        if not self.failed:
            return ""
        reasons = [f"  {self.folder / name}: {first_line(text)}" for name, text in self.failed.items()]
        return (
            f"{len(self.failed)} runs failed, the same command tries them again; see {LOG} in their folders\n"
            + "\n".join(reasons)
        )


class CurveStoppedError(KeyboardInterrupt):
    """Error of a curve that was stopped from outside; finished results have been written.

    Attributes:
        result: The curve of the seeds that were finished.
    """

    def __init__(self, result: CurveResult) -> None:
        super().__init__("stopped; the same command goes on")
        self.result = result


def run_curve(
    config: str | Path,
    *,
    output: str | Path | None = None,
    processes: int = 1,
    threads: int | None = None,
    dry_run: bool = False,
    console: Console | None = None,
    launch: Launch | None = None,
    executor: Executor | None = None,
) -> CurveResult:
    """Measure a label-efficiency curve.

    For every arm, pretraining run, label budget and seed the bundle's own ``train`` and ``train + evaluate`` steps run
    as processes: on the same nested subsets of patients, for the same number of steps, with the same seeds in every
    arm. Two more kinds of arms come by themselves: the reference with twice the steps, which shows whether it has
    converged, and the reference with the time of a pretraining added in steps (equal compute). That time is
    the one of the training loop: the seconds a pretraining step took times the number of steps, over the seconds that
    a step of the reference took, all measured in the runs themselves. Where an arm has overlays, such as self-training,
    the seconds that its fine-tuning takes longer than the reference's are added as well.

    A run that is finished is not done again; the same command goes on where it was stopped, and further seeds, budgets
    and arms add only what is new. Another evaluation set is evaluated with the networks that exist; where they were
    not kept (``keep_models: false``) they are fine-tuned again for it, which is announced before. Results of
    other settings of training in the output folder are refused; results of an older version of the package are kept,
    and the curve notes it.
    Several processes may work on one folder (``torchrun``, SLURM, or by hand): each run is done once.

    Args:
        config: YAML file; ``monai-cl curve --help`` lists its keys, and ``tutorials/curve_hippocampus.yaml`` explains
            each what it does. Paths start from the working directory.
        output: Another output folder than that of the file.
        processes: Steps that run at the same time; each gets its share of the cores.
        threads: Threads of each step; its share of the physical cores when left out, at most ``OMP_NUM_THREADS``.
        dry_run: Check everything, list the runs, run and write nothing.
        console: Where to print.
        launch: Runs a step; processes when left out.
        executor: Takes the cells, ``processes`` of them at the same time: one of ``concurrent.futures``, or of a
            cluster, whose machines reach the same folders under the same paths. Threads of this process that start
            processes when left out.

    Returns:
        The curve and what failed. The curve is written to ``curve.csv``, ``summary.csv`` and ``summary.json``.

    Raises:
        FileNotFoundError: If the file, files of the study or a checkpoint are absent.
        CurveStoppedError: After Ctrl-C or SIGTERM, with the curve of the seeds that are finished, which is written.
        ValueError: If the file is wrong, a budget is larger than the labelled set, a patient is on both sides, a
            checkpoint is of another network, or the output folder holds results of other settings.
    """
    for name, number in (("processes", processes), ("threads", threads)):
        if number is not None and number < 1:
            raise ValueError(f"{name} must be at least 1, got {number!r}")
    began, console = time.monotonic(), console or Console()
    read = read_config(config)
    read = read if output is None else read.model_copy(update={"output": Path(output)})
    with earlier_list(read.output) as undo, kept_apart(read, write=not dry_run) as (settled, decided):
        plan = make_plan(settled)
        plan = replace(plan, notes=(*decided, *plan.notes))
        work = Work(
            plan, Store(settled.output), launch or (run_process if executor else quickest()), processes, threads
        )
        notes = (*plan.notes, *check(work))
        undo.pop_all()  # not refused: from here on the list is that of runs
        own = ThreadPoolExecutor(processes) if executor is None else nullcontext(executor)
        with own as taker:
            return _measure(work, taker, notes, dry_run=dry_run, console=console, began=began)


def _measure(
    work: Work, executor: Executor, notes: Sequence[str], *, dry_run: bool, console: Console, began: float
) -> CurveResult:
    """Run and put together what was planned and checked."""
    rank, pools = ranks()
    plan, store = work.plan, work.store
    if rank == 0:
        _describe(work, console, commands=dry_run)
    if dry_run:
        return CurveResult(store.root, None, {})
    pool = Pool(plan.cells, store, work, executor, slots=work.processes, rank=rank, pools=pools)
    forecast = Forecast(plan, store, work.known_epochs)
    stopped = False
    with progress(plan, pool, forecast, console, workers=work.processes * pools) as watch:
        try:
            pool.run(stop=getattr(work.launch, "stop", lambda: None), watch=watch)
        except KeyboardInterrupt:
            stopped = True
    result = CurveResult(store.root, None, {})
    if rank == 0:
        notes = (*notes, *_stopped(plan, pool)) if stopped else notes
        result = _written(work, pool, notes, _before(store.root) + time.monotonic() - began)
    if stopped:
        raise CurveStoppedError(result)
    return result


def _written(work: Work, pool: Pool, notes: Sequence[str], elapsed: float) -> CurveResult:
    """Write the curve of what is finished."""
    curve = assemble(work, pool.failed, notes, elapsed=elapsed)
    if curve is not None:
        save_curve(curve, work.store.root)
    return CurveResult(work.store.root, curve, dict(pool.failed))


def _stopped(plan: Plan, pool: Pool) -> list[str]:
    return [
        f"stopped after {len(pool.done)} of {len(plan.cells)} runs, the same command goes on: only seeds that are "
        "finished in every arm count"
    ]


def _before(root: Path) -> float:
    """Seconds that earlier starts of this curve took."""
    known = read_json(root / SUMMARY)
    return float(known["record"].get("elapsed_seconds", 0.0)) if known else 0.0


def _describe(work: Work, console: Console, *, commands: bool = False) -> None:
    """Print the number of runs and of finished ones, on request with a command of each kind."""
    plan = work.plan
    finished = {cell.folder for cell in plan.cells if work.finished(cell)}
    table = Table(
        "arm", "what", "runs", "finished", "steps", title=Text(f"label-efficiency curve in {work.store.root}")
    )
    for arm, role in dict.fromkeys((cell.arm, cell.role) for cell in plan.cells):
        cells = [cell for cell in plan.cells if (cell.arm, cell.role) == (arm, role)]
        done = sum(cell.folder in finished for cell in cells)
        what = role if role == PRETRAIN else role_of(work, cells[0])
        table.add_row(Text(arm), Text(what), str(len(cells)), str(done), _steps(work, cells[0]))
    console.print(table)
    budgets = ", ".join(map(str, plan.budgets))
    seeds = ", ".join(map(str, plan.config.seeds))
    console.print(f"labels: {budgets}; seeds: {seeds}; {plan.config.evaluation.section}: {plan.counts()}", markup=False)
    for line in _further(work, finished):
        console.print(line, markup=False)
    for cell in _examples(plan.cells) if commands else ():
        console.rule(Text(cell.folder))
        if not work.is_known(cell):
            before = "the pretraining and the reference" if cell.role == HANDED else "its trials"
            console.print(f"its steps and settings are known once {before} have been measured", markup=False)
            continue
        for _, step, overrides in work.steps(cell):
            text = in_words(step.arguments(overrides))
            console.print(text, markup=False, highlight=False, soft_wrap=True)


def _further(work: Work, finished: set[str]) -> Iterator[str]:
    """Further work that another evaluation set asks for, where networks are finished that have not seen it."""
    again = [c for c in work.plan.cells if c.folder not in finished and work.store.record(c) is not None]
    lost = [cell for cell in again if not work.is_kept(cell)]
    if again:
        yield f"{len(again)} networks exist and are evaluated on this set"
    if lost:
        yield f"{len(lost)} of them were not kept (keep_models: false): they are fine-tuned again for it"


def _steps(work: Work, cell: Cell) -> str:
    if cell.role == PRETRAIN or (cell.role == TRIAL and work.plan.tunes_steps(cell.base)):
        return ""
    return str(work.epochs(cell) * work.plan.epoch_length) if work.is_known(cell) else "to be measured"


def _examples(cells: Sequence[Cell]) -> list[Cell]:
    """The first cell of each arm."""
    return list({cell.arm + cell.role: cell for cell in reversed(cells)}.values())[::-1]
