"""``run.json``: what a run was made from, written beside its results."""

import os
import time
from collections.abc import Mapping, Sequence, Sized
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from torch import nn

from monai_cl import recipes
from monai_cl._files import read_json, write_json
from monai_cl.data import digest
from monai_cl.datalist import read_datalist, subjects_by_case
from monai_cl.engine.machine import hardware, versions
from monai_cl.engine.patients import numbered
from monai_cl.engine.resolved import resolved_settings
from monai_cl.weights import receipt_of, start_of

FILE = "run.json"
_FORMAT = 1


class RunRecord:
    """Write ``run.json``: step, seed, settings, recipe, data, receipt, versions, hardware, times.

    Beside ``settings``, ``resolved`` describes the objects that train, see
    :func:`monai_cl.engine.resolved.resolved_settings`.

    It is written when the run starts and again when it ends, so a run that was killed has one too. Each start adds a
    part, so a resumed run records the versions and the machine of each part. Use it on rank 0, after the checkpoint
    handler. The record is for the machine of the run and keeps its paths; a report shows none of them.

    Args:
        folder: Folder of the run.
        step: ``"pretrain"``, ``"train"`` or ``"evaluate"``.
        settings: Further settings needed to repeat the run.
        seed: The run's seed.
        datalist: The datalist, and
        dataset_dir: the folder its paths start from.
        sections: Which lists of it were read.
        recipe: Name of the recipe that prepared the volumes, with
        recipe_options: the values given to it.
        volumes: The prepared volumes, to be counted; those it left out are named by its ``faults``.
        unlabelled: Prepared volumes that took part without their labels, to be counted likewise.
        slices: Slices drawn from them, such as :class:`monai_cl.data.SliceDataset`: of how many how many may be drawn.
        processes: Number of processes that shared the volumes; ``volumes`` are those of one of them.
        network: The network, whose start and receipt are recorded once the run starts.
        model: File of the weights that were evaluated; its SHA-256 is kept.
    """

    def __init__(
        self,
        folder: str | Path,
        step: str,
        *,
        settings: Mapping[str, Any] | None = None,
        seed: int | None = None,
        datalist: str | Path | None = None,
        dataset_dir: str | Path | None = None,
        sections: str | Sequence[str] | None = None,
        recipe: str | Path | None = None,
        recipe_options: Mapping[str, Any] | None = None,
        volumes: Sized | None = None,
        unlabelled: Sized | None = None,
        slices: Any = None,
        processes: int = 1,
        network: nn.Module | None = None,
        model: str | Path | None = None,
    ) -> None:
        self.path = Path(folder) / FILE
        self._started = 0.0
        self._model = model
        self._network = network
        self._content: dict[str, Any] = {
            "format": _FORMAT,
            "step": step,
            "seed": seed,
            "settings": dict(settings or {}),
            "recipe": None if recipe is None else _recipe(recipe, dict(recipe_options or {})),
            "data": {
                **_data(datalist, dataset_dir, sections),
                **(_patients(datalist, sections) if step == "evaluate" else {}),
                **_prepared(volumes, unlabelled, processes),
                **_slices(slices),
            },
            "start": None,
            "receipt": None,
        }

    def attach(self, engine: Engine) -> None:
        """Register with a trainer or evaluator."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._note)
        engine.add_event_handler(Events.COMPLETED, self._finish)

    def _start(self, engine: Engine) -> None:
        self._started = time.perf_counter()
        earlier = read_run_record(self.path.parent).get("parts", []) if engine.state.iteration else []
        part = {"started": _now(), "finished": None, "from_step": engine.state.iteration, "to_step": None}
        self._content["resolved"] = getattr(engine, "resolved", None) or resolved_settings(engine)
        self._content["parts"] = [*earlier, {**part, "seconds": None, "versions": versions(), "hardware": hardware()}]
        self._note_start()
        if self._model is not None:
            self._content["model"] = {"file": Path(self._model).name, "sha256": digest(self._model)}
        self._write(engine)

    def _note_start(self) -> None:
        if self._network is None:
            return
        if (start := start_of(self._network)) is not None:
            self._content["start"] = start.to_record()
        if (receipt := receipt_of(self._network)) is not None:
            self._content["receipt"] = {**asdict(receipt), "share": receipt.share}

    def _note(self, engine: Engine) -> None:
        part = self._content["parts"][-1]
        part.update(to_step=engine.state.iteration, seconds=round(time.perf_counter() - self._started, 1))
        self._write(engine)

    def _finish(self, engine: Engine) -> None:
        self._content["parts"][-1]["finished"] = _now()
        self._note(engine)

    def _write(self, engine: Engine) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, self._content, default=str)


def read_run_record(folder: str | Path) -> dict[str, Any]:
    """Record of a run; empty if absent.

    Raises:
        ValueError: If the file is no record that this version can read.
    """
    path = Path(folder) / FILE
    if not path.is_file():
        return {}
    try:
        content = read_json(path)
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}; run the step again, or remove the file") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        got = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"{path} must be a run record of format {_FORMAT}, got {got!r}; which version wrote it?")
    return content


def _recipe(name: str | Path, options: dict[str, Any]) -> dict[str, Any]:
    return {"name": str(name), "options": options, "sha256": recipes.digest(name, **options)}


def _data(datalist: str | Path | None, dataset_dir: str | Path | None, sections: Any) -> dict[str, Any]:
    if datalist is None:
        return {}
    folder = Path(datalist).parent if dataset_dir is None else Path(dataset_dir)
    paths = {"datalist": os.path.abspath(datalist), "dataset_dir": os.path.abspath(folder)}
    return {**paths, "sections": sections, "sha256": digest(datalist), **datalist_facts(datalist)}


def _patients(datalist: str | Path | None, sections: Any) -> dict[str, Any]:
    """Patients of the cases, which intervals over an evaluation need."""
    if datalist is None or not sections:
        return {}
    return {"patients": numbered(subjects_by_case(datalist, sections))}


def datalist_facts(datalist: str | Path) -> dict[str, Any]:
    """Name, licence, number of volumes a section and of exclusions a reason of a datalist."""
    content = read_datalist(datalist)
    counts = {name: len(value) for name, value in content.items() if isinstance(value, list)}
    texts = {key: str(content[key]) for key in ("name", "licence", "reference") if content.get(key)}
    return {**texts, "counts": counts, "left_out": dict(content.get("left_out") or {})}


def _prepared(volumes: Sized | None, unlabelled: Sized | None, processes: int) -> dict[str, Any]:
    if volumes is None:
        return {}
    faults = [list(fault) for each in (volumes, unlabelled) for fault in getattr(each, "faults", [])]
    without = {} if unlabelled is None else {"prepared_unlabelled": len(unlabelled)}
    return {"prepared": len(volumes), **without, "processes": processes, "faults": faults}


def _slices(slices: Any) -> dict[str, Any]:
    if slices is None:
        return {}
    drawn, there = slices.drawn
    return {"slices": {"drawn": drawn, "there": there}}


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
