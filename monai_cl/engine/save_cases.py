"""Results of an evaluation on disk: volumes small enough to keep, for a report to show slice by slice, and tables."""

import math
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.handlers import MetricsSaver
from numpy.typing import NDArray
from torch import Tensor

from monai_cl._files import atomic_write, read_json, write_json
from monai_cl.engine.prediction_picture import foreground_dice

INDEX = "cases.json"
_KEEP = ("extremes", "all")


@dataclass(frozen=True)
class SavedCase:
    """An entry of ``cases.json``.

    Attributes:
        file: Name of the ``.npz`` with ``image``, ``truth`` and ``prediction``, all uint8 of one shape.
        case: Name of the case.
        dice: Mean Dice over its classes; ``None`` where it is not defined.
        spacing: Voxel size in mm, as far as it is known.
        roles: ``"best"``, ``"median"``, ``"worst"``, or none of them.
    """

    file: str
    case: str
    dice: float | None
    spacing: tuple[float, ...]
    roles: tuple[str, ...] = ()


class SaveCases:
    """Keep image, truth and prediction of the best, median and worst case of an evaluation, or of every case.

    Each goes to a compressed ``.npz`` of bytes: the image between its percentiles 0.5 and 99.5, the classes as they
    are. ``cases.json`` lists them. Files are numbered; names of cases stand in ``cases.json`` alone.

    Args:
        folder: Folder of the files; those of an earlier evaluation in it are replaced.
        num_classes: Number of classes with the background, at most 256.
        names: Names of the classes above background.
        keep: ``"extremes"`` or ``"all"``.

    Raises:
        ValueError: If ``keep`` or ``num_classes`` is none of these.
    """

    def __init__(
        self, folder: str | Path, num_classes: int, *, names: dict[int, str] | None = None, keep: str = "extremes"
    ) -> None:
        if keep not in _KEEP:
            raise ValueError(f"keep must be one of {', '.join(_KEEP)}, got {keep!r}")
        if not 2 <= num_classes <= 256:
            raise ValueError(f"num_classes must be between 2 and 256, for classes are kept as bytes, got {num_classes}")
        self.folder = Path(folder)
        self.names = names or {label: f"class {label}" for label in range(1, num_classes)}
        self.keep = keep
        self._cases: list[SavedCase] = []

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator whose post-processing leaves one-hot ``pred`` and ``label``."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.COMPLETED, self._finish)

    def _start(self, engine: Engine) -> None:
        self._cases.clear()
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / INDEX).unlink(missing_ok=True)
        for earlier in self.folder.glob("case_*.npz"):
            earlier.unlink()

    def _collect(self, engine: Engine) -> None:
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            prediction, truth = _classes(output["pred"]), _classes(output["label"])
            file = f"case_{len(self._cases) + 1:04d}.npz"
            with atomic_write(self.folder / file) as temporary:
                np.savez_compressed(temporary, image=_bytes(item["image"]), truth=truth, prediction=prediction)
            dice = foreground_dice(prediction, truth)
            known = None if math.isnan(dice) else dice
            self._cases.append(SavedCase(file, str(item.get("case", file)), known, _spacing(item["image"])))

    def _finish(self, engine: Engine) -> None:
        kept = _with_roles(self._cases)
        if self.keep == "extremes":
            for case in kept:
                if not case.roles:
                    (self.folder / case.file).unlink()
            kept = [case for case in kept if case.roles]
        undefined = sum(case.dice is None for case in self._cases)
        content: dict[str, Any] = {
            "classes": {str(k): v for k, v in self.names.items()},
            "cases": [asdict(case) for case in kept],
        }
        content |= {"evaluated": len(self._cases), "undefined": undefined}
        write_json(self.folder / INDEX, content)


def read_cases(folder: str | Path) -> dict[str, Any]:
    """Read ``cases.json``, with its ``cases`` as :class:`SavedCase`; empty without such a file."""
    path = Path(folder) / INDEX
    if not path.is_file():
        return {}
    content = read_json(path)
    listed = [{**case, "spacing": tuple(case["spacing"]), "roles": tuple(case["roles"])} for case in content["cases"]]
    return {**content, "cases": [SavedCase(**case) for case in listed]}


def _with_roles(cases: list[SavedCase]) -> list[SavedCase]:
    ranked = sorted((case for case in cases if case.dice is not None), key=lambda case: case.dice or 0.0)
    if not ranked:
        return list(cases)
    chosen = {"best": ranked[-1].file, "median": ranked[len(ranked) // 2].file, "worst": ranked[0].file}
    return [
        SavedCase(**{**asdict(case), "roles": tuple(role for role, file in chosen.items() if file == case.file)})
        for case in cases
    ]


def _classes(one_hot: Tensor) -> NDArray[np.uint8]:
    return np.asarray(torch.as_tensor(one_hot).argmax(0).cpu()).astype(np.uint8)


def _bytes(image: Tensor) -> NDArray[np.uint8]:
    values = np.asarray(torch.as_tensor(image).cpu(), dtype=np.float32)[0]
    low, high = np.percentile(values, [0.5, 99.5])
    scaled = (values - low) / max(float(high - low), 1e-12)
    return np.asarray(np.rint(255 * np.clip(scaled, 0, 1)), dtype=np.uint8)


def _spacing(image: Any) -> tuple[float, ...]:
    affine = getattr(image, "affine", None)
    axes = int(image.ndim) - 1
    if affine is None:
        return (1.0,) * axes
    lengths = np.linalg.norm(np.asarray(affine, dtype=float)[:axes, :axes], axis=0)
    return tuple(round(float(length), 5) or 1.0 for length in lengths.tolist())


class SaveMetrics(MetricsSaver):
    """MONAI's ``MetricsSaver``, whose files are the old ones or the new ones, never a part.

    Example:
        >>> SaveMetrics("out", metrics="val_mean_dice").save_dir
        'out'
    """

    save_dir: str | os.PathLike[str]

    def __call__(self, engine: Engine) -> None:
        """Write the tables of an epoch."""
        folder = Path(self.save_dir)
        with tempfile.TemporaryDirectory() as scratch:
            self.save_dir = scratch
            try:
                super().__call__(engine)
            finally:
                self.save_dir = folder
            for table in sorted(Path(scratch).iterdir()):
                folder.mkdir(parents=True, exist_ok=True)
                with atomic_write(folder / table.name) as temporary:
                    temporary.write_bytes(table.read_bytes())
