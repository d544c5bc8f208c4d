"""Measuring a label-efficiency curve: every run of it, resumable and in parallel, and what the runs say together."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from monai_cl.engine.machine import hardware, versions
from monai_cl.evaluation._checks import check
from monai_cl.evaluation._config import read_config
from monai_cl.evaluation._hold_out import kept_apart
from monai_cl.evaluation._launch import Launch, quickest, run_process
from monai_cl.evaluation._plan import GIVEN, HANDED, LONG, PRETRAIN, TRIAL, Cell, Plan, make_plan
from monai_cl.evaluation._progress import Forecast, first_line, progress
from monai_cl.evaluation._running import CellError, Pool, ranks
from monai_cl.evaluation._steps import in_words
from monai_cl.evaluation._store import Store, read_json
from monai_cl.evaluation._summary import summarise
from monai_cl.evaluation._tuning import at_an_end
from monai_cl.evaluation._work import LOG, Work
from monai_cl.evaluation.records import VARIANT, Convergence, Curve, CurveArm, Score, left_out
from monai_cl.evaluation.results import SUMMARY, save_curve
from monai_cl.evaluation.scores import read_scores


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
    """A curve was stopped from outside; what there is has been written.

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
    arm. Two more kinds of arms come by themselves: the reference with twice the steps, which tells whether it is
    converged, and the reference with the time of a pretraining handed to it in steps (equal compute). That time is
    the one of the training loop: the seconds a pretraining step took times the number of steps, over the seconds that
    a step of the reference took, all measured in the runs themselves. Where an arm has overlays, such as self-training,
    the seconds that its fine-tuning takes longer than the reference's are handed over as well.

    A run that is finished is not done again; the same command goes on where it was stopped, and further seeds, budgets
    and arms add only what is new. Another evaluation set is evaluated with the networks that are there; where they were
    not kept (``keep_models: false``) they are fine-tuned again for it, which is said before. Results of other settings
    of training in the output folder are refused; a newer version of the package goes on, and the curve says so.
    Several processes may work on one folder (``torchrun``, SLURM, or by hand): each run is done once.

    Args:
        config: YAML file; ``monai-cl curve --help`` lists its keys, and ``tutorials/curve_hippocampus.yaml`` says of
            each what it does. Paths start from the working directory.
        output: Another output folder than that of the file.
        processes: Steps that run at the same time; each gets its share of the cores.
        threads: Threads of each step; its share of the physical cores when left out, at most ``OMP_NUM_THREADS``.
        dry_run: Check everything, say what would run, run and write nothing.
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
    with kept_apart(read, write=not dry_run) as (settled, said):
        plan = make_plan(settled)
        plan = replace(plan, notes=(*said, *plan.notes))
        work = Work(
            plan, Store(settled.output), launch or (run_process if executor else quickest()), processes, threads
        )
        own = ThreadPoolExecutor(processes) if executor is None else nullcontext(executor)
        with own as taker:
            return _measure(work, taker, dry_run=dry_run, console=console, began=began)


def _measure(work: Work, executor: Executor, *, dry_run: bool, console: Console, began: float) -> CurveResult:
    """Check, run and put together what was planned."""
    rank, pools = ranks()
    plan, store = work.plan, work.store
    notes = (*plan.notes, *check(work))
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
    curve = _assemble(work, pool.failed, notes, elapsed=elapsed)
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
    """Say how many runs there are, and how many of them are finished; perhaps the commands of one of each kind."""
    plan = work.plan
    finished = {cell.folder for cell in plan.cells if work.finished(cell)}
    table = Table(
        "arm", "what", "runs", "finished", "steps", title=Text(f"label-efficiency curve in {work.store.root}")
    )
    for arm, role in dict.fromkeys((cell.arm, cell.role) for cell in plan.cells):
        cells = [cell for cell in plan.cells if (cell.arm, cell.role) == (arm, role)]
        done = sum(cell.folder in finished for cell in cells)
        what = role if role == PRETRAIN else _role(work, cells[0])
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
        yield f"{len(again)} networks are there and are evaluated on this set"
    if lost:
        yield f"{len(lost)} of them were not kept (keep_models: false): they are fine-tuned again for it"


