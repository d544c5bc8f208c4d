"""What is about to run, in a table; and everything that came out, as one curve."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from monai_cl.engine.machine import hardware, versions
from monai_cl.evaluation._plan import GIVEN, HANDED, LONG, PRETRAIN, Cell
from monai_cl.evaluation._running import CellError
from monai_cl.evaluation._steps import in_words
from monai_cl.evaluation._summary import summarise
from monai_cl.evaluation._work import Work
from monai_cl.evaluation.records import Convergence, Curve, CurveArm, Score, left_out
from monai_cl.evaluation.scores import read_scores


def describe(work: Work, console: Console, *, commands: bool = False) -> None:
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
        if not _is_known(work, cell):
            console.print("its steps are known once the pretraining and the reference have been measured")
            continue
        for _, step, overrides in work.steps(cell):
            text = in_words(step.arguments(overrides))
            console.print(text, markup=False, highlight=False, soft_wrap=True)


def _further(work: Work, finished: set[str]) -> Iterator[str]:
    """What another evaluation set asks for, where networks are finished that have not seen it."""
    again = [c for c in work.plan.cells if c.folder not in finished and work.store.record(c) is not None]
    lost = [cell for cell in again if not work.is_kept(cell)]
    if again:
        yield f"{len(again)} networks are there and are evaluated on this set"
    if lost:
        yield f"{len(lost)} of them were not kept (keep_models: false): they are fine-tuned again for it"


def assemble(work: Work, failed: Mapping[str, str], notes: Sequence[str], *, elapsed: float) -> Curve | None:
    """The curve of all that is finished; ``None`` if nothing is."""
    plan, config = work.plan, work.plan.config
    records = {cell: work.store.record(cell) or {} for cell in plan.cells if work.finished(cell)}
    tuned = [cell for cell in records if cell.role != PRETRAIN]
    if not tuned:
        return None
    scores = [score for cell in tuned for score in _scores(work, cell)]
    arms = _arms(work)
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
        failed=dict(failed),
        notes=(*notes, *_notes(work, arms, scores, found["convergence"])),
        record=_record(work, records, elapsed),
        **found,
    )


def _scores(work: Work, cell: Cell) -> Iterator[Score]:
    who = (cell.arm, cell.run, cell.budget, cell.seed)
    folder = work.evaluated(cell) or work.store.folder(cell)
    return read_scores(folder, who, work.plan.classes, work.plan.counted)


def _arms(work: Work) -> list[CurveArm]:
    plan = work.plan
    found = []
    for name in plan.roles():
        cell = next(cell for cell in plan.cells if cell.arm == name and cell.role != PRETRAIN)
        runs = plan.config.arm(cell.base).runs
        handed = _handed(work, cell)
        if cell.role == HANDED and handed is None:  # nothing of it can have run
            continue
        steps = int(handed["steps"]) if handed else work.epochs(cell) * plan.epoch_length
        found.append(CurveArm(name, _title(work, cell), _role(work, cell), runs, steps, cell.gets, _how(handed)))
    return found


def _handed(work: Work, cell: Cell) -> dict[str, Any] | None:
    try:
        return work.handed(cell.gets) if cell.role == HANDED else None
    except CellError:
        return None


def _how(handed: Mapping[str, Any] | None) -> str:
    if handed is None:
        return ""
    return (
        f"{handed['pretraining_seconds']:.4g} s of pretraining ({handed['source']}) are {handed['extra_steps']} more "
        f"steps of fine-tuning, which take {handed['seconds_per_step']:.3g} s each"
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
    compared = {arm.gets for arm in arms if arm.role == HANDED}
    for arm in config.arms.values():
        shared = arm.pretraining is not None and arm.pretraining.of
        if arm.from_scratch or arm.name in compared or shared:
            continue
        known = arm.pretraining is not None or arm.pretraining_seconds is not None
        why = "was switched off or failed" if known else "needs pretraining_seconds, which the file does not state"
        found.append(f"{arm.name}: the comparison at equal compute {why}")
    found += [f"{arm.title}: {arm.note}" for arm in arms if arm.note]
    return found


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
        "versions": versions(),
        "hardware": sorted({str(record["host"]) for record in records.values()}) or [hardware()],
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "elapsed_seconds": round(elapsed, 1),
        "cell_seconds": round(sum(float(record["seconds"]) for record in records.values()), 1),
        "finished": len(records),
        "planned": len(plan.cells),
    }


def _steps(work: Work, cell: Cell) -> str:
    if cell.role == PRETRAIN:
        return ""
    return str(work.epochs(cell) * work.plan.epoch_length) if _is_known(work, cell) else "to be measured"


def _is_known(work: Work, cell: Cell) -> bool:
    """Whether the steps of a cell are known already."""
    return cell.role != HANDED or work.known_epochs(cell) > 0


def _examples(cells: Sequence[Cell]) -> list[Cell]:
    """The first cell of each arm."""
    return list({cell.arm + cell.role: cell for cell in reversed(cells)}.values())[::-1]
