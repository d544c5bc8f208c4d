"""Handlers that belong together: those of every pretraining, of every fine-tuning, of every evaluation."""

from collections.abc import Callable, Mapping, Sequence, Sized
from pathlib import Path
from typing import Any, Protocol

from ignite.engine import Engine
from monai.handlers import LrScheduleHandler, TensorBoardStatsHandler, from_engine
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from monai_cl.engine.checkpoint import Checkpoint
from monai_cl.engine.distributed import rank, world_size
from monai_cl.engine.finetuning import ClipGradients, FiniteLoss, FinitePredictions, SaveNetwork
from monai_cl.engine.frozen import FrozenFirst
from monai_cl.engine.health import HealthProbe
from monai_cl.engine.history import History
from monai_cl.engine.prediction_picture import PredictionPicture
from monai_cl.engine.progress import ProgressLine, scalars
from monai_cl.engine.pseudo_label_pictures import PseudoLabelPictures
from monai_cl.engine.pseudo_label_signals import PseudoLabelSignals
from monai_cl.engine.run_record import RunRecord
from monai_cl.engine.run_settings import RunSettings
from monai_cl.engine.save_cases import SaveCases, SaveMetrics
from monai_cl.engine.stop import GracefulStop


class Handler(Protocol):
    """Interface of a handler, as ignite and MONAI call it."""

    def attach(self, engine: Any) -> None:
        """Register with an engine."""


class RunHandlers:
    """Handlers attached one after the other, some of them in the first process alone.

    Args:
        everywhere: Handlers of each process, attached first.
        first: Makes those of the first process, once it is known which one this is.
    """

    def __init__(self, everywhere: Sequence[Handler], first: Callable[[], Sequence[Handler]]) -> None:
        self.everywhere = everywhere
        self._first = first

    def attach(self, engine: Engine) -> None:
        """Register all of them with an engine."""
        for handler in [*self.everywhere, *(self._first() if rank() == 0 else ())]:
            handler.attach(engine)


class PretrainHandlers(RunHandlers):
    """Checkpoint, clean stop, probe, progress, history, record and TensorBoard of a pretraining.

    All of them but the checkpoint's share of each process, the stop and the probe are for the first process alone.

    Args:
        output_dir: Folder of the run.
        pretrained: Where the network's state dict goes.
        settings: Settings of the run.
        volumes: The prepared volumes, for the record.
        slices: Slices drawn from them, for the record.
        save_every: Epochs between checkpoints.
        resume: Go on from a checkpoint in ``output_dir``.
        batches: Batches of views of volumes that are not trained on; see :class:`monai_cl.engine.HealthProbe`.
        patches: Labelled patches for the probe.
        probe_budget: Share of the training time that looking may take.
        on_collapse: ``"stop"`` or ``"warn"``.
        shown: Losses and metrics in the progress line; all when left out.
        starts_from: Network whose receipt is recorded, where a run may begin with a file of weights.
    """

    def __init__(
        self,
        output_dir: str | Path,
        pretrained: str | Path,
        settings: RunSettings,
        *,
        volumes: Sized | None = None,
        slices: Any = None,
        save_every: int = 1,
        resume: bool = True,
        batches: Sequence[dict[str, Any]] = (),
        patches: Sequence[dict[str, Any]] = (),
        probe_budget: float = 0.02,
        on_collapse: str = "stop",
        shown: Sequence[str] | None = None,
        starts_from: nn.Module | None = None,
    ) -> None:
        folder = Path(output_dir)
        compared, contract = settings.to_compare(), settings.to_hand_over()
        checkpoint = Checkpoint(
            folder, pretrained, every=save_every, resume=resume, settings=compared, contract=contract
        )
        log_dir = folder / "tensorboard"  # of the histograms as of the numbers
        probe = HealthProbe(
            batches, folder / "health.csv", patches=patches, budget=probe_budget, on_collapse=on_collapse,
            log_dir=log_dir,
        )  # fmt: skip
        super().__init__(
            [checkpoint, GracefulStop(checkpoint), probe],
            lambda: [
                ProgressLine("pretrain", shown),
                History(folder / "history.csv"),
                _record(settings, folder, "pretrain", compared, volumes, slices=slices, network=starts_from),
                TensorBoardStatsHandler(log_dir=str(log_dir), output_transform=scalars),
            ],
        )