def _assemble(work: Work, failed: Mapping[str, str], notes: Sequence[str], *, elapsed: float) -> Curve | None:
    """The curve of all that is finished; ``None`` if nothing is."""
    plan, config = work.plan, work.plan.config
    records = {cell: work.store.record(cell) or {} for cell in plan.cells if work.finished(cell)}
    tuned = [cell for cell in records if cell.role not in (PRETRAIN, TRIAL)]
    if not tuned:
        return None
    scores = [score for cell in tuned for name in _variants(work, cell) for score in _scores(work, cell, name)]
    arms = _arms(work)
    arms += [_variant(arm, name) for arm in arms if arm.role in _GIVEN for name in config.evaluation.variants]
    found = summarise(
        scores,
        arms,
        config.reference,
        tolerance=config.convergence.tolerance if config.convergence else 0.0,
        confidence=config.evaluation.confidence,
        resamples=config.evaluation.resamples,
    )
    return Curve(
        scores=tuple(scores),
        arms=tuple(arms),
        trials=tuple(trial for name in _chosen(work) for trial in work.choices.trials(name)),
        failed=dict(failed),
        notes=(*notes, *_notes(work, arms, scores, found["convergence"])),
        record=_record(work, records, elapsed),
        **found,
    )


_GIVEN = ("reference", "scratch", "pretrained")  # roles of arms whose variants are compared


def _variants(work: Work, cell: Cell) -> tuple[str, ...]:
    return work.variants(cell) if cell.role == GIVEN else ("",)


def _variant(arm: CurveArm, name: str) -> CurveArm:
    """The arm that stands for another evaluation of the same networks."""
    title = f"{arm.title}, {name.replace('_', ' ')}"
    return CurveArm(f"{arm.name}:{name}", title, VARIANT, arm.runs, arm.steps, arm.name)


def _scores(work: Work, cell: Cell, variant: str = "") -> Iterator[Score]:
    who = (f"{cell.arm}:{variant}" if variant else cell.arm, cell.run, cell.budget, cell.seed)
    folder = work.evaluated(cell, variant) or work.store.folder(cell)
    return read_scores(folder, who, work.plan.classes, work.plan.counted)


def _arms(work: Work) -> list[CurveArm]:
    plan = work.plan
    found = []
    for name in plan.roles():
        cell = next(cell for cell in plan.cells if cell.arm == name and cell.role not in (PRETRAIN, TRIAL))
        runs = plan.config.arm(cell.base).runs
        handed = _handed(work, cell)
        if (cell.role == HANDED and handed is None) or not work.is_known(cell):  # nothing of it can have run
            continue
        steps = int(handed["steps"]) if handed else work.epochs(cell) * plan.epoch_length
        found.append(CurveArm(name, _title(work, cell), _role(work, cell), runs, steps, cell.gets, _how(handed)))
    return found


def _chosen(work: Work) -> list[str]:
    """The arms whose settings were chosen."""
    return [name for name in work.plan.trials if work.choices.are_made(name)]


def _handed(work: Work, cell: Cell) -> dict[str, Any] | None:
    try:
        return work.handed(cell.gets) if cell.role == HANDED else None
    except CellError:
        return None


def _how(handed: Mapping[str, Any] | None) -> str:
    if handed is None:
        return ""
    spent = [f"{handed['pretraining_seconds']:.4g} s of pretraining ({handed['source']})"]
    if "finetuning_seconds" in handed:
        longer = f"{handed['finetuning_seconds']:.4g} s that its fine-tuning takes longer"
        spent = [*spent, longer] if handed["pretraining_seconds"] else [longer]
    return (
        f"{' and '.join(spent)} are {handed['extra_steps']} more steps of fine-tuning, which take "
        f"{handed['seconds_per_step']:.3g} s each"
    )


def _title(work: Work, cell: Cell) -> str:
    config = work.plan.config
    base = config.arm(cell.base).title
    if cell.role == LONG:
        return f"{base}, twice the steps"
    return f"{base}, given the time of {config.arm(cell.gets).title}" if cell.role == HANDED else base


def _role(work: Work, cell: Cell) -> str:
    if cell.role != GIVEN:
        return cell.role
    if cell.arm == work.plan.config.reference:
        return "reference"
    return "scratch" if work.plan.config.arm(cell.arm).from_scratch else "pretrained"


