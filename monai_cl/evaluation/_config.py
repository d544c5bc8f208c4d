"""The file that says which label-efficiency curve to measure, read and checked."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from monai_cl import bundles
from monai_cl.evaluation._records import PAIRED

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
LONGER = "_2x"  # ends the name of the arm with twice the steps
COMPUTE = "_plus_"  # joins the reference and the arm whose pretraining time it gets
DECIDED = ("labels", "seed", "pretrained", "model", "output_dir", "evaluation_section", "bundle_root", "config_file")
SHARED = (
    "dataset_dir",
    "datalist",
    "recipe",
    "recipe_options",
    "finetune_epochs",
    "finetune_epoch_length",
    "finetune_batch_size",
)


@dataclass(frozen=True)
class Pretraining:
    """Pretraining runs of an arm: the ``pretrain`` step of a bundle, once for each seed.

    Attributes:
        after: The arm whose pretrained networks the runs begin with, run by run: a second stage; empty without.
        of: The arm whose pretrained networks are taken as they are; there are then no runs of its own.
    """

    bundle: Path
    overlays: tuple[str, ...]
    settings: dict[str, Any]
    seeds: tuple[int, ...]
    paired: bool = False  # each seed of fine-tuning starts from one run, in turn, instead of from every one
    after: str = ""
    of: str = ""


@dataclass(frozen=True)
class Arm:
    """What networks start from, and how they are fine-tuned."""

    name: str
    title: str
    settings: dict[str, Any]
    checkpoints: dict[str, Path]  # by name of the pretraining run
    pretraining: Pretraining | None
    pretraining_seconds: float | None  # of one run behind the checkpoints, where somebody knows

    @property
    def runs(self) -> tuple[str, ...]:
        """Names of the pretraining runs; one empty name without pretraining."""
        if self.pretraining is not None:
            return tuple(f"seed_{seed}" for seed in self.pretraining.seeds)
        return tuple(self.checkpoints) or ("",)

    @property
    def series(self) -> tuple[str, ...]:
        """Names of the series of fine-tunings: one for each pretraining run, or one that takes the runs in turn."""
        paired = self.pretraining is not None and self.pretraining.paired and len(self.runs) > 1
        return (PAIRED,) if paired else self.runs

    def run_of(self, series: str, place: int) -> str:
        """The pretraining run that a fine-tuning starts from, given its series and the place of its seed."""
        return self.runs[place % len(self.runs)] if series == PAIRED else series

    @property
    def from_scratch(self) -> bool:
        """Whether there is no pretraining."""
        return self.runs == ("",)


@dataclass(frozen=True)
class Evaluation:
    """Which cases count, and how intervals are made.

    Attributes:
        hold_out: Number of patients of ``training`` that are moved to ``section``.
    """

    section: str = "validation"
    confidence: float = 0.95
    resamples: int = 10_000
    hold_out: int = 0


@dataclass(frozen=True)
class CurveConfig:
    """A label-efficiency curve that is to be measured; see :func:`monai_cl.evaluation.run_curve`."""

    source: Path
    bundle: Path
    overlays: tuple[str, ...]
    settings: dict[str, Any]
    budgets: tuple[int | str, ...]
    seeds: tuple[int, ...]
    arms: tuple[Arm, ...]
    reference: str
    evaluation: Evaluation
    equal_compute: tuple[int | str, ...]  # budgets of the comparison; empty without
    compute_of: tuple[str, ...]  # arms that it is made with
    converged_at: tuple[int | str, ...]  # budgets where twice the steps are tried; empty without
    tolerance: float
    keep_models: bool
    output: Path

    def arm(self, name: str) -> Arm:
        """The arm of that name."""
        return next(arm for arm in self.arms if arm.name == name)

    def stages(self, name: str) -> tuple[str, ...]:
        """The arms whose pretraining runs are behind the networks of an arm, in order; the last are fine-tuned."""
        pretraining = self.arm(name).pretraining
        if pretraining is None:
            return ()
        if pretraining.of:
            return self.stages(pretraining.of)
        return (*(self.stages(pretraining.after) if pretraining.after else ()), name)


_KEYS = (
    "bundle",
    "overlays",
    "settings",
    "budgets",
    "seeds",
    "arms",
    "reference",
    "evaluation",
    "equal_compute",
    "convergence",
    "keep_models",
    "output",
)


def read_config(path: str | Path) -> CurveConfig:
    """Read and check a file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no YAML, holds an unknown key or value (the message names the closest and all), or arms
            that cannot be compared.
    """
    source = Path(path)
    content = _load(source)
    _check_keys(content, _KEYS, str(source))
    _require(content, ("bundle", "budgets", "seeds", "arms", "output"), source)
    bundle = _bundle(content["bundle"])
    settings = _settings(content.get("settings"), "settings", DECIDED)
    budgets = _budgets(content["budgets"], "budgets")
    arms = _arms(content["arms"], bundle)
    convergence = _section(content.get("convergence", {}), ("budgets", "tolerance"), "convergence")
    compute = _section(content.get("equal_compute", {}), ("budgets", "arms"), "equal_compute")
    return CurveConfig(
        source=source,
        bundle=bundle,
        overlays=_texts(content.get("overlays", ()), "overlays"),
        settings=settings,
        budgets=budgets,
        seeds=_integers(content["seeds"], "seeds"),
        arms=arms,
        reference=_reference(content.get("reference"), arms),
        evaluation=_evaluation(content.get("evaluation")),
        equal_compute=() if compute is None else _subset(compute.get("budgets", budgets), budgets, "equal_compute"),
        compute_of=_named_arms((compute or {}).get("arms"), arms),
        converged_at=()
        if convergence is None
        else _subset(convergence.get("budgets", (budgets[0], budgets[-1])), budgets, "convergence"),
        tolerance=_number((convergence or {}).get("tolerance", 0.005), "convergence.tolerance", low=0.0, high=1.0),
        keep_models=_flag(content.get("keep_models", True), "keep_models"),
        output=Path(str(content["output"])),
    )


def suggestion(name: object, valid: Sequence[str]) -> str:
    """What to say after an unknown name: the closest, and all."""
    close = difflib.get_close_matches(str(name), valid, n=1)
    return (f", did you mean {close[0]!r}?" if close else "") + f" (valid: {', '.join(valid)})"


def _load(source: Path) -> dict[str, Any]:
    if not source.is_file():
        raise FileNotFoundError(f"no such file: {source}; the tutorials hold one to start from, curve_hippocampus.yaml")
    try:
        content = yaml.safe_load(source.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{source} is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{source} must hold keys and values, got a {type(content).__name__}")
    return content


def _check_keys(content: Mapping[Any, Any], valid: Sequence[str], where: str) -> None:
    for key in content:
        if key not in valid:
            raise ValueError(f"unknown key {key!r} in {where}{suggestion(key, valid)}")


def _require(content: Mapping[str, Any], keys: Sequence[str], source: Path) -> None:
    missing = [key for key in keys if key not in content]
    if missing:
        raise ValueError(f"{source} must have the keys {', '.join(keys)}; missing: {', '.join(missing)}")


def _bundle(value: Any) -> Path:
    folder = Path(str(value))
    if (folder / "configs").is_dir():
        return folder
    return bundles.path(str(value))


def _section(value: Any, keys: Sequence[str], where: str) -> dict[str, Any] | None:
    """A section of the file; ``None`` where it is switched off by ``false``."""
    if value is False:
        return None
    content = {} if value is None or value is True else value
    if not isinstance(content, dict):
        raise ValueError(f"{where} must be false or hold the keys {', '.join(keys)}, got {value!r}")
    _check_keys(content, keys, where)
    return content


def _settings(value: Any, where: str, refused: Sequence[str]) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"{where} must hold ids of the bundle's configs and their values, got {value!r}")
    wrong = [str(key) for key in value if key in refused]
    if wrong:
        raise ValueError(
            f"{where} must leave {', '.join(wrong)} to the curve, which sets "
            f"{'it' if len(wrong) == 1 else 'them'} alike for every arm; take {'it' if len(wrong) == 1 else 'them'} out"
        )
    return {str(key): item for key, item in value.items()}


def _arms(value: Any, bundle: Path) -> tuple[Arm, ...]:
    if not isinstance(value, dict) or not value:
        raise ValueError(f"arms must hold at least one name with its settings, got {value!r}")
    named = {str(name): content for name, content in value.items()}
    found: dict[str, Arm] = {}
    for name in named:
        _add_arm(name, named, bundle, found, ())
    return tuple(found[name] for name in named)


def _add_arm(name: str, named: Mapping[str, Any], bundle: Path, found: dict[str, Arm], asking: tuple[str, ...]) -> None:
    """Read an arm after those whose networks it takes."""
    if name in found:
        return
    if name in asking:
        raise ValueError(f"`after` and `of` must not lead back to where they began, got {' -> '.join((*asking, name))}")
    start = named[name].get("pretrained") if isinstance(named[name], dict) else None
    for key in ("after", "of"):
        other = start.get(key) if isinstance(start, dict) else None
        if isinstance(other, str) and other in named:
            _add_arm(other, named, bundle, found, (*asking, name))
    found[name] = _arm(name, named[name], bundle, found)


def _arm(name: str, value: Any, bundle: Path, before: Mapping[str, Arm]) -> Arm:
    where = f"arm {name!r}"
    if not NAME.fullmatch(name) or name.endswith(LONGER) or COMPUTE in name:
        raise ValueError(
            f"the name of an arm must be of letters, digits, '_', '-' and '.', and leave {LONGER!r} at the end and "
            f"{COMPUTE!r} to the arms that are added, got {name!r}"
        )
    content = _section(value, ("pretrained", "settings", "title", "pretraining_seconds"), where)
    if not content or "pretrained" not in content:
        raise ValueError(f"{where} must say what it is `pretrained` with: none, paths, or settings; got {value!r}")
    start = content["pretrained"]
    seconds = content.get("pretraining_seconds")
    return Arm(
        name=name,
        title=str(content.get("title", name.replace("_", " "))),
        settings=_settings(content.get("settings"), f"settings of {where}", (*DECIDED, *SHARED)),
        checkpoints=_checkpoints(start, where),
        pretraining=_pretraining(start, where, bundle, before) if isinstance(start, dict) else None,
        pretraining_seconds=None if seconds is None else _number(seconds, f"pretraining_seconds of {where}", low=0.0),
    )


def _checkpoints(start: Any, where: str) -> dict[str, Path]:
    if isinstance(start, dict) or start is None or (isinstance(start, str) and start.lower() in ("none", "null", "")):
        return {}
    paths = [Path(text) for text in _texts(start, f"pretrained of {where}")]
    if not paths or len({path.resolve() for path in paths}) < len(paths):
        raise ValueError(f"pretrained of {where} must be different paths, got {start!r}")
    stems = [path.stem for path in paths]
    unique = len(set(stems)) == len(stems) and all(NAME.fullmatch(stem) for stem in stems)
    return {stem if unique else f"run_{i}": path for i, (stem, path) in enumerate(zip(stems, paths, strict=True))}


def _pretraining(start: dict[str, Any], where: str, bundle: Path, before: Mapping[str, Arm]) -> Pretraining:
    where = f"pretrained of {where}"
    _check_keys(start, ("bundle", "overlays", "settings", "seeds", "paired", "after", "of"), where)
    if "of" in start:
        if len(start) > 1:
            raise ValueError(f"{where} must say nothing beside `of`, whose runs are taken as they are, got {start!r}")
        return replace(_earlier(start["of"], f"{where}: of", before), after="", of=str(start["of"]))
    first = _earlier(start["after"], f"{where}: after", before) if "after" in start else None
    for key in ("seeds", "paired"):
        if first is not None and key in start:
            raise ValueError(f"{where} must leave {key} to the arm that it is `after`, got {start[key]!r}; take it out")
    return Pretraining(
        bundle=_bundle(start["bundle"]) if "bundle" in start else bundle,
        overlays=_texts(start.get("overlays", ()), f"overlays of {where}"),
        settings=_settings(start.get("settings"), f"settings of {where}", (*DECIDED, *(["start"] if first else []))),
        seeds=first.seeds if first else _integers(start.get("seeds", [0]), f"seeds of {where}"),
        paired=first.paired if first else _flag(start.get("paired", False), f"paired of {where}"),
        after=str(start.get("after", "")),
    )


def _earlier(name: Any, where: str, before: Mapping[str, Arm]) -> Pretraining:
    """The pretraining of an arm that was read already."""
    known = {arm.name: arm.pretraining for arm in before.values() if arm.pretraining is not None}
    if name not in known:
        raise ValueError(f"{where} must name another arm that is pretrained, got {name!r}{suggestion(name, [*known])}")
    return known[name]


def _reference(value: Any, arms: Sequence[Arm]) -> str:
    scratch = [arm.name for arm in arms if arm.from_scratch]
    if value is None and len(scratch) == 1:
        return scratch[0]
    if value is None or value not in scratch:
        said = "none" if not scratch else ", ".join(scratch)
        raise ValueError(
            "the others are compared with one arm without pretraining (pretrained: none); name it as reference, "
            f"got {value!r}, arms without pretraining: {said}"
        )
    return str(value)


def _named_arms(value: Any, arms: Sequence[Arm]) -> tuple[str, ...]:
    """Arms whose pretraining time is handed to the reference: those named, or all that are pretrained here."""
    known = [arm.name for arm in arms if not arm.from_scratch]
    chosen = known if value is None else _texts(value, "equal_compute.arms")
    for name in chosen:
        if name not in known:
            raise ValueError(f"equal_compute.arms must be pretrained arms, got {name!r}{suggestion(name, known)}")
    return tuple(chosen)


def _evaluation(value: Any) -> Evaluation:
    content = _section({} if value is None else value, ("section", "confidence", "resamples", "hold_out"), "evaluation")
    if content is None:
        raise ValueError("evaluation must hold the keys section, confidence, resamples, hold_out, got False")
    resamples = content.get("resamples", 10_000)
    if not isinstance(resamples, int) or resamples < 100:
        raise ValueError(f"evaluation.resamples must be an integer of at least 100, got {resamples!r}")
    confidence = _number(content.get("confidence", 0.95), "evaluation.confidence", low=0.5, high=0.999)
    hold_out = content.get("hold_out", 0)
    if not isinstance(hold_out, int) or isinstance(hold_out, bool) or hold_out < 0:
        raise ValueError(f"evaluation.hold_out must be a number of patients from 0, got {hold_out!r}")
    return Evaluation(str(content.get("section", "validation")), confidence, resamples, hold_out)


def _budgets(value: Any, where: str) -> tuple[int | str, ...]:
    listed = value if isinstance(value, list | tuple) else [value]
    if not listed:
        raise ValueError(f"{where} must hold at least one number of labels, got {value!r}")
    for each in listed:
        if each != "all" and (not isinstance(each, int) or isinstance(each, bool) or each < 1):
            raise ValueError(f"{where} must be numbers of labels from 1, or all, got {each!r}")
    return tuple(sorted(set(listed), key=lambda budget: float("inf") if budget == "all" else budget))


def _subset(value: Any, budgets: Sequence[int | str], where: str) -> tuple[int | str, ...]:
    chosen = _budgets(value, f"{where}.budgets")
    unknown = [str(budget) for budget in chosen if budget not in budgets]
    if unknown:
        raise ValueError(
            f"{where}.budgets must be among the budgets {', '.join(map(str, budgets))}, got {', '.join(unknown)}"
        )
    return chosen


def _integers(value: Any, where: str) -> tuple[int, ...]:
    listed = value if isinstance(value, list) else [value]
    if not listed or not all(isinstance(each, int) and not isinstance(each, bool) for each in listed):
        raise ValueError(f"{where} must be whole numbers, got {value!r}")
    if len(set(listed)) < len(listed):
        raise ValueError(f"{where} must be different numbers, got {value!r}")
    return tuple(listed)


def _texts(value: Any, where: str) -> tuple[str, ...]:
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list | tuple) or not all(isinstance(each, str) for each in listed):
        raise ValueError(f"{where} must be names or paths, got {value!r}")
    return tuple(listed)


def _number(value: Any, where: str, *, low: float, high: float = float("inf")) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{where} must be a number from {low:g} to {high:g}, got {value!r}")
    return float(value)


def _flag(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{where} must be true or false, got {value!r}")
    return value
