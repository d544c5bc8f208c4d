"""The arms of a curve, read and checked: what they start from and whose networks they take."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from monai_cl.evaluation._config import COMPUTE, DECIDED, LONGER, Arm, Pretraining
from monai_cl.evaluation._read_values import (
    check_keys,
    read_bundle,
    read_flag,
    read_integers,
    read_number,
    read_section,
    read_settings,
    read_texts,
    suggestion,
)

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
ARM_KEYS = ("pretrained", "settings", "title", "pretraining_seconds")
PRETRAINED_KEYS = ("bundle", "overlays", "settings", "seeds", "paired", "after", "of")
SHARED = (
    "dataset_dir",
    "datalist",
    "recipe",
    "recipe_options",
    "finetune_epochs",
    "finetune_epoch_length",
    "finetune_batch_size",
)


def read_arms(value: Any, bundle: Path) -> tuple[Arm, ...]:
    """The arms in the order of the file."""
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
    content = read_section(value, ARM_KEYS, where)
    if not content or "pretrained" not in content:
        raise ValueError(f"{where} must say what it is `pretrained` with: none, paths, or settings; got {value!r}")
    start = content["pretrained"]
    seconds = content.get("pretraining_seconds")
    return Arm(
        name=name,
        title=str(content.get("title", name.replace("_", " "))),
        settings=read_settings(content.get("settings"), f"settings of {where}", (*DECIDED, *SHARED)),
        checkpoints=_checkpoints(start, where),
        pretraining=_pretraining(start, where, bundle, before) if isinstance(start, dict) else None,
        pretraining_seconds=None
        if seconds is None
        else read_number(seconds, f"pretraining_seconds of {where}", low=0.0),
    )


def _checkpoints(start: Any, where: str) -> dict[str, Path]:
    if isinstance(start, dict) or start is None or (isinstance(start, str) and start.lower() in ("none", "null", "")):
        return {}
    paths = [Path(text) for text in read_texts(start, f"pretrained of {where}")]
    if not paths or len({path.resolve() for path in paths}) < len(paths):
        raise ValueError(f"pretrained of {where} must be different paths, got {start!r}")
    stems = [path.stem for path in paths]
    unique = len(set(stems)) == len(stems) and all(NAME.fullmatch(stem) for stem in stems)
    return {stem if unique else f"run_{i}": path for i, (stem, path) in enumerate(zip(stems, paths, strict=True))}


def _pretraining(start: dict[str, Any], where: str, bundle: Path, before: Mapping[str, Arm]) -> Pretraining:
    where = f"pretrained of {where}"
    check_keys(start, PRETRAINED_KEYS, where)
    if "of" in start:
        if len(start) > 1:
            raise ValueError(f"{where} must say nothing beside `of`, whose runs are taken as they are, got {start!r}")
        return replace(_earlier(start["of"], f"{where}: of", before), after="", of=str(start["of"]))
    first = _earlier(start["after"], f"{where}: after", before) if "after" in start else None
    for key in ("seeds", "paired"):
        if first is not None and key in start:
            raise ValueError(f"{where} must leave {key} to the arm that it is `after`, got {start[key]!r}; take it out")
    return Pretraining(
        bundle=read_bundle(start["bundle"]) if "bundle" in start else bundle,
        overlays=read_texts(start.get("overlays", ()), f"overlays of {where}"),
        settings=read_settings(
            start.get("settings"), f"settings of {where}", (*DECIDED, *(["start"] if first else []))
        ),
        seeds=first.seeds if first else read_integers(start.get("seeds", [0]), f"seeds of {where}"),
        paired=first.paired if first else read_flag(start.get("paired", False), f"paired of {where}"),
        after=str(start.get("after", "")),
    )


def _earlier(name: Any, where: str, before: Mapping[str, Arm]) -> Pretraining:
    """The pretraining of an arm that was read already."""
    known = {arm.name: arm.pretraining for arm in before.values() if arm.pretraining is not None}
    if name not in known:
        raise ValueError(f"{where} must name another arm that is pretrained, got {name!r}{suggestion(name, [*known])}")
    return known[name]


def read_reference(value: Any, arms: Sequence[Arm]) -> str:
    """The arm without pretraining that the others are compared with: the one named, or the only one."""
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


def read_named_arms(value: Any, arms: Sequence[Arm]) -> tuple[str, ...]:
    """Arms whose pretraining time is handed to the reference: those named, or all that are pretrained here."""
    known = [arm.name for arm in arms if not arm.from_scratch]
    chosen = known if value is None else read_texts(value, "equal_compute.arms")
    for name in chosen:
        if name not in known:
            raise ValueError(f"equal_compute.arms must be pretrained arms, got {name!r}{suggestion(name, known)}")
    return tuple(chosen)
