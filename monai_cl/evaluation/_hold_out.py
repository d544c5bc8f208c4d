"""Patients of the training list that are kept apart to be evaluated on."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from monai_cl.datalist import datalist_file, is_cache, read_datalist, subject_of
from monai_cl.evaluation._config import CurveConfig
from monai_cl.evaluation._store import read_json, write_json

DATALIST = "datalist.json"


@contextmanager
def kept_apart(config: CurveConfig, *, write: bool) -> Iterator[tuple[CurveConfig, tuple[str, ...]]]:
    """The config with a datalist in which ``hold_out`` patients have moved from training to the evaluation section.

    They are in no other section then, so neither pretraining nor fine-tuning sees them. Which patients follows from
    their names alone.

    Args:
        config: The curve.
        write: Write the datalist into the output folder; else into one that is gone afterwards, if it is not there.

    Yields:
        The config, and what was done in words.

    Raises:
        ValueError: If the settings name no datalist, or training has not more patients than that.
    """
    number = config.evaluation.hold_out
    if number == 0:
        yield config, ()
        return
    if "datalist" not in config.settings:
        raise ValueError("evaluation.hold_out needs the datalist among the settings, to write another; add it")
    source = config.settings["datalist"]
    # who is kept apart follows from the names as they are, what is written hides those of a list made by hand
    own, shown = read_datalist(source, hide_names=False), read_datalist(source)
    content, volumes = _moved(shown, own, config.evaluation.section, number)
    said = f"{number} patients of training ({volumes} volumes) were kept apart for {config.evaluation.section}"
    with tempfile.TemporaryDirectory() as temporary:
        path = config.output / DATALIST
        if not _lists_the_same(path, content):
            path = path if write else Path(temporary) / DATALIST
            write_json(path, content)
        # paths of a cache start from its folder, wherever the list of them lies
        start = {"dataset_dir": str(datalist_file(source).parent)} if is_cache(source) else {}
        settings = {**config.settings, "datalist": str(path), **start}
        yield config.model_copy(update={"settings": settings}), (said,)


def _lists_the_same(path: Path, content: dict[str, Any]) -> bool:
    """Tell whether an earlier start, perhaps of another version, wrote a list of the same volumes: it stays."""
    there = read_json(path)
    return there is not None and _images(there) == _images(content)


def _images(content: dict[str, Any]) -> dict[str, list[str]]:
    return {
        name: [str(item.get("image")) if isinstance(item, dict) else str(item) for item in value]
        for name, value in content.items()
        if isinstance(value, list) and any(isinstance(item, dict) for item in value)
    }


def _moved(content: dict[str, Any], own: dict[str, Any], section: str, number: int) -> tuple[dict[str, Any], int]:
    """The datalist, and how many volumes were moved; ``own`` is the same list with its names as they are."""
    training = own.get("training", [])
    patients = sorted({subject_of(item) for item in training if item.get("label")}, key=_draw)
    if number >= len(patients):
        raise ValueError(
            f"evaluation.hold_out must leave patients to train on: training has {len(patients)} labelled ones, "
            f"got {number}"
        )
    apart = set(patients[:number])

    def of(name: str, *, kept: bool) -> list[Any]:
        pairs = zip(content.get(name, []), own.get(name, []), strict=True)
        return [item for item, named in pairs if kept != (isinstance(named, dict) and subject_of(named) in apart)]

    moved = of("training", kept=False)
    sections = {
        name: of(name, kept=True)
        for name, value in content.items()
        if isinstance(value, list) and any(isinstance(item, dict) for item in value)
    }
    return {**content, **sections, section: [*sections.get(section, []), *moved]}, len(moved)


def _draw(subject: str) -> str:
    return hashlib.sha256(f"kept apart:{subject}".encode()).hexdigest()


__all__ = ["DATALIST", "kept_apart"]
