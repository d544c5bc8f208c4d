"""Trainer of self-training: mixes each batch, and moves the teacher after each step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.inferers import Inferer
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from monai_cl.engine import distributed
from monai_cl.engine.parts_loss import PartsLoss
from monai_cl.engine.precision import PrecisionInferer, supervised_precision
from monai_cl.engine.selftraining import SelfTraining
from monai_cl.engine.selftraining_contrast import Embedded
from monai_cl.engine.tied_copies import TiedCopies


class SelfTrainer(SupervisedTrainer):
    """MONAI's trainer, whose batches are mixed with unlabelled images and whose teacher follows each step.

    ``state.output`` has MONAI's keys: the mixed images, their targets, predictions and the loss; and
    ``class_contrast``, before it is weighted, where the method has one. Under several processes the network is wrapped.
    :class:`monai_cl.engine.Checkpoint` saves and resumes it, bit for bit with a loader of
    :func:`monai_cl.data.mixed_loader`.

    Args:
        method: Student, teacher and their options.
        train_data_loader: Batches with ``image``, ``label`` and ``unlabelled``.
        max_epochs: Number of epochs, of
        epoch_length: steps.
        loss: Loss of MONAI of logits and labels, voxel by voxel, as ``DiceCELoss``.
        optimizer: Optimiser of the parameters of ``method.learner``.
        device: Where to train.
        scheduler: Learning-rate schedule, stepped once a step.
        inferer: Runs the student on a batch; with :class:`monai_cl.engine.TiedCopies` each image has as many copies,
            whose features are tied, and the teacher sees the first of an unlabelled one.
        precision: As that of :func:`monai_cl.engine.fine_tuning`.
        mixup: That of :class:`monai_cl.engine.MixupBatch`, which must be 0: ``method.ratio`` is in its place.
        train_handlers: Handlers with an ``attach`` method.

    Raises:
        ValueError: If the optimiser lacks the head of the contrast, or ``mixup`` is not 0.
    """

    def __init__(
        self,
        method: SelfTraining,
        train_data_loader: Iterable[Any],
        *,
        max_epochs: int,
        epoch_length: int,
        loss: nn.Module,
        optimizer: Optimizer,
        device: str | torch.device = "cpu",
        scheduler: LRScheduler | None = None,
        inferer: Inferer | None = None,
        precision: str = "auto",
        mixup: float = 0.0,
        train_handlers: Sequence[Any] = (),
    ) -> None:
        if mixup:
            raise ValueError(
                f"mixup must be 0 in self-training, got {mixup!r}; leave it out, or paste patches by box_ratio"
            )
        _require_head(optimizer, method)
        device = torch.device(device)
        self.precision = supervised_precision(precision, device)
        self.method = method.to(device)
        self.copies = inferer if isinstance(inferer, TiedCopies) else TiedCopies(1)
        self.scheduler = scheduler
        self.last_checkpoint: Path | None = None
        self.resolved: dict[str, Any] | None = None
        self.states: dict[str, Callable[[], dict[str, Any]]] = {}
        self.resumed: dict[str, dict[str, Any]] = {}
        self._no_scaler = torch.amp.GradScaler(device.type, enabled=False)
        super().__init__(
            device=device,
            max_epochs=max_epochs,
            train_data_loader=train_data_loader,
            network=distributed.parallel(method.learner, device),
            optimizer=optimizer,
            loss_function=PartsLoss(loss, method.contrast, self.copies),
            epoch_length=epoch_length,
            inferer=PrecisionInferer(inferer, self.precision),
            prepare_batch=self._mix,
            amp=self.precision.name == "fp16",
            decollate=False,
            train_handlers=train_handlers,
        )
        self.add_event_handler(IterationEvents.MODEL_COMPLETED, self._after_step)

    @property
    def inner_method(self) -> SelfTraining:
        """Student and teacher, without the wrapper of several processes."""
        return self.method

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return int(self.state.max_epochs * self.state.epoch_length)

    @property
    def grad_scaler(self) -> torch.amp.GradScaler:
        """Scaler of the loss, which does nothing outside of mixed precision."""
        return self._no_scaler if self.scaler is None else self.scaler

    def _iteration(self, engine: SupervisedTrainer, batchdata: dict[str, Any]) -> dict[str, Any]:
        output: dict[str, Any] = super()._iteration(engine, batchdata)
        result = output["pred"]
        maps = result.maps if isinstance(result, Embedded) else result
        # for handlers, which need no graph
        output["pred"] = maps.detach() if isinstance(maps, Tensor) else [one.detach() for one in maps]
        output["loss"] = output["loss"].detach()
        if self.loss_function.contrasted is not None:
            output["class_contrast"] = self.loss_function.contrasted
        return output

    def _mix(
        self, batch: dict[str, Any], device: torch.device, non_blocking: bool = False, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        tensors = {
            key: torch.as_tensor(batch[key]).as_subclass(Tensor).to(device, non_blocking=non_blocking, **kwargs)
            for key in ("image", "label", "unlabelled", "unlabelled_changed")
            if key in batch
        }
        progress = (self.state.iteration - 1) / self.total_steps
        self.loss_function.weight = self.method.weight(progress)
        apart: dict[str, Tensor] = {key: self.copies.apart(tensors[key]) for key in tensors if key != "label"}
        apart["label"] = self.copies.repeated(tensors["label"])
        with self.precision.autocast():
            return self.method.mix(apart, self.state.iteration, progress, self.copies.copies)

    def _after_step(self) -> None:
        self.method.follow(self.state.iteration)
        if self.scheduler is not None:
            self.scheduler.step()


def _require_head(optimizer: Optimizer, method: SelfTraining) -> None:
    learning = {id(one) for group in optimizer.param_groups for one in group["params"]}
    if method.contrast is not None and not all(id(one) in learning for one in method.contrast.parameters()):
        raise ValueError(
            "optimizer must move the head of class_contrast, which it does not hold; make it of method.learner in "
            "place of the network, or set class_contrast to 0"
        )