class FinetuneHandlers(RunHandlers):
    """Guards, schedule, progress, history, record, TensorBoard of a fine-tuning, and the network at its end.

    Args:
        output_dir: Folder of the run.
        model: Where the network's state dict goes.
        settings: Settings of the run.
        network: The network.
        scheduler: Learning-rate schedule, stepped once a step.
        volumes: The prepared volumes, for the record.
        clip: Bound on the norm of the gradient; ``None`` for none.
        frozen: Share of the steps over which pretrained parameters stay as they are.
    """

    def __init__(
        self,
        output_dir: str | Path,
        model: str | Path,
        settings: RunSettings,
        *,
        network: nn.Module,
        scheduler: LRScheduler,
        volumes: Sized | None = None,
        clip: float | None = 1.0,
        frozen: float = 0.0,
    ) -> None:
        folder = Path(output_dir)
        schedule = LrScheduleHandler(scheduler, print_lr=False, epoch_level=False)
        loss = from_engine(["loss"], first=True)
        super().__init__(
            [FiniteLoss(), FrozenFirst(network, frozen), ClipGradients(clip), schedule],
            lambda: [
                ProgressLine("fine-tune"),
                History(folder / "history.csv"),
                _record(settings, folder, "train", settings.to_tell(), volumes, network=network),
                TensorBoardStatsHandler(log_dir=str(folder / "tensorboard"), output_transform=loss),
                SaveNetwork(network, model, contract=settings.to_hand_over()),
            ],
        )


class SelfTrainHandlers(RunHandlers):
    """Checkpoint, guards, signals, pictures, progress, history, record and TensorBoard of a self-training.

    Args:
        output_dir: Folder of the run.
        model: File for the state dict of the exported network.
        settings: Settings of the run.
        network: The student.
        volumes: The labelled volumes, for the record and the shares of classes in them.
        unlabelled: The volumes that take part without their labels, for the record.
        clip: Bound on the norm of the gradient; ``None`` for none.
        frozen: Share of the steps over which pretrained parameters stay as they are.
        save_every: Epochs between checkpoints.
        resume: Go on from a checkpoint in ``output_dir``.
        on_drift: ``"warn"`` or ``"stop"``, see :class:`monai_cl.engine.PseudoLabelSignals`.
        slice_axis: Axis of the slices, where patches have two sides.
    """

    def __init__(
        self,
        output_dir: str | Path,
        model: str | Path,
        settings: RunSettings,
        *,
        network: nn.Module,
        volumes: Sequence[Mapping[str, Any]] | None = None,
        unlabelled: Sized | None = None,
        clip: float | None = 1.0,
        frozen: float = 0.0,
        save_every: int = 1,
        resume: bool = True,
        on_drift: str = "warn",
        slice_axis: int | None = None,
    ) -> None:
        folder = Path(output_dir)
        contract = settings.to_hand_over()
        checkpoint = Checkpoint(
            folder, model, every=save_every, resume=resume, settings=settings.to_compare(), contract=contract
        )
        signals = PseudoLabelSignals(
            folder / "pseudo_labels.csv", on_drift=on_drift, volumes=volumes, slice_axis=slice_axis
        )
        super().__init__(
            [checkpoint, FiniteLoss(), FrozenFirst(network, frozen), ClipGradients(clip), signals],
            lambda: [
                PseudoLabelPictures(folder / "pseudo_labels"),
                ProgressLine("self-train", ["loss", "pseudo_certain", "pseudo_confidence", "pseudo_agreement"]),
                History(folder / "history.csv"),
                _record(settings, folder, "train", settings.to_tell(), volumes, network=network, unlabelled=unlabelled),
                TensorBoardStatsHandler(log_dir=str(folder / "tensorboard"), output_transform=scalars),
            ],
        )


class EvaluationHandlers(RunHandlers):
    """Guard, progress, tables a case, record, kept cases and a picture of an evaluation.

    Args:
        output_dir: Folder of the evaluation.
        settings: Settings of the run.
        metrics: Names of the metrics that are written.
        model: File of the weights that are evaluated.
        num_classes: Classes with the background.
        names: Names of the classes above background.
        volumes: The prepared volumes, for the record.
    """

    def __init__(
        self,
        output_dir: str | Path,
        settings: RunSettings,
        *,
        metrics: Sequence[str],
        model: str | Path,
        num_classes: int,
        names: dict[int, str] | None = None,
        volumes: Sized | None = None,
    ) -> None:
        folder = Path(output_dir)
        tables = SaveMetrics(
            str(folder), metrics=list(metrics), metric_details=list(metrics),
            summary_ops=["mean", "median", "min", "max"], batch_transform=_named_by_case,
        )  # fmt: skip
        super().__init__(
            [FinitePredictions(), tables],  # tables gather the cases of all processes
            lambda: [
                ProgressLine("evaluate"),
                _record(settings, folder, "evaluate", settings.to_tell(), volumes, model=model),
                SaveCases(folder / "cases", num_classes, names=names),
                PredictionPicture(folder / "predictions.png", num_classes, names=names),
            ],
        )


def _record(
    settings: RunSettings, folder: Path, step: str, known: Mapping[str, Any], volumes: Sized | None, **more: Any
) -> RunRecord:
    return RunRecord(
        folder, step, settings=known, seed=settings.seed, datalist=settings.datalist, dataset_dir=settings.dataset_dir,
        sections=settings.sections, recipe=settings.recipe, recipe_options=settings.recipe_options, volumes=volumes,
        processes=world_size(), **more,
    )  # fmt: skip


def _named_by_case(items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{"filename_or_obj": item["case"]} for item in items]
