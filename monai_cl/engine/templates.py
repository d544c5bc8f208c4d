"""Handler that exports the templates of a pretraining as NIfTI files."""

import logging
from collections.abc import Sequence, Sized
from pathlib import Path
from typing import Any

from ignite.engine import Events

from monai_cl.data.template_files import write_templates
from monai_cl.engine.distributed import rank
from monai_cl.engine.trainer import PretrainTrainer
from monai_cl.networks import ModalityTemplates

logger = logging.getLogger(__name__)


class SaveTemplates:
    """Write the templates of a method at the end of a run and every few epochs, in the first process alone.

    At the start the log reports how much memory they take.

    Args:
        folder: Where the NIfTI files go, see :func:`monai_cl.data.write_templates`.
        volumes: The prepared volumes, from the first of which the size of a voxel is taken.
        every: Epochs between exports.

    Raises:
        ValueError: At the start, if the method has no templates.
    """

    def __init__(self, folder: str | Path, *, volumes: Sized | None = None, every: int = 10) -> None:
        self.folder = Path(folder)
        self.spacing = _spacing(volumes)
        self.every = every

    def attach(self, engine: PretrainTrainer) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.STARTED, self._tell)
        if rank() == 0:
            engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.every), self.save)
            engine.add_event_handler(Events.COMPLETED, self.save)

    def _tell(self, engine: PretrainTrainer) -> None:
        result = self._templates(engine)
        logger.info(
            "templates of %d sequences (%s) take %.0f MiB, about %d times that in training",
            len(result.sequences), ", ".join(result.sequences), result.mib, result.times_in_training,
        )  # fmt: skip

    def save(self, engine: PretrainTrainer) -> None:
        """Write them now."""
        write_templates(self._templates(engine).images(), self.folder, self.spacing)

    def _templates(self, engine: PretrainTrainer) -> ModalityTemplates:
        result = getattr(engine.inner_method, "templates", None)
        if not isinstance(result, ModalityTemplates):
            raise ValueError(f"the method must have templates, {type(engine.inner_method).__name__} has none")
        return result


def _spacing(volumes: Any) -> Sequence[float]:
    image = volumes[0]["image"] if volumes is not None and len(volumes) else None
    pixdim = getattr(image, "pixdim", None)
    return [1.0, 1.0, 1.0] if pixdim is None else [float(side) for side in pixdim]
