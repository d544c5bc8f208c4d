"""Pseudo-labels of a few fixed patches at some moments of a self-training, kept for pictures of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from ignite.engine import Events
from torch import Tensor

from monai_cl._files import atomic_write
from monai_cl.engine.selftrainer import SelfTrainer
from monai_cl.transforms.pseudo_labels import Pseudo

_MOST_PIXELS = 256  # of an edge; larger slices are thinned out
_PERCENTILES = (0.01, 0.99)  # of a patch, which become black and white


class PseudoLabelMoment(NamedTuple):
    """Pseudo-labels at one moment; N slices of h x w pixels, the same ones at each.

    Attributes:
        step: Step after which the teacher made them.
        image: First channel of the slices (N, h, w), uint8.
        labels: Classes of the teacher (N, h, w), uint8.
        certain: Pixels that count (N, h, w), bool.
    """

    step: int
    image: np.ndarray
    labels: np.ndarray
    certain: np.ndarray


class PseudoLabelPictures:
    """Keep the teacher's labels of a few unlabelled patches at some moments of the run.

    The patches are the first ones of the run's own batches, fixed by its seed; of a volume the slice in the middle of
    the last axis is kept. At each moment a file ``step_000120.npz`` (NumPy, compressed, no pickled objects) is written,
    with the arrays of :class:`PseudoLabelMoment` under their names, ``step`` a whole number. No name or path of a scan
    is in it. Edges have at most 256 pixels, so that a run keeps a few megabytes at most; read them with
    :func:`read_pseudo_labels`. Use it in the first process.

    Args:
        folder: Folder of the files; those of another run in it are removed when a run begins.
        moments: Number of moments, spread evenly from the first step with pseudo-labels to the last one.
        patches: Number of patches.
    """

    def __init__(self, folder: str | Path, *, moments: int = 8, patches: int = 4) -> None:
        if moments < 1 or patches < 1:
            raise ValueError(f"moments and patches must be at least 1, got {moments!r} and {patches!r}")
        self.folder = Path(folder)
        self.moments = moments
        self.patches = patches
        self._steps: set[int] = set()
        self._images: Tensor | None = None

    def attach(self, engine: SelfTrainer) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._look)

    def _start(self, engine: SelfTrainer) -> None:
        for file in _files(self.folder):
            if _step_of(file) > engine.state.iteration:
                file.unlink()
        total = engine.total_steps
        first = next((n + 1 for n in range(total) if not engine.method.is_supervised(n / total)), total + 1)
        self._steps = {round(step) for step in np.linspace(first, total, self.moments)} if first <= total else set()
        self._images = None

    def _look(self, engine: SelfTrainer) -> None:
        if engine.state.iteration not in self._steps:
            return
        if self._images is None:
            self._images = engine.copies.first(self._fixed_patches(engine.data_loader.dataset))
        with engine.precision.autocast():
            pseudo = engine.method.label(self._images.to(engine.state.device))
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"step_{engine.state.iteration:06d}.npz"
        with atomic_write(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **_slices(engine.state.iteration, self._images, pseudo)._asdict())

    def _fixed_patches(self, batches: Any) -> Tensor:
        result: list[Tensor] = []
        while sum(map(len, result)) < self.patches:
            result.append(torch.as_tensor(batches[len(result)]["unlabelled"]).as_subclass(Tensor))
        return torch.cat(result)[: self.patches]


def read_pseudo_labels(folder: str | Path) -> list[PseudoLabelMoment]:
    """Read the pictures of :class:`PseudoLabelPictures` in a folder, by step; empty without such a folder."""
    moments = []
    for file in _files(Path(folder)):
        with np.load(file, allow_pickle=False) as kept:
            moments.append(PseudoLabelMoment(int(kept["step"]), kept["image"], kept["labels"], kept["certain"]))
    return moments


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("step_*.npz"), key=_step_of)


def _step_of(file: Path) -> int:
    return int(file.stem.removeprefix("step_"))


def _slices(step: int, images: Tensor, pseudo: Pseudo) -> PseudoLabelMoment:
    shown = images[:, :1].float().flatten(1)
    low, high = torch.quantile(_thinned(shown), torch.tensor(_PERCENTILES, device=shown.device), dim=1)
    grey = ((shown - low[:, None]) / (high - low).clamp(min=1e-6)[:, None]).clamp(0, 1).view_as(images[:, :1])
    return PseudoLabelMoment(
        step, _flat(grey * 255, torch.uint8), _flat(pseudo.labels, torch.uint8), _flat(pseudo.certain, torch.bool)
    )


def _thinned(rows: Tensor) -> Tensor:
    return rows[:, :: max(1, rows.shape[1] // 1_000_000)]  # quantiles take 16 million values at most


def _flat(maps: Tensor, kind: torch.dtype) -> np.ndarray:
    """Middle slices (N, h, w) of maps (N, 1, *S)."""
    maps = maps[:, 0]
    while maps.ndim > 3:
        maps = maps[..., maps.shape[-1] // 2]
    steps = [max(1, -(-edge // _MOST_PIXELS)) for edge in maps.shape[1:]]
    result: np.ndarray = maps[:, :: steps[0], :: steps[1]].to(kind).cpu().numpy()
    return result
