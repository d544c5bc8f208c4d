"""Doing one cell: the commands of its steps, what must stay the same for its result to count, and its record."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import math
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from monai_cl import recipes
from monai_cl.data import digest, digest_items, map_items
from monai_cl.evaluation._launch import Launch, environment, reason, tail
from monai_cl.evaluation._plan import HANDED, LONG, PRETRAIN, Cell, Plan
from monai_cl.evaluation._steps import Step
from monai_cl.evaluation._store import Store, read_json, write_json
from monai_cl.evaluation._table import check_cases

_PLACES = ("dataset_dir", "datalist", "bundle_root")  # where things are, which a result does not depend on
LOG = "log.txt"
_EVIDENCE = ("timing.json", "model.pt", "model.json")


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
        """Do a cell that was claimed and write its record.

        Raises:
            CellError: If a step fails; its log tells more.
        """
        folder, started = self.store.folder(cell), time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)
        settings = self.settings(cell)
        if cell.role != PRETRAIN:  # which goes on from its checkpoint, fine-tuning starts anew
            for name in (*_EVIDENCE, *(path.name for path in folder.glob("val_*.csv"))):
                (folder / name).unlink(missing_ok=True)
            (folder / LOG).unlink(missing_ok=True)
        log = folder / LOG
        for title, step, overrides in self.steps(cell):
            code = self.launch(step.arguments(overrides), log, environment(self.processes, worker, self.threads))
            if code != 0:
                raise CellError(f"{title} ended with code {code}: {reason(log)}\n{tail(log)}")
        self.store.finish(cell, self._record(cell, settings, time.monotonic() - started))

    def steps(self, cell: Cell) -> Iterator[tuple[str, Step, dict[str, Any]]]:
        """Title, step and overrides of each process of a cell."""
        folder, config = self.store.folder(cell), self.plan.config
        if cell.role == PRETRAIN:
            step = self.plan.pretrain[cell.arm]
            where = {"output_dir": str(folder), "pretrained": str(folder / "pretrained.pt"), "seed": cell.seed}
            first = {"start": str(self.store.root / cell.needs[0] / "pretrained.pt")} if cell.needs else {}
            yield "pretraining", step, {**self.overrides(cell, step), **where, **first}
            return
        step = self.plan.train
        model = {"model": str(folder / "model.pt"), "output_dir": str(folder), "seed": cell.seed}
        more: dict[str, Any] = {"labels": cell.budget, "pretrained": str(self.start(cell) or "none")}
        overrides = {**self.overrides(cell, step), **model, **more, "finetune_epochs": self.epochs(cell)}
        if step.knows("val_interval") and "val_interval" not in overrides:
            overrides["val_interval"] = self.epochs(cell) + 1  # the evaluation follows
        yield "fine-tuning", step, overrides
        step = self.plan.evaluate
        yield (
            "evaluation",
            step,
            {
                **self.overrides(cell, step),
                **model,
                "evaluation_section": config.evaluation.section,
            },
        )

    def overrides(self, cell: Cell, step: Step) -> dict[str, Any]:
        """Settings of the file that a step of a cell takes."""
        config, arm = self.plan.config, self.plan.config.arm(cell.base)
        pretraining = arm.pretraining if cell.role == PRETRAIN else None
        own = step.pick(arm.settings) if pretraining is None else pretraining.settings
        root = {"bundle_root": str(step.bundle)} if step.knows("bundle_root") else {}
        return {**root, **step.pick(config.settings), **own}

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

    def settings(self, cell: Cell) -> dict[str, Any]:
        """What must stay the same for the result of a cell to belong to this curve."""
        plan = self.plan
        step = plan.pretrain[cell.arm] if cell.role == PRETRAIN else plan.evaluate
        overrides = self.overrides(cell, step)
        if cell.role != PRETRAIN:
            overrides = {**self.overrides(cell, plan.train), **overrides}
        found = {
            "configs": step.digest(),
            "overrides": {key: value for key, value in overrides.items() if key not in _PLACES},
            "seed": cell.seed,
            "datalist": _data(step, overrides) if cell.role == PRETRAIN else plan.datalist,
            "recipe": _recipe(step, overrides),
            "versions": versions(),
        }
        if cell.role == PRETRAIN:
            return _settled({**found, "start": self.settings(plan.cell(cell.needs[0]))} if cell.needs else found)
        more = {
            "labels": cell.budget,
            "epochs": self.epochs(cell),
            "section": plan.config.evaluation.section,
            "pretrained": self._origin(cell),
        }
        return _settled({**found, **more})

    def _origin(self, cell: Cell) -> Any:
        arm = self.plan.config.arm(cell.base)
        if arm.pretraining is not None:
            return self.settings(self.plan.cell(cell.needs[0]))
        path = arm.checkpoints.get(cell.run)
        return "none" if path is None else _file_digest(path, path.stat().st_mtime_ns)

    def _record(self, cell: Cell, settings: dict[str, Any], seconds: float) -> dict[str, Any]:
        folder = self.store.folder(cell)
        timing = read_json(folder / "timing.json")
        if timing is None or timing["step"] < timing["total"]:
            reached = "no step" if timing is None else f"step {timing['step']} of {timing['total']}"
            raise CellError(f"it stopped at {reached}; the same command goes on")
        if cell.role != PRETRAIN:
            check_cases(folder, self.plan.cases, len(self.plan.classes))
            if not self.plan.config.keep_models:
                (folder / "model.pt").unlink(missing_ok=True)
        who = {"arm": cell.arm, "role": cell.role, "run": cell.run, "labels": cell.budget, "seed": cell.seed}
        when = datetime.now(timezone.utc).isoformat(timespec="seconds")
        return {**who, "settings": settings, "timing": timing, "seconds": seconds, "finished": when, "host": hardware()}


@functools.lru_cache(maxsize=64)
def _file_digest(path: Path, changed: int) -> str:
    return digest(path)


@functools.cache
def versions() -> dict[str, str]:
    """Versions that results depend on."""
    packages = {name: importlib.metadata.version(name) for name in ("monai_cl", "monai", "torch", "numpy")}
    return {"python": platform.python_version(), **packages}


@functools.cache
def hardware() -> str:
    """Processor, cores and GPU of this machine."""
    import torch

    from monai_cl.evaluation._launch import cores

    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return ", ".join([f"{cores()} cores of {_processor()}", *gpus])


def changes(then: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """What differs between two settings, in words."""
    found: list[str] = []
    for key in [*now, *(key for key in then if key not in now)]:
        old, new, name = then.get(key), now.get(key), f"{prefix}{key}"
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += changes(old, new, f"{name}.")
        elif old != new:
            found.append(f"{name}: {_short(old)} -> {_short(new)}")
    return found


def _short(value: Any) -> str:
    return f"{value[:12]}..." if isinstance(value, str) and len(value) > 40 else repr(value)


def _measured(stages: Sequence[Sequence[float]]) -> str:
    together = "" if len(stages) == 1 else f", {len(stages)} stages together"
    return f"mean of {len(stages[-1])} measured runs{together}"


def _pace(timing: Mapping[str, Any]) -> float:
    return float(timing["seconds"]) / max(int(timing["steps"]), 1)


def _data(step: Step, overrides: Mapping[str, Any]) -> str:
    """Digest of what a pretraining reads, which need not be what fine-tuning reads."""
    datalist = step.value("datalist", overrides)
    if datalist is None:  # quantitative maps, found in a folder by their names
        return digest_items(map_items(step.value("dataset_dir", overrides)))
    return _file_digest(Path(datalist), Path(datalist).stat().st_mtime_ns)


def _recipe(step: Step, overrides: Mapping[str, Any]) -> str:
    if not step.knows("recipe"):
        return ""
    options = step.value("recipe_options", overrides) if step.knows("recipe_options") else {}
    return _recipe_digest(str(step.value("recipe", overrides)), json.dumps(options, sort_keys=True))


@functools.cache
def _recipe_digest(name: str, options: str) -> str:
    return recipes.digest(name, **json.loads(options))


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _settled(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _plain(value) for key, value in settings.items()}


def _plain(value: Any) -> Any:
    """As it comes back from JSON."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
