"""Running a method: trainer, checkpoints, handlers."""

from monai_cl.engine.checkpoint import Checkpoint, CheckpointMismatchError
from monai_cl.engine.finetuning import FiniteLoss, SaveNetwork
from monai_cl.engine.health import CollapseError, HealthProbe
from monai_cl.engine.history import History, read_history
from monai_cl.engine.optimisation import adamw, warmup_cosine
from monai_cl.engine.progress import ProgressLine, scalars
from monai_cl.engine.stop import GracefulStop
from monai_cl.engine.trainer import NonFiniteLossError, PretrainTrainer

__all__ = [
    "Checkpoint",
    "CheckpointMismatchError",
    "CollapseError",
    "FiniteLoss",
    "GracefulStop",
    "HealthProbe",
    "History",
    "NonFiniteLossError",
    "PretrainTrainer",
    "ProgressLine",
    "SaveNetwork",
    "adamw",
    "read_history",
    "scalars",
    "warmup_cosine",
]
