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
    from monai_cl.engine.prediction_picture import PredictionPicture, foreground_dice
    from monai_cl.engine.progress import ProgressLine, scalars
    from monai_cl.engine.pseudo_label_signals import DriftError, PseudoLabelSignals
    from monai_cl.engine.run_handlers import EvaluationHandlers, FinetuneHandlers, PretrainHandlers, SelfTrainHandlers
    from monai_cl.engine.run_record import RunRecord, read_run_record
    from monai_cl.engine.run_settings import RunSettings
    from monai_cl.engine.save_cases import SaveCases
    from monai_cl.engine.save_metrics import SaveMetrics
    from monai_cl.engine.selftraining import PartsLoss, SelfTrainer, SelfTraining
    from monai_cl.engine.step_time import StepTime
    from monai_cl.engine.stop import GracefulStop
    from monai_cl.engine.surface_distance import SurfaceDistance
    from monai_cl.engine.trainer import NonFiniteLossError, PretrainTrainer
    from monai_cl.engine.trainers import fine_tuning, pretraining
    from monai_cl.engine.voxel_loss import VoxelLoss, without_ignored
    from monai_cl.engine.voxel_probe import label_probe

__all__ = [
    "Checkpoint",
    "CheckpointMismatchError",
    "ClipGradients",
    "CollapseError",
    "DriftError",
    "EvaluationHandlers",
    "FinetuneHandlers",
    "FiniteLoss",
    "FinitePredictions",
    "GracefulStop",
    "HealthProbe",
    "History",
    "MixupBatch",
    "NonFiniteLossError",
    "PartsLoss",
    "PredictionPicture",
    "PretrainHandlers",
    "PretrainTrainer",
    "ProgressLine",
    "PseudoLabelSignals",
    "RunRecord",
    "RunSettings",
    "SaveCases",
    "SaveMetrics",
    "SaveNetwork",
    "SelfTrainHandlers",
    "SelfTrainer",
    "SelfTraining",
    "StepTime",
    "SurfaceDistance",
    "VoxelLoss",
    "adamw",
    "fine_tuning",
    "foreground_dice",
    "label_probe",
    "pretraining",
    "read_history",
    "read_run_record",
    "scalars",
    "warmup_cosine",
    "without_ignored",
]

__getattr__, __dir__ = face(__name__)
