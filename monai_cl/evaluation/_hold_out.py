"""Patients of the training list, or a site, that are kept apart to be evaluated on."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from monai_cl._files import atomic_write
from monai_cl.datalist import datalist_file, is_cache, read_datalist, section_names, subject_of
from monai_cl.evaluation._config import CurveConfig
from monai_cl.evaluation._leave_out import group_left_out
from monai_cl.evaluation._store import read_json, write_json

DATALIST = "datalist.json"


@contextmanager
def kept_apart(config: CurveConfig, *, write: bool) -> Iterator[tuple[CurveConfig, tuple[str, ...]]]:
    """The config with a datalist in which ``hold_out`` patients, or a group, have left training for another section.

    They are in no other section then, so neither pretraining nor fine-tuning sees them. Which patients follows from
    their names alone, and those of the evaluation come first: with and without tuning they are the same.

    Args:
        config: The curve.
        write: Write the datalist into the output folder; else into one that is gone afterwards, if it is missing.

    Yields:
        The config, and what was done in words.

    Raises:
        ValueError: If the settings name no datalist, training has not more patients than that, or a group cannot be
            left out, see :func:`monai_cl.evaluation._leave_out.group_left_out`.
    """
    asked = {"evaluation": config.evaluation, "tune": config.tune}
    numbers = {name: (each.section, each.hold_out) for name, each in asked.items() if each and each.hold_out}
    group = config.evaluation.leave_out
    if not numbers and group is None:
        yield config, ()
        return
    if "datalist" not in config.settings:
        keys = " and ".join(
            [*(f"{name}.hold_out" for name in numbers), *["evaluation.leave_out"] * (group is not None)]
        )
        raise ValueError(f"{keys} needs the datalist among the settings, to write another; add it")
    source = config.settings["datalist"]
    # who is kept apart follows from the names as they are, what is written hides those of a list made by hand
    content, notes = read_datalist(source), []
    own = _named_alike(read_datalist(source, hide_names=False), content)
    if group is not None:
        content, own, words = group_left_out(content, own, config.evaluation.section, by=group.by, value=group.value)
        notes.append(words)
    for section, apart in _patients(own, numbers):
        content, own, volumes = _moved(content, own, section, apart)
        notes.append(f"{len(apart)} patients of training ({volumes} volumes) were kept apart for {section}")
    with tempfile.TemporaryDirectory() as temporary:
        path = config.output / DATALIST
        if not _lists_the_same(path, content):
            path = path if write else Path(temporary) / DATALIST
            write_json(path, content)
        # paths of a cache start from its folder, wherever the list of them lies
        start = {"dataset_dir": str(datalist_file(source).parent)} if is_cache(source) else {}
        settings = {**config.settings, "datalist": str(path), **start}
        yield config.model_copy(update={"settings": settings}), tuple(notes)


def _named_alike(own: Mapping[str, Any], content: Mapping[str, Any]) -> dict[str, Any]:
    """Sections of a list as it is, by their names in the hidden one, which has them in the same order."""
    ours, theirs = section_names(own), section_names(content)
    rest = {name: value for name, value in own.items() if name not in ours}
    return rest | {name: own[raw] for raw, name in zip(ours, theirs, strict=True)}


@contextmanager
def earlier_list(folder: Path) -> Iterator[ExitStack]:
    """Put the list of an earlier curve back into a folder, unless the new one is accepted: ``pop_all`` of the stack.

    Args:
        folder: Output folder of the curve.
    """
    with ExitStack() as undo:
        if (path := folder / DATALIST).is_file():
            undo.callback(_write_whole, path, path.read_bytes())
        yield undo


def _write_whole(path: Path, content: bytes) -> None:
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def _lists_the_same(path: Path, content: dict[str, Any]) -> bool:
    """Return whether an earlier start, perhaps of another version, wrote a list of the same volumes."""
    existing = read_json(path)
    return existing is not None and _images(existing) == _images(content)


def _images(content: dict[str, Any]) -> dict[str, list[str]]:
    return {
        name: [str(item.get("image")) if isinstance(item, dict) else str(item) for item in value]
        for name, value in content.items()
        if isinstance(value, list) and any(isinstance(item, dict) for item in value)
    }


def _patients(own: Mapping[str, Any], numbers: Mapping[str, tuple[str, int]]) -> Iterator[tuple[str, set[str]]]:
    """The patients that each section gets."""
    patients = sorted({subject_of(item) for item in own.get("training", []) if item.get("label")}, key=_draw)
    wanted = sum(number for _, number in numbers.values())
    if wanted >= len(patients):
        keys = " and ".join(f"{name}.hold_out" for name in numbers)
        raise ValueError(
            f"{keys} must leave patients to train on: training has {len(patients)} labelled ones, got {wanted}"
        )
    for section, number in numbers.values():
        yield section, set(patients[:number])
        patients = patients[number:]


def _moved(
    content: dict[str, Any], own: dict[str, Any], section: str, apart: set[str]
) -> tuple[dict[str, Any], dict[str, Any], int]:
    """The datalist, the same with its names as they are (``own``), and how many volumes were moved."""
    named = [name for name, value in content.items() if isinstance(value, list) and any(map(_is_item, value))]
    moves = {name: [_is_item(item) and subject_of(item) in apart for item in own[name]] for name in named}

    def after(listed: dict[str, Any]) -> dict[str, Any]:
        sections = {
            name: [item for item, gone in zip(listed[name], moves[name], strict=True) if not gone] for name in named
        }
        moved = [item for item, gone in zip(listed["training"], moves["training"], strict=True) if gone]
        return {**listed, **sections, section: [*sections.get(section, []), *moved]}

    return after(content), after(own), sum(moves["training"])


def _is_item(item: Any) -> bool:
    return isinstance(item, dict)


def _draw(subject: str) -> str:
    return hashlib.sha256(f"kept apart:{subject}".encode()).hexdigest()


__all__ = ["DATALIST", "earlier_list", "kept_apart"]
