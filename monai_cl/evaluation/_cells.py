"""Runs of a curve, each with those that it needs, in the order in which they are worth doing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from monai_cl.evaluation._arms import Arm, Budget
from monai_cl.evaluation._config import CurveConfig
from monai_cl.evaluation._controls import COMPUTE, LONGER
from monai_cl.evaluation.records import HANDED, LONG, PAIRED, TRIAL

PRETRAIN, GIVEN = "pretraining", "given"


@dataclass(frozen=True)
class Cell:
    """One pretraining, or one fine-tuning with its evaluation.

    Attributes:
        folder: Where it is kept, below the output folder; its name.
        role: Pretraining, a trial of settings, a given arm, the reference with twice the steps, or the reference with
            the time of a pretraining.
        arm: Name of the arm.
        base: The given arm whose settings it takes.
        run: Name of the pretraining run, or of a series that takes the runs in turn; empty without.
        budget: Number of labels; 0 for pretraining.
        seed: Seed of subset and fine-tuning, or of the pretraining.
        gets: The arm whose pretraining time it gets; empty for others.
        needs: Cells that must be finished before.
        after: Cells that must have ended before, whether they failed or not.
        trial: Key of the settings of a trial; empty for others.
        start: Name of the pretraining run it starts from, where its folder does not name it.
        also: Another folder in which the same run may have been kept.
    """

    folder: str
    role: str
    arm: str
    base: str
    run: str
    budget: int
    seed: int
    gets: str = ""
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    trial: str = ""
    start: str = ""
    also: str = ""


def cells_of(config: CurveConfig, budgets: dict[Budget, int], available: int) -> Iterator[Cell]:
    """Every run, trials first, then what completes a seed: a curve that is stopped has whole seeds to show."""
    pretrainings = {cell.folder: cell for arm in config.arms.values() for cell in _pretraining(config, arm)}
    given: set[str] = set()
    trials = {name: list(_of_trials(config, arm, available)) for name, arm in config.arms.items()}
    stages = [[cell for cells in trials.values() for cell in cells]]
    ended = {name: tuple(cell.folder for cell in cells) for name, cells in trials.items()}
    stages += [list(_of_seed(config, budgets, place, seed, ended)) for place, seed in enumerate(config.seeds)]
    for tuned in stages:
        for folder in _needed(tuned, pretrainings):
            if folder not in given:
                given.add(folder)
                yield pretrainings[folder]
        yield from tuned
    yield from (cell for folder, cell in pretrainings.items() if folder not in given)
    yield from _equal_compute(config, budgets, ended[config.reference])


def _of_trials(config: CurveConfig, arm: Arm, available: int) -> Iterator[Cell]:
    """The trials of an arm; where it has several pretraining runs, the seeds take them in turn."""
    if (tune := config.tune) is None:
        return
    budget = available if tune.budget == "all" else int(tune.budget or 0)
    for (place, seed), trial in product(enumerate(tune.seeds), config.trials()[arm.name]):
        run = arm.runs[place % len(arm.runs)]
        folder = f"trials/{arm.name}/{trial}/labels_{budget}/seed_{seed}"
        needs = tuple(_pretraining_folder(stage, run) for stage in config.stages(arm.name)[-1:])
        yield Cell(folder, TRIAL, arm.name, arm.name, run, budget, seed, needs=needs, trial=trial)


def _needed(tuned: Sequence[Cell], pretrainings: Mapping[str, Cell]) -> Iterator[str]:
    """Pretrainings that these cells start from, each after the one that it goes on from."""
    for cell in tuned:
        for folder in cell.needs:
            yield from _needed([pretrainings[folder]], pretrainings)
            yield folder


def _of_seed(
    config: CurveConfig, budgets: dict[Budget, int], place: int, seed: int, ended: Mapping[str, tuple[str, ...]]
) -> Iterator[Cell]:
    """The fine-tunings of one seed, budget by budget."""
    converged_at = {budgets[each] for each in (config.convergence.budgets if config.convergence else ())}
    for budget in dict.fromkeys(budgets.values()):
        for arm, series in ((each, series) for each in config.arms.values() for series in each.series):
            run = arm.run_of(series, place)
            needs = tuple(_pretraining_folder(stage, run) for stage in config.stages(arm.name)[-1:])
            more: dict[str, Any] = _elsewhere(arm, series, run, budget, seed)
            more |= {"needs": needs, "after": ended[arm.name]}
            yield _finetuning(GIVEN, arm.name, arm.name, series, budget, seed, **more)
        if budget in converged_at:
            reference = config.reference
            yield _finetuning(LONG, reference + LONGER, reference, "", budget, seed, after=ended[reference])


def _elsewhere(arm: Arm, series: str, run: str, budget: int, seed: int) -> dict[str, Any]:
    """The other folder of a run: a series of one run is named by the run, one of several that are taken in turn not."""
    if arm.pretraining is None or not arm.pretraining.paired:
        return {}
    other = run if series == PAIRED else PAIRED
    return {"start": run, "also": _folder(arm.name, other, budget, seed)}


def _equal_compute(config: CurveConfig, budgets: dict[Budget, int], ended: tuple[str, ...]) -> Iterator[Cell]:
    """The reference with the time that an arm takes beyond it: last, since that time is the mean of all runs."""
    reference = config.reference
    if (compute := config.equal_compute) is None:
        return
    for arm in config.arms.values():
        # shipped weights cost nothing, but steps of an overlay may be longer
        free = arm.from_scratch or (arm.is_shipped and arm.overlays)
        known = config.stages(arm.name) or arm.pretraining_seconds is not None or free
        # where networks are shared, the arm they are taken from is compared
        if arm.name not in (compute.arms or ()) or arm.is_shared or not known:
            continue
        before = [_pretraining_folder(stage, run) for stage, run in product(config.stages(arm.name), arm.runs)]
        tuned = [(reference, "")] + [(arm.name, series) for series in arm.series if arm.overlays or config.tune]
        everywhere = [*product(tuned, dict.fromkeys(budgets.values()), config.seeds)]
        before += [_folder(name, series, number, seed) for (name, series), number, seed in everywhere]
        for seed, budget in product(config.seeds, dict.fromkeys(budgets[each] for each in compute.budgets)):
            name = f"{reference}{COMPUTE}{arm.name}"
            after = (*before, *ended)
            yield _finetuning(HANDED, name, reference, "", budget, seed, gets=arm.name, after=after)


def _pretraining(config: CurveConfig, arm: Arm) -> Iterator[Cell]:
    pretraining = arm.pretraining
    if pretraining is None or pretraining.of:
        return
    for seed in pretraining.seeds:
        run = f"seed_{seed}"
        needs = tuple(_pretraining_folder(stage, run) for stage in config.stages(arm.name)[-2:-1])
        yield Cell(_pretraining_folder(arm.name, run), PRETRAIN, arm.name, arm.name, run, 0, seed, needs=needs)


def _finetuning(role: str, arm: str, base: str, run: str, budget: int, seed: int, **more: Any) -> Cell:
    return Cell(_folder(arm, run, budget, seed), role, arm, base, run, budget, seed, **more)


def _pretraining_folder(arm: str, run: str) -> str:
    return f"pretraining/{arm}/{run}"


def _folder(arm: str, run: str, budget: int, seed: int) -> str:
    return "/".join(part for part in ("cells", arm, run, f"labels_{budget}", f"seed_{seed}") if part)


__all__ = ["GIVEN", "HANDED", "LONG", "PRETRAIN", "TRIAL", "Cell", "cells_of"]
