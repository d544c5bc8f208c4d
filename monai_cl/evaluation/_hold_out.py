"""Patients of the training list that are kept apart to be evaluated on."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from monai_cl.data.datalist import read_datalist, subject_of
from monai_cl.evaluation._config import CurveConfig
from monai_cl.evaluation._store import write_json

DATALIST = "datalist.json"


@contextmanager
def kept_apart(config: CurveConfig, *, write: bool) -> Iterator[tuple[CurveConfig, tuple[str, ...]]]:
    """The config with a datalist in which ``hold_out`` patients have moved from training to the evaluation section.

    They are in no other section then, so neither pretraining nor fine-tuning sees them. Which patients follows from
    their names alone.

    Args:
        config: The curve.
        write: Write the datalist into the output folder; else into one that is gone afterwards.

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
    content, volumes = _moved(read_datalist(config.settings["datalist"]), config.evaluation.section, number)
    said = f"{number} patients of training ({volumes} volumes) were kept apart for {config.evaluation.section}"
    with tempfile.TemporaryDirectory() as temporary:
        path = (config.output if write else Path(temporary)) / DATALIST
        write_json(path, content)
        yield replace(config, settings={**config.settings, "datalist": str(path)}), (said,)


def _moved(content: dict[str, Any], section: str, number: int) -> tuple[dict[str, Any], int]:
    """The datalist, and how many volumes were moved."""
    training = content.get("training", [])
    patients = sorted({subject_of(item) for item in training if item.get("label")}, key=_draw)
    if number >= len(patients):
        raise ValueError(
            f"evaluation.hold_out must leave patients to train on: training has {len(patients)} labelled ones, "
            f"got {number}"
        )
    apart = set(patients[:number])
    moved = [item for item in training if subject_of(item) in apart]
    sections = {
        name: [item for item in value if not (isinstance(item, dict) and subject_of(item) in apart)]
        for name, value in content.items()
        if isinstance(value, list) and any(isinstance(item, dict) for item in value)
    }
    return {**content, **sections, section: [*sections.get(section, []), *moved]}, len(moved)


def _draw(subject: str) -> str:
    return hashlib.sha256(f"kept apart:{subject}".encode()).hexdigest()


__all__ = ["DATALIST", "kept_apart"]
