"""Every run that a curve consists of, in the order in which they are worth doing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from monai_cl._words import suggestion
from monai_cl.data import digest
from monai_cl.datalist import load_datalist, read_datalist, split_sections, subject_of
from monai_cl.engine.patients import patients_of
from monai_cl.evaluation._arms import Arm, Budget
from monai_cl.evaluation._config import COMPUTE, LONGER, CurveConfig, Evaluation
from monai_cl.evaluation._steps import Step
from monai_cl.evaluation._tuning import Tune
from monai_cl.evaluation.records import HANDED, LONG, PAIRED, TRIAL, left_out, of_patients

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
        needs: Cells that must be there before.
        after: Cells that must have ended before, whether they failed or not.
        trial: Key of the settings of a trial; empty for others.
        start: Name of the pretraining run it starts from, where its folder need not tell.
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


@dataclass(frozen=True)
class Cases:
    """Cases that networks are evaluated on.

    Attributes:
        section: Section of the datalist.
        items: Their items.
        names: Their names.
        patients: The patient of each, by number.
        digest: SHA-256 of the section.
        places: What says where they are, if not where the training volumes are.
    """

    section: str
    items: tuple[Mapping[str, Any], ...]
    names: tuple[str, ...]
    patients: Mapping[str, str]
    digest: str
    places: Mapping[str, str]

    @classmethod
    def of(cls, wanted: Evaluation | Tune, datalist: str | Path, folder: str | Path) -> Cases:
        """Read the section that is wanted, from the datalist of the settings or one of its own."""
        listed, place = wanted.datalist or datalist, wanted.dataset_dir or folder
        items = load_datalist(listed, wanted.section, dataset_dir=place, labelled=True)
        named = {"datalist": wanted.datalist, "dataset_dir": wanted.dataset_dir}
        return cls(
            section=wanted.section,
            items=tuple(items),
            names=tuple(str(item["case"]) for item in items),
            patients=patients_of(items),
            digest=digest_sections(listed, wanted.section),
            places={key: str(path) for key, path in named.items() if path is not None},
        )


@dataclass(frozen=True)
class Plan:
    """Cells to be run, with all they need.

    Attributes:
        config: The file.
        train: The fine-tuning step.
        evaluate: The evaluation step, of every arm alike.
        own: The fine-tuning step of each arm that has overlays.
        pretrain: The pretraining step of each arm that has one.
        budgets: Numbers of labels.
        evaluated: The evaluation cases.
        tuned: The cases that trials are judged on; ``None`` without trials.
        trials: Settings of the trials of each arm, by their keys.
        excluded: Evaluation cases whose scores do not count.
        classes: Names of the classes above background.
        datalist: SHA-256 of the datalist.
        trained_on: SHA-256 of its section of training.
        trained_on_more: SHA-256 of its sections of training and of unlabelled volumes, which an overlay may use.
        steps: Steps of a fine-tuning.
        cells: The runs.
        notes: What was decided on the way, in words.
    """

    config: CurveConfig
    train: Step
    evaluate: Step
    own: dict[str, Step]
    pretrain: dict[str, Step]
    budgets: tuple[int, ...]
    evaluated: Cases
    tuned: Cases | None
    trials: Mapping[str, Mapping[str, Mapping[str, Any]]]
    excluded: frozenset[str]
    classes: tuple[str, ...]
    datalist: str
    trained_on: str
    trained_on_more: str
    epochs: int
    epoch_length: int
    cells: tuple[Cell, ...]
    notes: tuple[str, ...] = ()

    @property
    def steps(self) -> int:
        """Steps of a fine-tuning."""
        return self.epochs * self.epoch_length

    @property
    def cases(self) -> tuple[str, ...]:
        """Names of the evaluation cases."""
        return self.evaluated.names

    @property
    def patients(self) -> Mapping[str, str]:
        """The patient of each evaluation case, by number."""
        return self.evaluated.patients

    def seen(self, cell: Cell) -> Cases:
        """Cases that the network of a cell is evaluated on."""
        return self.tuned if cell.role == TRIAL and self.tuned is not None else self.evaluated

    def tunes_steps(self, arm: str) -> bool:
        """Tell whether trials of a given arm have steps of their own."""
        return any("finetune_epochs" in values for values in self.trials.get(arm, {}).values())

    def training(self, arm: str) -> Step:
        """The fine-tuning step of a given arm."""
        return self.own.get(arm, self.train)

    def cell(self, folder: str) -> Cell:
        """The cell of that name."""
        return next(cell for cell in self.cells if cell.folder == folder)

    @property
    def counted(self) -> dict[str, str]:
        """The patient of each case whose scores count."""
        return {case: patient for case, patient in self.patients.items() if case not in self.excluded}

    def counts(self) -> str:
        """Number of cases that count, of their patients, and of those left out."""
        said = of_patients(len(self.counted), len(set(self.counted.values())))
        return f"{said}, {left_out(len(self.excluded))}" if self.excluded else said

    def roles(self) -> dict[str, str]:
        """The role of each arm: those of the file in its order, then those that come by themselves."""
        order = (GIVEN, LONG, HANDED)
        tuned = sorted((cell for cell in self.cells if cell.role in order), key=lambda cell: order.index(cell.role))
        return {cell.arm: cell.role for cell in tuned}


def make_plan(config: CurveConfig) -> Plan:
    """Work out every run.

    Raises:
        FileNotFoundError: If files of the study are absent.
        ValueError: If a budget is larger than the labelled set, or a config file is unknown.
    """
    from monai_cl.data import class_names

    train = Step.of(config.bundle, ["train"], config.overlays, timed=True)
    evaluate = Step.of(config.bundle, ["train", "evaluate"], config.overlays)
    own = {
        arm.name: Step.of(config.bundle, ["train", *arm.overlays], config.overlays, timed=True)
        for arm in config.arms.values()
        if arm.overlays
    }
    pretrain = {
        arm.name: Step.of(
            arm.pretraining.bundle, ["pretrain"], (*arm.pretraining.overlays, *config.overlays), timed=True
        )
        for arm in config.arms.values()
        if arm.pretraining is not None and not arm.pretraining.of
    }
    common = train.pick(config.settings)
    datalist, folder = train.value("datalist", common), train.value("dataset_dir", common)
    labelled = load_datalist(datalist, "training", dataset_dir=folder, labelled=True)
    evaluated = Cases.of(config.evaluation, datalist, folder)
    budgets, notes = _budgets(config, len(labelled))
    names = class_names(datalist)
    channels = int(train.value("out_channels", common))
    return Plan(
        config=config,
        train=train,
        evaluate=evaluate,
        own=own,
        pretrain=pretrain,
        budgets=tuple(dict.fromkeys(budgets.values())),
        evaluated=evaluated,
        tuned=Cases.of(config.tune, datalist, folder) if config.tune else None,
        trials=config.trials(),
        excluded=_excluded(config.evaluation, evaluated.items),
        classes=tuple(names.get(label, f"class {label}") for label in range(1, channels)),
        datalist=digest(datalist),
        trained_on=digest_sections(datalist, "training"),
        trained_on_more=digest_sections(datalist, ["training", "unlabelled"]),
        epochs=int(train.value("finetune_epochs", common)),
        epoch_length=int(train.value("finetune_epoch_length", common)),
        cells=tuple(_cells(config, budgets, len(labelled))),
        notes=notes,
    )


def digest_sections(datalist: str | Path, sections: str | list[str]) -> str:
    """SHA-256 of what sections of a datalist list: neither other sections nor remarks on a patient change it."""
    content = read_datalist(datalist)
    items = [item for name in split_sections(sections) for item in content.get(name, [])]
    known = ("image", "label", "subject")
    listed = [{key: item.get(key) for key in known} if isinstance(item, dict) else {"image": item} for item in items]
    return hashlib.sha256(json.dumps(listed, sort_keys=True, default=str).encode()).hexdigest()


def _excluded(wanted: Evaluation, items: Sequence[Mapping[str, Any]]) -> frozenset[str]:
    """Cases that are named by themselves or by their patient."""
    known = {str(item["case"]): subject_of(item) for item in items}
    for name in wanted.exclude:
        if name not in {*known, *known.values()}:
            close = suggestion(name, [*known, *known.values()])
            raise ValueError(
                f"evaluation.exclude must name cases or patients of {wanted.section}, got {name!r}{close}; it has "
                f"{len(known)} cases"
            )
    found = frozenset(case for case, patient in known.items() if {case, patient} & {*wanted.exclude})
    if found and len(found) == len(known):
        raise ValueError(
            f"evaluation.exclude must leave cases to evaluate on, got all {len(known)} of {wanted.section}"
        )
    return found


def _budgets(config: CurveConfig, available: int) -> tuple[dict[Budget, int], tuple[str, ...]]:
    """The number that each budget of the file stands for."""
    asked = [*config.budgets, *([config.tune.budget] if config.tune else [])]
    too_large = [budget for budget in asked if isinstance(budget, int) and budget > available]
    if too_large:
        raise ValueError(
            f"budgets must be at most the {available} labelled volumes of `training`, or all, got "
            f"{', '.join(map(str, too_large))}"
        )
    found = {budget: available if budget == "all" else int(budget) for budget in config.budgets}
    same = "all" in found and available in found
    return found, (f"all is {available} labels, which is a budget already: run once",) if same else ()


def _cells(config: CurveConfig, budgets: dict[Budget, int], available: int) -> Iterator[Cell]:
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
    yield from _handed(config, budgets, ended[config.reference])


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


def _handed(config: CurveConfig, budgets: dict[Budget, int], ended: tuple[str, ...]) -> Iterator[Cell]:
    """The reference with the time that an arm takes beyond it: last, since that time is the mean of all runs."""
    reference = config.reference
    if (compute := config.equal_compute) is None:
        return
    for arm in config.arms.values():
        known = config.stages(arm.name) or arm.pretraining_seconds is not None or arm.from_scratch
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


__all__ = ["GIVEN", "HANDED", "LONG", "PRETRAIN", "TRIAL", "Cases", "Cell", "Plan", "digest_sections", "make_plan"]
