"""Hours that a curve will take, from a few measured steps of each kind of run in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from monai_cl._files import write_json
from monai_cl.engine.planning import FlightPlan, plan_run
from monai_cl.engine.planning.flight_plan import duration
from monai_cl.evaluation._cells import GIVEN, HANDED, LONG, PRETRAIN, TRIAL, Cell
from monai_cl.evaluation._checks import check
from monai_cl.evaluation._config import is_curve, read_config
from monai_cl.evaluation._hold_out import kept_apart
from monai_cl.evaluation._launch import run_process
from monai_cl.evaluation._plan import Plan, make_plan
from monai_cl.evaluation._steps import Step
from monai_cl.evaluation._store import Store
from monai_cl.evaluation._work import Work
from monai_cl.evaluation.records import of_patients


@dataclass(frozen=True)
class PlannedRuns:
    """Runs of one kind.

    Attributes:
        arm: Name of the arm.
        what: The kind of run: pretraining, or what the arm is.
        runs: Number of runs.
        finished: Number of those that are finished.
        seconds: Seconds of all that are left, one after another.
    """

    arm: str
    what: str
    runs: int
    finished: int
    seconds: float


@dataclass(frozen=True)
class CurvePlan:
    """Cost of a curve; a run alone on the machine, one after another.

    Attributes:
        kinds: The runs by arm and kind.
        hours: Hours that are left in all.
        cases: Number of evaluation cases.
        patients: Number of patients they are of.
        step_seconds: Seconds a step: of each pretraining arm, of ``fine-tuning``, and of that of arms with overlays.
    """

    kinds: tuple[PlannedRuns, ...]
    hours: float
    cases: int
    patients: int
    step_seconds: Mapping[str, float]

    def table(self) -> Table:
        """Table for a terminal."""
        table = Table("arm", "what", "runs", "finished", "time left", title="curve plan", title_justify="left")
        for kind in self.kinds:
            table.add_row(kind.arm, kind.what, str(kind.runs), str(kind.finished), duration(kind.seconds))
        table.add_section()
        runs, finished = sum(kind.runs for kind in self.kinds), sum(kind.finished for kind in self.kinds)
        table.add_row(
            "all", "one after another", str(runs), str(finished), f"[bold]{duration(3600 * self.hours)}[/bold]"
        )
        counted = of_patients(self.cases, self.patients)
        table.caption = f"{counted} evaluated by each network, a case as long as its preparation and a step"
        return table

    def write(self, path: str | Path) -> None:
        """Write the plan as JSON."""
        write_json(path, asdict(self))


def plan_curve(
    config: str | Path, *, steps: int = 20, seconds: float = 60.0, console: Console | None = None
) -> CurvePlan:
    """Measure a few steps of the fine-tuning and of each pretraining of a curve, and extend them to what is left.

    Nothing of the curve is run or written. Times are those of a machine that does nothing else, one run at a time.

    Args:
        config: The YAML file.
        steps: Steps to measure of each, at most.
        seconds: Time of each measurement, at most.
        console: Console for progress messages.

    Raises:
        ValueError: As in :func:`monai_cl.evaluation.run_curve`.
    """
    console = console or Console()
    with kept_apart(read_config(config), write=False) as (settled, _):
        plan = make_plan(settled)
        work = Work(plan, Store(settled.output), run_process)
        check(work)
        result: dict[str, FlightPlan] = {}
        for name, step, overrides in _measured(work):
            console.print(f"measuring {name}", markup=False, highlight=False)
            result[name] = plan_run([*step.files], steps=steps, seconds=seconds, **overrides)
    times = _Times(work, result)
    kinds = []
    for arm, role in dict.fromkeys((cell.arm, cell.role) for cell in plan.cells):
        cells = [cell for cell in plan.cells if (cell.arm, cell.role) == (arm, role)]
        left = [cell for cell in cells if not work.finished(cell)]
        spent = sum(times.of(cell) for cell in left)
        kinds.append(PlannedRuns(arm, role, len(cells), len(cells) - len(left), spent))
    return CurvePlan(
        kinds=tuple(kinds),
        hours=sum(kind.seconds for kind in kinds) / 3600,
        cases=len(plan.cases),
        patients=len(set(plan.patients.values())),
        step_seconds={name: each.seconds for name, each in result.items()},
    )


_TUNING = "fine-tuning"


def _measured(work: Work) -> list[tuple[str, Step, dict[str, Any]]]:
    """Name, step and overrides of each kind of training."""
    plan = work.plan
    firsts = {cell.arm: cell for cell in reversed(plan.cells) if cell.role == PRETRAIN}
    tuned = {cell.arm: cell for cell in reversed(plan.cells) if cell.role in (TRIAL, GIVEN)}  # trials where any exist
    where = {"output_dir": str(plan.config.output)}
    result = [
        (name, plan.pretrain[name], {**work.settings.overrides(cell, plan.pretrain[name]), **where, "seed": cell.seed})
        for name, cell in firsts.items()
    ]
    for arm in (plan.config.reference, *(arm for arm in plan.own if arm != plan.config.reference)):
        cell, step = tuned[arm], plan.training(arm)
        more = {"labels": max(plan.budgets), "pretrained": "none", "seed": cell.seed}
        result.append((_tuning(arm, plan), step, {**work.settings.overrides(cell, step), **where, **more}))
    return result


def _tuning(arm: str, plan: Plan) -> str:
    """Name of the measurement of an arm's fine-tuning: that of the reference but for arms with overlays."""
    return f"{_TUNING} of {arm}" if arm in plan.own and arm != plan.config.reference else _TUNING


@dataclass(frozen=True)
class _Times:
    """Seconds of cells, from what was measured."""

    work: Work
    found: Mapping[str, FlightPlan]

    def of(self, cell: Cell) -> float:
        """Seconds of a cell that is not finished."""
        if cell.role == PRETRAIN:
            return self._pretraining(cell.arm)
        plan = self.work.plan
        tuning = self.found[_tuning(cell.base, plan)]
        volume = tuning.prepare_seconds / max(tuning.volumes, 1)
        evaluated = len(plan.seen(cell).names) * (volume + tuning.step_seconds)
        if self.work.store.record(cell) is not None and self.work.is_kept(cell):
            return evaluated  # on another set
        steps = self._epochs(cell) * plan.epoch_length
        return volume * cell.budget + tuning.first_batch_seconds + steps * tuning.seconds + evaluated

    def _pretraining(self, arm: str) -> float:
        result = self.found[arm]
        return result.prepare_seconds + result.first_batch_seconds + result.steps * result.seconds

    def _epochs(self, cell: Cell) -> float:
        known = self.work.known_epochs(cell)
        config, plan = self.work.plan.config, self.work.plan
        if known:
            return known
        if cell.role != HANDED:
            return plan.epochs * (2 if cell.role == LONG else 1)
        stated = config.arm(cell.gets).pretraining_seconds
        stages = [self.found[stage].steps * self.found[stage].seconds for stage in config.stages(cell.gets)]
        spent = sum(stages) if stated is None else stated
        step, own = self.found[_TUNING].seconds, self.found[_tuning(cell.gets, plan)].seconds
        return plan.epochs + (spent + max(own - step, 0.0) * plan.steps) / max(step * plan.epoch_length, 1e-9)


__all__ = ["CurvePlan", "PlannedRuns", "is_curve", "plan_curve"]
