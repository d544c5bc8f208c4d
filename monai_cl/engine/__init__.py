"""Running a method: trainer, checkpoints, handlers."""

from typing import TYPE_CHECKING

from monai_cl._lazy import face

if TYPE_CHECKING:
    from monai_cl.engine.checkpoint import Checkpoint, CheckpointMismatchError
    from monai_cl.engine.finetuning import ClipGradients, FiniteLoss, FinitePredictions, SaveNetwork
    from monai_cl.engine.health import CollapseError, HealthProbe
    from monai_cl.engine.history import History, read_history
    from monai_cl.engine.mixup import MixupBatch
    from monai_cl.engine.optimisation import adamw, warmup_cosine
    from monai_cl.engine.progress import ProgressLine, scalars
    from monai_cl.engine.stop import GracefulStop
    from monai_cl.engine.trainer import NonFiniteLossError, PretrainTrainer
    from monai_cl.engine.voxel_loss import VoxelLoss, without_ignored
    from monai_cl.engine.voxel_probe import label_probe

__all__ = [
    "Checkpoint",
    "CheckpointMismatchError",
    "ClipGradients",
    "CollapseError",
    "FiniteLoss",
    "FinitePredictions",
    "GracefulStop",
    "HealthProbe",
    "History",
    "MixupBatch",
    "NonFiniteLossError",
    "PretrainTrainer",
    "ProgressLine",
    "SaveNetwork",
    "VoxelLoss",
    "adamw",
    "label_probe",
    "read_history",
    "scalars",
    "warmup_cosine",
    "without_ignored",
]

__getattr__, __dir__ = face(__name__)
