"""Doing one cell: the commands of its steps, what must stay the same for its result to count, and its record."""

from __future__ import annotations

import functools
import math
import platform
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from monai_cl.evaluation._launch import Launch, environment, reason, tail
from monai_cl.evaluation._plan import HANDED, LONG, PRETRAIN, Cell, Plan
from monai_cl.evaluation._settings import FORMAT, Settings, changes, short_digest
from monai_cl.evaluation._steps import Step
from monai_cl.evaluation._store import Store, read_json, write_json
from monai_cl.evaluation._table import check_cases

LOG, MODEL = "log.txt", "model.pt"
EVALUATIONS, EVALUATION = "evaluations", "evaluation.json"  # of further sets, each in a folder
_EVIDENCE = ("timing.json", MODEL, "model.json")


class CellError(RuntimeError):
    """A step of a cell failed."""


@dataclass(frozen=True)
class Work:
    """How the cells of a plan are done.

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

    def __call__(self, cell: Cell, worker: int = 0) -> None:
        """Do what is missing of a cell that was claimed, and write its record.

        Raises:
            CellError: If a step fails; its log tells more.
        """
        if self.store.record(cell) is not None and cell.role != PRETRAIN:
            self._evaluate_further(cell, worker)
            return
        folder, started = self.store.folder(cell), time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)
        settings = self.settings.training(cell)
        if cell.role != PRETRAIN:  # which goes on from its checkpoint, fine-tuning starts anew
            for name in (*_EVIDENCE, *(path.name for path in folder.glob("val_*.csv"))):
                (folder / name).unlink(missing_ok=True)
            (folder / LOG).unlink(missing_ok=True)
        self._run(cell, self.steps(cell), worker)
        self.store.finish(cell, self._record(cell, settings, time.monotonic() - started))

    def _evaluate_further(self, cell: Cell, worker: int) -> None:
        """Evaluate a finished network on another set; where it was not kept, it is fine-tuned once more."""
        folder, started = self.store.folder(cell), time.monotonic()
        settings = self.settings.evaluation(cell)
        target = folder / EVALUATIONS / short_digest(settings)
        target.mkdir(parents=True, exist_ok=True)
        steps = list(self.steps(cell, target))
        self._run(cell, steps if not self.is_kept(cell) else steps[1:], worker)
        check_cases(target, self.plan.cases, len(self.plan.classes))
        seconds, finished = time.monotonic() - started, _now()
        known = {"format": FORMAT, "settings": settings, "seconds": seconds, "finished": finished}
        write_json(target / EVALUATION, known)
        if not self.plan.config.keep_models:
            (folder / MODEL).unlink(missing_ok=True)

    def _run(self, cell: Cell, steps: Iterable[tuple[str, Step, dict[str, Any]]], worker: int) -> None:
        log = self.store.folder(cell) / LOG
        for title, step, overrides in steps:
            code = self.launch(step.arguments(overrides), log, environment(self.processes, worker, self.threads))
            if code != 0:
                raise CellError(f"{title} ended with code {code}: {reason(log)}\n{tail(log)}")

    def finished(self, cell: Cell) -> bool:
        """Tell whether nothing is left to do for a cell."""
        return self.store.record(cell) is not None and (cell.role == PRETRAIN or self.evaluated(cell) is not None)

    def evaluated(self, cell: Cell) -> Path | None:
        """Where the scores of a network on the cases of this plan are; ``None`` where they are missing."""
        record, folder = self.store.record(cell), self.store.folder(cell)
        if record is None:
            return None
        _, found = self.settings.changes(cell, record)
        if all(self.settings.is_tolerable(change, record) for change in found):
            return folder
        now = self.settings.evaluation(cell)
        for path in sorted((folder / EVALUATIONS).glob(f"*/{EVALUATION}")):
            content = read_json(path) or {"settings": {}}
            if all(self.settings.is_tolerable(each, content) for each in changes(content["settings"], now)):
                return path.parent
        return None

    def is_kept(self, cell: Cell) -> bool:
        """Tell whether the fine-tuned network of a cell is there."""
        return (self.store.folder(cell) / MODEL).is_file()

    def steps(self, cell: Cell, target: Path | None = None) -> Iterator[tuple[str, Step, dict[str, Any]]]:
        """Title, step and overrides of each process of a cell, which write into a folder: its own when left out."""
        folder, config = self.store.folder(cell), self.plan.config
        if cell.role == PRETRAIN:
            step = self.plan.pretrain[cell.arm]
            where = {"output_dir": str(folder), "pretrained": str(folder / "pretrained.pt"), "seed": cell.seed}
            first = {"start": str(self.store.root / cell.needs[0] / "pretrained.pt")} if cell.needs else {}
            yield "pretraining", step, {**self.settings.overrides(cell, step), **where, **first}
            return
        step = self.plan.train
        model = {"model": str(folder / MODEL), "output_dir": str(target or folder), "seed": cell.seed}
        more: dict[str, Any] = {"labels": cell.budget, "pretrained": str(self.start(cell) or "none")}
        overrides = {**self.settings.overrides(cell, step), **model, **more, "finetune_epochs": self.epochs(cell)}
        if step.knows("val_interval") and "val_interval" not in overrides:
            overrides["val_interval"] = self.epochs(cell) + 1  # the evaluation follows
        yield "fine-tuning", step, overrides
        step, wanted = self.plan.evaluate, config.evaluation
        own = self.settings.overrides(cell, step)
        named = {"datalist": wanted.datalist, "dataset_dir": wanted.dataset_dir}
        apart = {key: str(path) for key, path in named.items() if path is not None}
        yield "evaluation", step, {**own, **model, **apart, "evaluation_section": wanted.section}

    @functools.cached_property
    def settings(self) -> Settings:
        """What its results depend on."""
        return Settings(self.plan, self.epochs)

    def start(self, cell: Cell) -> Path | None:
        """The file of weights that a fine-tuning starts from."""
        arm = self.plan.config.arm(cell.base)
        if arm.pretraining is not None:
            return self.store.root / cell.needs[0] / "pretrained.pt"
        return arm.checkpoints.get(cell.run)

    def epochs(self, cell: Cell) -> int:
        """Epochs of a fine-tuning."""
        if cell.role == LONG:
            return 2 * self.plan.epochs
        if cell.role == HANDED:
            return int(self.handed(cell.gets)["epochs"])
        return self.plan.epochs

    def known_epochs(self, cell: Cell) -> int:
        """Epochs of a fine-tuning, 0 while they are not known."""
        if cell.role == HANDED and not self.handed_file(cell.gets).is_file():
            return 0
        return self.epochs(cell)

    def handed(self, arm: str) -> dict[str, Any]:
        """What the time of one pretraining of ``arm`` is in steps of the reference; measured once and kept.

        Raises:
            CellError: If there is nothing to measure, since every run it rests on failed.
        """
        kept = read_json(self.handed_file(arm))
        if kept is None:
            kept = self._measure(arm)
            write_json(self.handed_file(arm), kept)
        return kept

    def handed_file(self, arm: str) -> Path:
        """Where :meth:`handed` keeps it."""
        return self.store.root / "equal_compute" / f"{arm}.json"

    def _measure(self, arm: str) -> dict[str, Any]:
        plan = self.plan
        records = {cell: self.store.record(cell) for cell in plan.cells}
        timings = {cell: record["timing"] for cell, record in records.items() if record is not None}
        pace = [_pace(t) for cell, t in timings.items() if cell.arm == plan.config.reference]
        known = plan.config.arm(arm).pretraining_seconds
        stages = [
            [_pace(t) * t["total"] for cell, t in timings.items() if cell.role == PRETRAIN and cell.arm == stage]
            for stage in plan.config.stages(arm)
        ]
        stages = [[known]] if known is not None else stages
        if not pace or not all(stages):
            raise CellError(
                f"the time of a pretraining of {arm} cannot be told, as every run of it or of the reference failed"
            )
        seconds, step = sum(sum(spent) / len(spent) for spent in stages), sum(pace) / len(pace)
        extra = math.ceil(seconds / step / plan.epoch_length - 1e-9)  # rounding is no epoch
        return {
            "pretraining_seconds": seconds,
            "seconds_per_step": step,
            "extra_steps": extra * plan.epoch_length,
            "steps": (plan.epochs + extra) * plan.epoch_length,
            "epochs": plan.epochs + extra,
            "source": "stated in the file" if known is not None else _measured(stages),
        }

    def _record(self, cell: Cell, settings: dict[str, Any], seconds: float) -> dict[str, Any]:
        folder = self.store.folder(cell)
        timing = read_json(folder / "timing.json")
        if timing is None or timing["step"] < timing["total"]:
            reached = "no step" if timing is None else f"step {timing['step']} of {timing['total']}"
            raise CellError(f"it stopped at {reached}; the same command goes on")
        evaluation = {}
        if cell.role != PRETRAIN:
            check_cases(folder, self.plan.cases, len(self.plan.classes))
            evaluation = {"evaluation": self.settings.evaluation(cell)}
            if not self.plan.config.keep_models:
                (folder / MODEL).unlink(missing_ok=True)
        who = {"arm": cell.arm, "role": cell.role, "run": cell.run, "labels": cell.budget, "seed": cell.seed}
        when = {"timing": timing, "seconds": seconds, "finished": _now(), "host": hardware()}
        return {"format": FORMAT, **who, "settings": settings, **evaluation, **when}


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


@functools.cache
def hardware() -> str:
    """Processor, cores and GPU of this machine."""
    import torch

    from monai_cl.evaluation._launch import cores

    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    number = cores()
    return ", ".join([f"{number} core{'' if number == 1 else 's'} of {_processor()}", *gpus])


def _measured(stages: Sequence[Sequence[float]]) -> str:
    together = "" if len(stages) == 1 else f", {len(stages)} stages together"
    return f"mean of {len(stages[-1])} measured runs{together}"


def _pace(timing: Mapping[str, Any]) -> float:
    return float(timing["seconds"]) / max(int(timing["steps"]), 1)


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
