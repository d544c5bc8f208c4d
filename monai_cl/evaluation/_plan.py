"""Everything that a curve needs to run: its steps, cases, settings and cells."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_cl._words import suggestion
from monai_cl.data import digest
from monai_cl.datalist import load_datalist, read_datalist, split_sections, subject_of
from monai_cl.engine.patients import patients_of
from monai_cl.evaluation._arms import Budget
from monai_cl.evaluation._cells import GIVEN, HANDED, LONG, TRIAL, Cell, cells_of
from monai_cl.evaluation._config import CurveConfig
from monai_cl.evaluation._evaluation_keys import Evaluation
from monai_cl.evaluation._steps import Step
from monai_cl.evaluation._tuning import Tune
from monai_cl.evaluation.records import left_out, of_patients


@dataclass(frozen=True)
class Cases:
    """Cases that networks are evaluated on.

    Attributes:
        section: Section of the datalist.
        items: Their items.
        names: Their names.
        patients: The patient of each, by number.
        digest: SHA-256 of the section.
        places: File that locates them, if not that of the training volumes.
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
        notes: Decisions made on the way, in words.
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
        """Return whether trials of a given arm have steps of their own."""
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
        text = of_patients(len(self.counted), len(set(self.counted.values())))
        return f"{text}, {left_out(len(self.excluded))}" if self.excluded else text

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
    epochs, epoch_length = (int(train.value(f"finetune_{key}", common)) for key in ("epochs", "epoch_length"))
    if min(epochs, epoch_length) < 1:
        raise ValueError(
            f"finetune_epochs and finetune_epoch_length must be at least 1, got {epochs} and {epoch_length}; without a "
            "step nothing is measured"
        )
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
        epochs=epochs,
        epoch_length=epoch_length,
        cells=tuple(cells_of(config, budgets, len(labelled))),
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
    result = frozenset(case for case, patient in known.items() if {case, patient} & {*wanted.exclude})
    if result and len(result) == len(known):
        raise ValueError(
            f"evaluation.exclude must leave cases to evaluate on, got all {len(known)} of {wanted.section}"
        )
    return result


def _budgets(config: CurveConfig, available: int) -> tuple[dict[Budget, int], tuple[str, ...]]:
    """The number that each budget of the file stands for."""
    asked = [*config.budgets, *([config.tune.budget] if config.tune else [])]
    too_large = [budget for budget in asked if isinstance(budget, int) and budget > available]
    if too_large:
        raise ValueError(
            f"budgets must be at most the {available} labelled volumes of `training`, or all, got "
            f"{', '.join(map(str, too_large))}"
        )
    result = {budget: available if budget == "all" else int(budget) for budget in config.budgets}
    same = "all" in result and available in result
    return result, (f"all is {available} labels, which is a budget already: run once",) if same else ()
