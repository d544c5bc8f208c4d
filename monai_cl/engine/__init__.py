"""Running a method: trainer, checkpoints, handlers."""

from typing import TYPE_CHECKING

from monai_cl._lazy import face

if TYPE_CHECKING:
    from monai_cl.engine.checkpoint import Checkpoint as Checkpoint, CheckpointMismatchError as CheckpointMismatchError
    from monai_cl.engine.federated import FederatedSite as FederatedSite, SharedModel as SharedModel
    from monai_cl.engine.finetuning import (
        ClipGradients as ClipGradients,
        FiniteLoss as FiniteLoss,
        FinitePredictions as FinitePredictions,
        SaveNetwork as SaveNetwork,
    )
    from monai_cl.engine.frozen import FrozenFirst as FrozenFirst
    from monai_cl.engine.health import CollapseError as CollapseError, HealthProbe as HealthProbe
    from monai_cl.engine.history import History as History, read_history as read_history
    from monai_cl.engine.mixup import MixupBatch as MixupBatch
    from monai_cl.engine.optimisation import adamw as adamw, warmup_cosine as warmup_cosine
    from monai_cl.engine.parts_loss import PartsLoss as PartsLoss
    from monai_cl.engine.postprocessing import (
        FlipInferer as FlipInferer,
        LargestComponents as LargestComponents,
        flipped as flipped,
    )
    from monai_cl.engine.prediction_picture import (
        PredictionPicture as PredictionPicture,
        foreground_dice as foreground_dice,
    )
    from monai_cl.engine.progress import ProgressLine as ProgressLine, scalars as scalars
    from monai_cl.engine.pseudo_label_pictures import (
        PseudoLabelMoment as PseudoLabelMoment,
        PseudoLabelPictures as PseudoLabelPictures,
        read_pseudo_labels as read_pseudo_labels,
    )
    from monai_cl.engine.pseudo_label_signals import DriftError as DriftError, PseudoLabelSignals as PseudoLabelSignals
    from monai_cl.engine.run_handlers import (
        EvaluationHandlers as EvaluationHandlers,
        FinetuneHandlers as FinetuneHandlers,
        PretrainHandlers as PretrainHandlers,
        SelfTrainHandlers as SelfTrainHandlers,
    )
    from monai_cl.engine.run_record import RunRecord as RunRecord, read_run_record as read_run_record
    from monai_cl.engine.run_settings import RunSettings as RunSettings
    from monai_cl.engine.save_cases import SaveCases as SaveCases, SaveMetrics as SaveMetrics
    from monai_cl.engine.selftrainer import SelfTrainer as SelfTrainer
    from monai_cl.engine.selftraining import SelfTraining as SelfTraining
    from monai_cl.engine.selftraining_contrast import ClassContrast as ClassContrast, class_contrast as class_contrast
    from monai_cl.engine.step_time import StepTime as StepTime
    from monai_cl.engine.stop import GracefulStop as GracefulStop
    from monai_cl.engine.surface_distance import SurfaceDistance as SurfaceDistance
    from monai_cl.engine.templates import SaveTemplates as SaveTemplates
    from monai_cl.engine.tied_copies import TiedCopies as TiedCopies
    from monai_cl.engine.trainer import NonFiniteLossError as NonFiniteLossError, PretrainTrainer as PretrainTrainer
    from monai_cl.engine.trainers import fine_tuning as fine_tuning, pretraining as pretraining
    from monai_cl.engine.voxel_loss import VoxelLoss as VoxelLoss, without_ignored as without_ignored
    from monai_cl.engine.voxel_probe import label_probe as label_probe

__getattr__, __dir__, __all__ = face(__name__)
