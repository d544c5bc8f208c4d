"""Work on a cell: the steps of its job, the test whether its result counts, and its record."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from monai_cl.evaluation._arms import SHIPPED
from monai_cl.evaluation._cells import GIVEN, HANDED, LONG, PRETRAIN, TRIAL, Cell
from monai_cl.evaluation._choices import Choices
from monai_cl.evaluation._launch import Launch
from monai_cl.evaluation._plan import Plan
from monai_cl.evaluation._running import CellError, Done, Job
from monai_cl.evaluation._settings import FORMAT, Settings, changes, short_digest
from monai_cl.evaluation._steps import Step
from monai_cl.evaluation._store import Store, read_json, write_json
from monai_cl.evaluation.scores import check_cases

LOG, MODEL, CHECKPOINT = "log.txt", "model.pt", "checkpoint.pt"
EVALUATIONS, EVALUATION = "evaluations", "evaluation.json"  # of further sets, each in a folder
_EVIDENCE = ("timing.json", MODEL, "model.json", LOG)


@dataclass(frozen=True)
class Work:
    """Work on the cells of a plan.

    Attributes:
        plan: The plan.
        store: Where results go.
        launch: Runs a step.
        processes: Number of steps that run at the same time.
        threads: Threads of each; its share of the cores when left out.
    """

    plan: Plan
    store: Store
    launch: Launch
    processes: int = 1
    threads: int | None = None

    def job(self, cell: Cell, slot: int = 0) -> Job:
        """Job that is missing of a cell that was claimed; of a finished network, its evaluation on another set.

        Raises:
            CellError: If its steps rest on what has failed.
        """
        folder = self.store.folder(cell)
        if cell.role not in (PRETRAIN, TRIAL):
            self.choices.keep(cell.base)
        folder.mkdir(parents=True, exist_ok=True)
        if again := self.store.record(cell) is not None and cell.role != PRETRAIN:
            missing = [name for name in self.variants(cell) if self.evaluated(cell, name) is None]
            settings = {"variants": {name: self.settings.evaluation(cell, name) for name in missing}}
            tuning = [] if self.is_kept(cell) else list(self.steps(cell))[:1]  # one that was not kept is tuned again
            steps = [*tuning, *(self._evaluation(cell, name, self._target(cell, name)) for name in missing)]
        else:
            settings, steps = self.settings.training(cell), list(self.steps(cell))
        for _, _, overrides in steps:
            Path(overrides["output_dir"]).mkdir(parents=True, exist_ok=True)
        # pretraining goes on from its checkpoint, and self-training too; other fine-tuning starts anew
        if cell.role != PRETRAIN and not again and not (folder / CHECKPOINT).is_file():
            for name in (*_EVIDENCE, *(path.name for path in folder.glob("val_*.csv"))):
                (folder / name).unlink(missing_ok=True)
        commands = tuple((title, tuple(step.arguments(overrides))) for title, step, overrides in steps)
        return Job(commands, folder / LOG, self.launch, settings, self.processes, slot, self.threads)

    def finish(self, cell: Cell, job: Job, done: Done) -> None:
        """Write the record of a cell whose job has ended.

        Raises:
            CellError: If its training ended early.
            ValueError: If its evaluation left cases out.
        """
        folder = self.store.folder(cell)
        known = {"format": FORMAT, "settings": job.settings, "seconds": done.seconds, "finished": _now()}
        if self.store.record(cell) is not None and cell.role != PRETRAIN:
            self._finish_variants(cell, job.settings["variants"], known)
        else:
            if cell.role != PRETRAIN:
                named = {name: self.settings.evaluation(cell, name) for name in self.variants(cell) if name}
                self._finish_variants(cell, named, known)
            timing = read_json(folder / "timing.json")
            if timing is None or timing["step"] < timing["total"]:
                reached = "no step" if timing is None else f"step {timing['step']} of {timing['total']}"
                raise CellError(f"it stopped at {reached}; the same command goes on")
            if cell.role != PRETRAIN:
                check_cases(folder, self.plan.seen(cell).names, len(self.plan.classes))
                known["evaluation"] = self.settings.evaluation(cell)
            who = {"arm": cell.arm, "role": cell.role, "run": cell.run, "labels": cell.budget, "seed": cell.seed}
            self.store.finish(cell, {**known, **who, "timing": timing, "host": done.host})
        if cell.role != PRETRAIN:
            (folder / CHECKPOINT).unlink(missing_ok=True)  # nothing is left to go on with
        if cell.role == TRIAL or (cell.role != PRETRAIN and not self.plan.config.keep_models):
            (folder / MODEL).unlink(missing_ok=True)

    def _finish_variants(self, cell: Cell, settings: Mapping[str, Mapping[str, Any]], known: Mapping[str, Any]) -> None:
        for name, own in settings.items():
            target = self._target(cell, name)
            check_cases(target, self.plan.seen(cell).names, len(self.plan.classes))
            write_json(target / EVALUATION, {**known, "settings": own})

    def _target(self, cell: Cell, variant: str = "") -> Path:
        return self.store.folder(cell) / EVALUATIONS / short_digest(self.settings.evaluation(cell, variant))

    def variants(self, cell: Cell) -> tuple[str, ...]:
        """Names of the evaluations of a cell; the plain one has none."""
        return ("",) if cell.role in (PRETRAIN, TRIAL) else ("", *self.plan.config.evaluation.variants)

    def finished(self, cell: Cell) -> bool:
        """Return whether nothing is left to do for a cell."""
        if self.store.record(cell) is None or cell.role == PRETRAIN:
            return self.store.record(cell) is not None
        return all(self.evaluated(cell, name) is not None for name in self.variants(cell))

    def evaluated(self, cell: Cell, variant: str = "") -> Path | None:
        """Folder of the scores of a network on the cases of this plan; ``None`` where they are missing."""
        record, folder = self.store.record(cell), self.store.folder(cell)
        if record is None:
            return None
        _, result = self.settings.changes(cell, record)
        if not variant and all(self.settings.is_tolerable(change, record) for change in result):
            return folder
        now = self.settings.evaluation(cell, variant)
        for path in sorted((folder / EVALUATIONS).glob(f"*/{EVALUATION}")):
            content = read_json(path) or {"settings": {}}
            if all(self.settings.is_tolerable(each, content) for each in changes(content["settings"], now)):
                return path.parent
        return None

    def is_kept(self, cell: Cell) -> bool:
        """Return whether the fine-tuned network of a cell exists."""
        return (self.store.folder(cell) / MODEL).is_file()

    def steps(self, cell: Cell) -> Iterator[tuple[str, Step, dict[str, Any]]]:
        """Title, step and overrides of each process of a cell."""
        folder = self.store.folder(cell)
        if cell.role == PRETRAIN:
            step = self.plan.pretrain[cell.arm]
            where = {"output_dir": str(folder), "pretrained": str(folder / "pretrained.pt"), "seed": cell.seed}
            first = {"start": str(self.store.root / cell.needs[0] / "pretrained.pt")} if cell.needs else {}
            yield "pretraining", step, {**self.settings.overrides(cell, step), **where, **first}
            return
        step = self.plan.training(cell.base)
        model = {"model": str(folder / MODEL), "output_dir": str(folder), "seed": cell.seed}
        more: dict[str, Any] = {"labels": cell.budget, "pretrained": str(self._start(cell) or "none")}
        overrides = {**self.settings.overrides(cell, step), **model, **more, "finetune_epochs": self.epochs(cell)}
        if step.knows("val_interval") and "val_interval" not in overrides:
            overrides["val_interval"] = self.epochs(cell) + 1  # the evaluation follows
        yield "fine-tuning", step, overrides
        for name in self.variants(cell):
            yield self._evaluation(cell, name, self._target(cell, name) if name else folder)

    def _evaluation(self, cell: Cell, variant: str, target: Path) -> tuple[str, Step, dict[str, Any]]:
        """One evaluation of a network, with what it writes in a folder."""
        step, cases = self.plan.evaluate, self.plan.seen(cell)
        own = {**self.settings.overrides(cell, step), **self.plan.config.evaluation.variants.get(variant, {})}
        where = {"model": str(self.store.folder(cell) / MODEL), "output_dir": str(target), "seed": cell.seed}
        title = f"evaluation ({variant})" if variant else "evaluation"
        return title, step, {**own, **where, **cases.places, "evaluation_section": cases.section}

    @functools.cached_property
    def settings(self) -> Settings:
        """Settings that its results depend on."""
        return Settings(self.plan, self.epochs, self.values)

    @functools.cached_property
    def choices(self) -> Choices:
        """The settings that were chosen for each arm."""
        return Choices(self.plan, self.store)

    def values(self, cell: Cell) -> Mapping[str, Any]:
        """Settings of a trial, or those that were chosen for the arm of a cell.

        Raises:
            CellError: If no trial of its arm was finished.
        """
        if not self.plan.trials:
            return {}
        return self.plan.trials[cell.base][cell.trial] if cell.trial else self.choices.of(cell.base)

    def _start(self, cell: Cell) -> Path | str | None:
        """The file of weights, or the word, that a fine-tuning starts from."""
        arm = self.plan.config.arm(cell.base)
        if arm.pretraining is not None:
            return self.store.root / cell.needs[0] / "pretrained.pt"
        return SHIPPED if arm.is_shipped else arm.checkpoints.get(cell.run)

    def epochs(self, cell: Cell) -> int:
        """Epochs of a fine-tuning."""
        if cell.role == HANDED:
            return int(self.handed(cell.gets)["epochs"])
        tuned = self.values(cell) if self.plan.tunes_steps(cell.base) else {}
        return int(tuned.get("finetune_epochs", self.plan.epochs)) * (2 if cell.role == LONG else 1)

    def known_epochs(self, cell: Cell) -> int:
        """Epochs of a fine-tuning, 0 while they are not known."""
        return self.epochs(cell) if self.is_known(cell) else 0

    def is_known(self, cell: Cell) -> bool:
        """Return whether the steps and settings of a cell are known already."""
        if cell.role == HANDED and not self._handed_file(cell.gets).is_file():
            return False
        return cell.role in (PRETRAIN, TRIAL) or self.choices.are_made(cell.base)

    def handed(self, arm: str) -> dict[str, Any]:
        """Time that one network of ``arm`` takes beyond the reference, in steps of it; measured once and kept.

        Raises:
            CellError: If every run that it rests on failed.
        """
        kept = read_json(self._handed_file(arm))
        if kept is None:
            kept = self._measure(arm)
            write_json(self._handed_file(arm), kept)
        return kept

    def _handed_file(self, arm: str) -> Path:
        return self.store.root / "equal_compute" / f"{arm}.json"

    def _measure(self, arm: str) -> dict[str, Any]:
        plan = self.plan
        records = {cell: self.store.record(cell) for cell in plan.cells}
        timings = {cell: record["timing"] for cell, record in records.items() if record is not None}
        reference = plan.config.reference
        counts = arm in plan.own or plan.tunes_steps(arm) or plan.tunes_steps(reference)
        given = {cell: t for cell, t in timings.items() if cell.role == GIVEN}
        of_reference = {cell: t for cell, t in given.items() if cell.arm == reference}
        pace = [_pace(t) for t in of_reference.values()]
        tuned = [_pace(t) * t["total"] for cell, t in given.items() if cell.arm == arm and counts]
        known = plan.config.arm(arm).pretraining_seconds
        stages = [
            [_pace(t) * t["total"] for cell, t in timings.items() if cell.role == PRETRAIN and cell.arm == stage]
            for stage in plan.config.stages(arm)
        ]
        stages = [[known]] if known is not None else stages
        if not pace or not all(stages) or (counts and not tuned):
            raise CellError(f"the time of {arm} is unknown, as every run of it or of the reference failed")
        seconds, step = sum(map(_mean, stages)), _mean(pace)
        epochs = self.epochs(next(iter(of_reference)))
        longer = max(_mean(tuned) - step * epochs * plan.epoch_length, 0.0) if tuned else 0.0
        extra = math.ceil((seconds + longer) / step / plan.epoch_length - 1e-9)  # rounding is no epoch
        return {
            "pretraining_seconds": seconds,
            **({"finetuning_seconds": longer} if counts else {}),
            "seconds_per_step": step,
            "extra_steps": extra * plan.epoch_length,
            "steps": (epochs + extra) * plan.epoch_length,
            "epochs": epochs + extra,
            "source": "stated in the file" if known is not None else _measured(stages) if stages else "none",
        }


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _measured(stages: Sequence[Sequence[float]]) -> str:
    together = "" if len(stages) == 1 else f", {len(stages)} stages together"
    return f"mean of {len(stages[-1])} measured runs{together}"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _pace(timing: Mapping[str, Any]) -> float:
    return float(timing["seconds"]) / max(int(timing["steps"]), 1)
