"""The curve of all runs that are finished: their scores, arms, notes and record."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from monai_cl.engine.machine import hardware, versions
from monai_cl.evaluation._cells import GIVEN, HANDED, LONG, PRETRAIN, TRIAL, Cell
from monai_cl.evaluation._plan import Plan
from monai_cl.evaluation._running import CellError
from monai_cl.evaluation._summary import summarise
from monai_cl.evaluation._tuning import at_an_end
from monai_cl.evaluation._work import Work
from monai_cl.evaluation.records import VARIANT, Convergence, Curve, CurveArm, Score, left_out
from monai_cl.evaluation.scores import read_scores

_GIVEN = ("reference", "scratch", "pretrained")  # roles of arms whose variants are compared


def assemble(work: Work, failed: Mapping[str, str], notes: Sequence[str], *, elapsed: float) -> Curve | None:
    """The curve of all that is finished; ``None`` if nothing is."""
    plan, config = work.plan, work.plan.config
    records = {cell: work.store.record(cell) or {} for cell in plan.cells if work.finished(cell)}
    tuned = [cell for cell in records if cell.role not in (PRETRAIN, TRIAL)]
    if not tuned:
        return None
    scores = [score for cell in tuned for name in _variants(work, cell) for score in _scores(work, cell, name)]
    arms = _arms(work)
    arms += [_variant(arm, name) for arm in arms if arm.role in _GIVEN for name in config.evaluation.variants]
    result = summarise(
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
        notes=(*notes, *_notes(work, arms, scores, result["convergence"])),
        record=_record(work, records, elapsed),
        **result,
    )


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
    result = []
    for name in plan.roles():
        cell = next(cell for cell in plan.cells if cell.arm == name and cell.role not in (PRETRAIN, TRIAL))
        runs = plan.config.arm(cell.base).runs
        extra = _extra(work, cell)
        if (cell.role == HANDED and extra is None) or not work.is_known(cell):  # nothing of it can have run
            continue
        steps = int(extra["steps"]) if extra else work.epochs(cell) * plan.epoch_length
        twin = plan.config.arm(cell.base).twin if cell.role == GIVEN else ""
        title, role = _title(work, cell), role_of(work, cell)
        result.append(CurveArm(name, title, role, runs, steps, cell.gets, _how(extra), twin))
    return result


def _chosen(work: Work) -> list[str]:
    """The arms whose settings were chosen."""
    return [name for name in work.plan.trials if work.choices.are_made(name)]


def _extra(work: Work, cell: Cell) -> dict[str, Any] | None:
    try:
        return work.handed(cell.gets) if cell.role == HANDED else None
    except CellError:
        return None


def _how(extra: Mapping[str, Any] | None) -> str:
    if extra is None:
        return ""
    spent = [f"{extra['pretraining_seconds']:.4g} s of pretraining ({extra['source']})"]
    if "finetuning_seconds" in extra:
        longer = f"{extra['finetuning_seconds']:.4g} s that its fine-tuning takes longer"
        spent = [*spent, longer] if extra["pretraining_seconds"] else [longer]
    return (
        f"{' and '.join(spent)} are {extra['extra_steps']} more steps of fine-tuning, which take "
        f"{extra['seconds_per_step']:.3g} s each"
    )


def _title(work: Work, cell: Cell) -> str:
    config = work.plan.config
    base = config.arm(cell.base).title
    if cell.role == LONG:
        return f"{base}, twice the steps"
    return f"{base}, given the time of {config.arm(cell.gets).title}" if cell.role == HANDED else base


def role_of(work: Work, cell: Cell) -> str:
    """Role of a cell's arm in the curve: that of the cell, or what a given arm starts from."""
    if cell.role != GIVEN:
        return cell.role
    if cell.arm == work.plan.config.reference:
        return "reference"
    return "scratch" if work.plan.config.arm(cell.arm).from_scratch else "pretrained"


def _notes(
    work: Work, arms: Sequence[CurveArm], scores: Sequence[Score], convergence: Sequence[Convergence]
) -> list[str]:
    return [
        *_of_scores(work, scores),
        *_of_steps(work, convergence),
        *_of_compute(work, arms),
        *(f"{arm.title}: {arm.note}" for arm in arms if arm.note),
    ]


def _of_scores(work: Work, scores: Sequence[Score]) -> Iterator[str]:
    """Notes on cases and classes that count otherwise than the rest, or not at all."""
    if excluded := len(work.plan.excluded):
        yield f"{left_out(excluded)} of every score and interval, as the file asks for (evaluation.exclude)"
    empty = {(score.case, score.label) for score in scores if math.isnan(score.dice)}
    if empty:
        everything = len({(score.case, score.label) for score in scores})
        yield (
            f"{len(empty)} of {everything} pairs of case and class have an empty truth: their scores are undefined and "
            "left out"
        )
    for arm, count in Counter(score.arm for score in scores if score.missed).items():
        yield f"{arm}: a class was missed altogether {count} times, its distances count as the volume's diagonal"


def _of_steps(work: Work, convergence: Sequence[Convergence]) -> Iterator[str]:
    """Notes on arms whose number of steps, or other settings, may not be those that suit them."""
    config = work.plan.config
    if config.convergence is None:
        yield f"whether {config.reference} was trained long enough was not tried (convergence: false)"
    for each in convergence:
        if each.converged is not True:
            yield f"{_convergence(each)} ({each.reason}): part of a gain at equal steps may be faster convergence"
    for name in _chosen(work):
        yield from (f"{name}: {remark}" for remark in at_an_end(work.choices.trials(name)))
    steps = {work.epochs(cell) * work.plan.epoch_length for cell in work.plan.cells if _counts_steps(work, cell)}
    if len(steps) > 1:
        yield (
            "steps were among what was tried, and the arms are fine-tuned for "
            f"{' or '.join(map(str, sorted(steps)))}: a difference at equal steps is one of recipes"
        )


def _of_compute(work: Work, arms: Sequence[CurveArm]) -> Iterator[str]:
    """Notes on arms that are not compared with a reference of the same compute."""
    config = work.plan.config
    compared = {arm.gets for arm in arms if arm.role == HANDED}
    for arm in config.arms.values():
        if arm.name == config.reference or not arm.takes_time or arm.name in compared or arm.is_shared:
            continue
        if arm.is_shipped and not arm.overlays and arm.pretraining_seconds is None:
            why = "is that at equal steps, for the weights came with the package"
        elif arm.pretraining is not None or arm.pretraining_seconds is not None or arm.from_scratch or arm.is_shipped:
            why = "was switched off or failed"
        else:
            why = "needs pretraining_seconds, which the file does not state"
        yield f"{arm.name}: the comparison at equal compute {why}"


def _counts_steps(work: Work, cell: Cell) -> bool:
    return cell.role == GIVEN and work.plan.tunes_steps(cell.base) and work.is_known(cell)


def _convergence(found: Convergence) -> str:
    if found.converged is None:
        return f"whether {found.arm} is converged with {found.budget} labels is undecided"
    return f"{found.arm} is not converged with {found.budget} labels"


def _record(work: Work, records: Mapping[Cell, Mapping[str, Any]], elapsed: float) -> dict[str, Any]:
    plan, config = work.plan, work.plan.config
    extra_compute = {arm.gets: work.handed(arm.gets) for arm in _arms(work) if arm.gets}
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
        "equal_compute": extra_compute,
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
