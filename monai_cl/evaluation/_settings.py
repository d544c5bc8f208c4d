"""Settings that results depend on: those of a training and of an evaluation apart, so that one can change alone."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_cl import bundles, recipes, weights
from monai_cl.data import digest, digest_items, map_items
from monai_cl.engine import machine
from monai_cl.evaluation._arms import SHIPPED
from monai_cl.evaluation._cells import PRETRAIN, Cell
from monai_cl.evaluation._plan import Plan, digest_sections
from monai_cl.evaluation._steps import Step

FORMAT = 2  # of the record of a cell; 0.1.0 wrote none, and training and evaluation together
_PLACES = ("dataset_dir", "datalist", "bundle_root")  # where things are, which a result does not depend on


@dataclass(frozen=True)
class Change:
    """A setting that differs between two records.

    Attributes:
        path: Its keys, from the outermost.
        old: Recorded value.
        new: Present value.
    """

    path: tuple[str, ...]
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{'.'.join(self.path)}: {_short(self.old)} -> {_short(self.new)}"


@dataclass(frozen=True)
class Settings:
    """Settings that must stay the same for a result to belong to a curve.

    Attributes:
        plan: The plan.
        epochs: Function that returns the epochs of a fine-tuning.
        values: Function that returns the settings tried, or chosen among trials, for a fine-tuning.
    """

    plan: Plan
    epochs: Callable[[Cell], int]
    values: Callable[[Cell], Mapping[str, Any]]

    def overrides(self, cell: Cell, step: Step) -> dict[str, Any]:
        """Settings of the file that a step of a cell takes."""
        config, arm = self.plan.config, self.plan.config.arm(cell.base)
        pretraining = arm.pretraining if cell.role == PRETRAIN else None
        tuned = {} if cell.role == PRETRAIN else self.values(cell)
        own = step.pick({**arm.settings, **tuned}) if pretraining is None else pretraining.settings
        root = {"bundle_root": str(step.bundle)} if step.knows("bundle_root") else {}
        return {**root, **step.pick(config.settings), **own}

    def training(self, cell: Cell) -> dict[str, Any]:
        """Settings that the network of a cell depends on."""
        plan = self.plan
        step = plan.pretrain[cell.arm] if cell.role == PRETRAIN else plan.training(cell.base)
        overrides = self.overrides(cell, step)
        tuned_on = plan.trained_on_more if cell.base in plan.own else plan.trained_on
        seen = _seen(step, overrides) if cell.role == PRETRAIN else tuned_on
        return self._of(cell, step, overrides, seen, self.training)

    def evaluation(self, cell: Cell, variant: str = "") -> dict[str, Any]:
        """Settings that the scores of a network depend on besides the network, of a variant of the evaluation if so."""
        plan = self.plan
        overrides = self.overrides(cell, plan.evaluate)
        own = {key: value for key, value in overrides.items() if not plan.train.knows(key)}
        own |= plan.config.evaluation.variants[variant] if variant else {}
        return _settled(
            {
                "configs": plan.evaluate.digest(),
                "overrides": _without_places(own),
                "section": plan.seen(cell).section,
                "datalist": plan.seen(cell).digest,
                "recipe": _recipe(plan.evaluate, overrides),
                "versions": versions(),
            }
        )

    def of_0_1_0(self, cell: Cell) -> dict[str, Any]:
        """Both together, as version 0.1.0 recorded them."""
        plan = self.plan
        if cell.role == PRETRAIN:
            step = plan.pretrain[cell.arm]
            overrides = self.overrides(cell, step)
            return self._of(cell, step, overrides, _file_read(step, overrides), self.of_0_1_0)
        overrides = {**self.overrides(cell, plan.train), **self.overrides(cell, plan.evaluate)}
        section = {"section": plan.config.evaluation.section}
        return self._of(cell, plan.evaluate, overrides, plan.datalist, self.of_0_1_0, **section)

    def _of(
        self,
        cell: Cell,
        step: Step,
        overrides: Mapping[str, Any],
        datalist: str,
        origin: Callable[[Cell], dict[str, Any]],
        **more: Any,
    ) -> dict[str, Any]:
        """Settings of a cell, given the digest of its data and the form in which its pretraining is recorded."""
        if cell.role == PRETRAIN:
            more |= {"start": origin(self.plan.cell(cell.needs[0]))} if cell.needs else {}
        else:
            more |= {"labels": cell.budget, "epochs": self.epochs(cell), "pretrained": self._origin(cell, origin)}
        return _settled(
            {
                "configs": step.digest(),
                "overrides": _without_places(overrides),
                "seed": cell.seed,
                "datalist": datalist,
                "recipe": _recipe(step, overrides),
                "versions": versions(),
                **more,
            }
        )

    def changes(self, cell: Cell, record: Mapping[str, Any]) -> tuple[list[Change], list[Change]]:
        """Differences between the record of a cell and now: of its training, and of its evaluation."""
        then = record["settings"]
        if record.get("format", 1) >= FORMAT:
            known = record.get("evaluation")
            evaluated = [] if known is None else list(changes(known, self.evaluation(cell)))
            return list(changes(then, self.training(cell))), evaluated
        result = list(changes(then, self.of_0_1_0(cell)))
        evaluated = [each for each in result if self._is_of_evaluation(each)]
        separate = self.plan.config.evaluation.datalist
        if separate is not None and cell.role != PRETRAIN:
            evaluated += changes({"datalist": then["datalist"]}, {"datalist": digest(separate)})
        return [each for each in result if not self._is_of_evaluation(each)], evaluated

    def is_tolerable(self, change: Change, record: Mapping[str, Any]) -> bool:
        """Return whether a difference is one of version, which is reported but repeats no run.

        Another version of the package may have had other configs in its bundles and other recipes.

        Args:
            change: The difference.
            record: The record in which it was found.
        """
        if "versions" in change.path:
            return True
        written_by = record["settings"].get("versions", {}).get("monai_cl")
        if record.get("format", 1) >= FORMAT and written_by == versions()["monai_cl"]:
            return False
        if "configs" in change.path:
            return change.path[-1] in self._shipped_configs()
        return change.path[-1] == "recipe" and self._recipe_name() in recipes.names()

    def _shipped_configs(self) -> set[str]:
        """Names of the config files that come with the package: those of a user's own are no matter of version."""
        plan = self.plan
        steps = (plan.train, plan.evaluate, *plan.own.values(), *plan.pretrain.values())
        files = {file for step in steps for file in step.files}
        own = {file.name for file in files if not _is_shipped(file.parent.parent)}
        return {file.name for file in files} - own

    def _recipe_name(self) -> str:
        step = self.plan.train
        return str(step.value("recipe", step.pick(self.plan.config.settings))) if step.knows("recipe") else ""

    def _is_of_evaluation(self, change: Change) -> bool:
        kind, *rest = change.path
        if kind == "configs":
            return rest[0] not in self.plan.train.digest()
        return kind == "section" or (kind == "overrides" and not self.plan.train.knows(rest[0]))

    def _origin(self, cell: Cell, settings: Callable[[Cell], dict[str, Any]]) -> Any:
        arm = self.plan.config.arm(cell.base)
        if arm.pretraining is not None:
            return settings(self.plan.cell(cell.needs[0]))
        if arm.is_shipped:
            step = self.plan.training(cell.base)
            changed = tuple(sorted(path.stat().st_mtime_ns for path in (step.bundle / "models/shipped").glob("*")))
            return _shipped_digest(step, json.dumps(self.overrides(cell, step), sort_keys=True), changed)
        path = arm.checkpoints.get(cell.run)
        return "none" if path is None else _file_digest(path, path.stat().st_mtime_ns)


