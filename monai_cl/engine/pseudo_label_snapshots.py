"""Pseudo-labels of one volume in the course of a self-training, as they grow up."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Events
from monai.inferers import Inferer
from monai.networks import eval_mode
from torch import Tensor

from monai_cl._files import atomic_write
from monai_cl.engine.distributed import rank
from monai_cl.engine.selftraining import SelfTrainer


class PseudoLabelSnapshots:
    """Keep what the teacher says of one unlabelled volume, at several times of a self-training.

    The teacher labels the whole volume as it will label new scans, and the slice in the middle of it is kept. Nothing
    of this comes back to training: the numbers of a run are the same with and without. The file holds ``image`` (X, Y),
    ``step`` (T,) and ``labels`` (T, X, Y); a run that goes on adds to it.

    Args:
        path: The ``.npz`` file, written by the first process.
        volume: The prepared volume, ``image`` (C, X, Y, Z).
        inferer: Runs a network on a whole volume.
        times: Number of looks, at equal distances; the last is at the end.

    Raises:
        ValueError: If ``times`` is below 1.
    """

    def __init__(self, path: str | Path, volume: Mapping[str, Any], inferer: Inferer, *, times: int = 4) -> None:
        if times < 1:
            raise ValueError(f"times must be at least 1, got {times!r}")
        self.path = Path(path)
        self.image = torch.as_tensor(volume["image"]).as_subclass(Tensor)
        self.inferer = inferer
        self.times = times
        self._steps: list[int] = []
        self._labels: list[np.ndarray] = []

    def attach(self, engine: SelfTrainer) -> None:
        """Register with a trainer; only the first process looks."""
        if rank() == 0:
            engine.add_event_handler(Events.STARTED, self._start)
            engine.add_event_handler(Events.ITERATION_COMPLETED, self._look)

    def _start(self, engine: SelfTrainer) -> None:
        """Take up the looks before the step at which the run goes on."""
        self._steps, self._labels = [], []
        if engine.state.iteration and self.path.is_file():
            with np.load(self.path, allow_pickle=False) as file:
                known = list(zip(file["step"].tolist(), file["labels"], strict=True))
            for step, labels in known:
                if step <= engine.state.iteration:
                    self._steps.append(step)
                    self._labels.append(labels)

    def _look(self, engine: SelfTrainer) -> None:
        step, total = engine.state.iteration, engine.total_steps
        if step * self.times // total == (step - 1) * self.times // total:
            return  # no further of the equal shares of the run is done
        teacher = engine.method.teacher.module
        with torch.no_grad(), eval_mode(teacher):
            maps = self.inferer(self.image[None].to(engine.state.device), teacher)
        cut = self.image.shape[-1] // 2
        self._steps.append(step)
        self._labels.append(maps[0, ..., cut].argmax(0).cpu().numpy().astype(np.uint8))
        with atomic_write(self.path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(
                file, image=self.image[0, ..., cut].numpy(), step=np.array(self._steps), labels=np.stack(self._labels)
            )