def _notes(
    work: Work, arms: Sequence[CurveArm], scores: Sequence[Score], convergence: Sequence[Convergence]
) -> list[str]:
    config = work.plan.config
    excluded = len(work.plan.excluded)
    found = [f"{left_out(excluded)} of every score and interval, as the file asks for (evaluation.exclude)"] * bool(
        excluded
    )
    empty = {(score.case, score.label) for score in scores if math.isnan(score.dice)}
    if empty:
        everything = len({(score.case, score.label) for score in scores})
        found.append(
            f"{len(empty)} of {everything} pairs of case and class have an empty truth: their scores are undefined and "
            "left out"
        )
    missed = Counter(score.arm for score in scores if score.missed)
    found += [
        f"{arm}: a class was missed altogether {count} times, its distances count as the volume's diagonal"
        for arm, count in missed.items()
    ]
    if config.convergence is None:
        found.append(f"whether {config.reference} was trained long enough was not tried (convergence: false)")
    found += [
        f"{_convergence(each)} ({each.reason}): part of a gain at equal steps may be faster convergence"
        for each in convergence
        if each.converged is not True
    ]
    for name in _chosen(work):
        found += [f"{name}: {said}" for said in at_an_end(work.choices.trials(name))]
    steps = {work.epochs(cell) * work.plan.epoch_length for cell in work.plan.cells if _counts_steps(work, cell)}
    if len(steps) > 1:
        found.append(
            "steps were among what was tried, and the arms are fine-tuned for "
            f"{' or '.join(map(str, sorted(steps)))}: a difference at equal steps is one of recipes"
        )
    compared = {arm.gets for arm in arms if arm.role == HANDED}
    for arm in config.arms.values():
        if arm.name == config.reference or not arm.takes_time or arm.name in compared or arm.is_shared:
            continue
        known = arm.pretraining is not None or arm.pretraining_seconds is not None or arm.from_scratch
        why = "was switched off or failed" if known else "needs pretraining_seconds, which the file does not state"
        found.append(f"{arm.name}: the comparison at equal compute {why}")
    found += [f"{arm.title}: {arm.note}" for arm in arms if arm.note]
    return found


def _counts_steps(work: Work, cell: Cell) -> bool:
    return cell.role == GIVEN and work.plan.tunes_steps(cell.base) and work.is_known(cell)


def _convergence(found: Convergence) -> str:
    if found.converged is None:
        return f"whether {found.arm} is converged with {found.budget} labels is undecided"
    return f"{found.arm} is not converged with {found.budget} labels"


def _record(work: Work, records: Mapping[Cell, Mapping[str, Any]], elapsed: float) -> dict[str, Any]:
    plan, config = work.plan, work.plan.config
    handed = {arm.gets: work.handed(arm.gets) for arm in _arms(work) if arm.gets}
    return {
        "reference": config.reference,
        "budgets": list(plan.budgets),
        "seeds": list(config.seeds),
        "cases": len(plan.counted),
        "patients": len(set(plan.counted.values())),
        **(
            {"excluded": {"named": list(config.evaluation.exclude), "cases": len(plan.excluded)}}
            if plan.excluded
            else {}
        ),
        "classes": list(plan.classes),
        "section": config.evaluation.section,
        "steps": plan.steps,
        "bundle": config.bundle.name,
        "config": config.source.name,
        "settings": {key: value for key, value in config.settings.items() if key not in ("dataset_dir", "datalist")},
        "datalist": plan.datalist,
        "equal_compute": handed,
        **({"tuning": _tuning(plan)} if plan.trials else {}),
        "versions": versions(),
        "hardware": sorted({str(record["host"]) for record in records.values()}) or [hardware()],
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "elapsed_seconds": round(elapsed, 1),
        "cell_seconds": round(sum(float(record["seconds"]) for record in records.values()), 1),
        "finished": len(records),
        "planned": len(plan.cells),
    }


def _tuning(plan: Plan) -> dict[str, Any]:
    tune, cases = plan.config.tune, plan.tuned
    if tune is None or cases is None:
        return {}
    return {
        "section": cases.section,
        "cases": len(cases.names),
        "patients": len(set(cases.patients.values())),
        "labels": next(cell.budget for cell in plan.cells if cell.role == TRIAL),
        "seeds": list(tune.seeds),
    }


def _steps(work: Work, cell: Cell) -> str:
    if cell.role == PRETRAIN or (cell.role == TRIAL and work.plan.tunes_steps(cell.base)):
        return ""
    return str(work.epochs(cell) * work.plan.epoch_length) if work.is_known(cell) else "to be measured"


def _examples(cells: Sequence[Cell]) -> list[Cell]:
    """The first cell of each arm."""
    return list({cell.arm + cell.role: cell for cell in reversed(cells)}.values())[::-1]