def changes(then: Mapping[str, Any], now: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[Change]:
    """Differences between two settings."""
    for key in [*now, *(key for key in then if key not in now)]:
        old, new, place = then.get(key), now.get(key), (*path, str(key))
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from changes(old, new, place)
        elif old != new:
            yield Change(place, old, new)


def short_digest(settings: Mapping[str, Any]) -> str:
    """A name for settings, in which versions do not count."""
    content = {key: value for key, value in settings.items() if key != "versions"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


@functools.cache
def versions() -> dict[str, str]:
    """Versions in the record of a cell: those that 0.1.0 wrote, or every old run would seem to be of another one."""
    known = machine.versions()
    return {name: known[name] for name in ("python", "monai_cl", "monai", "torch", "numpy")}


def _seen(step: Step, overrides: Mapping[str, Any]) -> str:
    """Digest of what a pretraining reads, which need not be what fine-tuning reads."""
    datalist = step.value("datalist", overrides)
    if datalist is None or not step.knows("sections"):
        return _file_read(step, overrides)
    return digest_sections(datalist, step.value("sections", overrides))


def _file_read(step: Step, overrides: Mapping[str, Any]) -> str:
    datalist = step.value("datalist", overrides)
    if datalist is None:  # quantitative maps, found in a folder by their names
        return digest_items(map_items(step.value("dataset_dir", overrides)))
    return _file_digest(Path(datalist), Path(datalist).stat().st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _shipped_digest(step: Step, overrides: str, changed: tuple[int, ...]) -> str | None:
    settings = json.loads(overrides)
    inflated = step.knows("inflate_channels") and bool(step.value("inflate_channels", settings))
    network = step.network(settings)
    return weights.start_digest(network, SHIPPED, bundle_root=step.bundle, inflate_channels=inflated)


@functools.lru_cache(maxsize=64)
def _file_digest(path: Path, changed: int) -> str:
    return digest(path)


def _recipe(step: Step, overrides: Mapping[str, Any]) -> str:
    if not step.knows("recipe"):
        return ""
    options = step.value("recipe_options", overrides) if step.knows("recipe_options") else {}
    return _recipe_digest(str(step.value("recipe", overrides)), json.dumps(options, sort_keys=True))


@functools.cache
def _recipe_digest(name: str, options: str) -> str:
    return recipes.digest(name, **json.loads(options))


def _is_shipped(bundle: Path) -> bool:
    return bundle.resolve() in {bundles.path(name).resolve() for name in bundles.names()}


def _without_places(overrides: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in overrides.items() if key not in _PLACES}


def _short(value: Any) -> str:
    return f"{value[:12]}..." if isinstance(value, str) and len(value) > 40 else repr(value)


def _settled(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _plain(value) for key, value in settings.items()}


def _plain(value: Any) -> Any:
    """Value after a round trip through JSON."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


__all__ = ["FORMAT", "Change", "Settings", "changes", "short_digest", "versions"]
