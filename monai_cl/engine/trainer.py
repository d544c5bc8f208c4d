"""Trainer of any pretraining method, on MONAI's and ignite's engines."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events
from monai.engines import Trainer
from monai.handlers import MLFlowHandler
from monai.inferers import Inferer, SimpleInferer
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from monai_cl.engine.distributed import unwrap
from monai_cl.engine.precision import choose_precision
from monai_cl.losses import NonFiniteError
from monai_cl.methods import Method


class NonFiniteLossError(RuntimeError):
    """Training met a loss or gradient that is NaN or infinite."""


class PretrainTrainer(Trainer):
    """Optimise a :class:`monai_cl.methods.Method`: forward, backward, clip, step, schedule, teacher.

    ``state.output`` holds the method's named losses as detached 0-dim tensors, with ``learning_rate``.

    Args:
        device: Where to train.
        max_epochs: Number of epochs; an epoch is ``epoch_length`` steps.
        train_data_loader: Batches, as dictionaries; ``case`` names their volumes.
        method: Method to train, possibly wrapped for several processes.
        optimizer: Its optimiser.
        epoch_length: Steps an epoch.
        inferer: Runs the method on a batch; MONAI's ``SimpleInferer`` when left out.
        scheduler: Learning-rate schedule, stepped once a step.
        precision: ``"auto"``, ``"fp32"``, ``"bf16"`` or ``"fp16"``.
        max_grad_norm: Gradients are scaled down to this norm; ``None`` leaves them.
        train_handlers: Handlers with an ``attach`` method.

    Raises:
        NonFiniteLossError: While running, if a loss or gradient is NaN or infinite; names the volumes of the batch
            and the last checkpoint.
    """

    def __init__(
        self,
        device: str | torch.device,
        max_epochs: int,
        train_data_loader: Iterable[Any],
        method: torch.nn.Module,
        optimizer: Optimizer,
        *,
        epoch_length: int,
        inferer: Inferer | None = None,
        scheduler: LRScheduler | None = None,
        precision: str = "auto",
        max_grad_norm: float | None = 1.0,
        train_handlers: Sequence[Any] | None = None,
    ) -> None:
        self.method = method
        self.optimizer = optimizer
        self.inferer = SimpleInferer() if inferer is None else inferer
        self.scheduler = scheduler
        self.precision = choose_precision(precision, torch.device(device))
        self.grad_scaler = self.precision.scaler()
        self.max_grad_norm = max_grad_norm
        self.last_checkpoint: Path | None = None
        self.resolved: dict[str, Any] | None = None  # settings that a checkpoint has read off this trainer at its start
        self.states: dict[str, Callable[[], dict[str, Any]]] = {}  # what handlers want in a checkpoint, by name
        self.resumed: dict[str, dict[str, Any]] = {}  # the same, of the checkpoint that the run goes on from
        for handler in train_handlers or ():
            if isinstance(handler, MLFlowHandler):
                handler.output_transform = _without_tuple(handler.output_transform)
        super().__init__(
            device=device,
            max_epochs=max_epochs,
            data_loader=train_data_loader,
            epoch_length=epoch_length,
            handlers=train_handlers,
            decollate=False,
        )

    @property
    def inner_method(self) -> Method:
        """The method itself, without the wrapper of several processes."""
        method = unwrap(self.method)
        if not isinstance(method, Method):
            raise TypeError(f"method must be a monai_cl.methods.Method, got {type(method).__name__}")
        return method

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return int(self.state.max_epochs * self.state.epoch_length)

    def _handle_exception(self, e: BaseException) -> None:
        # ignite swallows an exception that has handlers, unless one of them raises it: then the others never run
        self._fire_event(Events.EXCEPTION_RAISED, e)
        raise e

    def _iteration(self, engine: "PretrainTrainer", batchdata: dict[str, Any]) -> dict[str, Tensor]:
        self.method.train()
        losses = self._forward(to_device(batchdata, self.state.device), batchdata)
        self._step(losses["loss"], batchdata)
        self.inner_method.after_step(self.state.iteration / self.total_steps)
        rate = torch.tensor(self.optimizer.param_groups[0]["lr"])
        if self.scheduler is not None:
            self.scheduler.step()
        return {**{name: value.detach() for name, value in losses.items()}, "learning_rate": rate}

    def _forward(self, batch: Any, original: dict[str, Any]) -> dict[str, Tensor]:
        try:
            with self.precision.autocast():
                losses: dict[str, Tensor] = self.inferer(batch, self.method)
        except NonFiniteError as error:
            raise self._not_finite(str(error), original) from error
        if not bool(losses["loss"].isfinite()):
            bad = ", ".join(f"{name}={float(v.detach()):g}" for name, v in losses.items())
            raise self._not_finite(f"the loss must be finite, got {bad}", original)
        return losses

    def _step(self, loss: Tensor, original: dict[str, Any]) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.grad_scaler.scale(loss).backward()
        self.grad_scaler.unscale_(self.optimizer)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        limit = float("inf") if self.max_grad_norm is None else self.max_grad_norm
        norm = torch.nn.utils.clip_grad_norm_(parameters, limit)
        # an fp16 scaler meets infinite gradients as a matter of course, skips the step and lowers its scale
        if not self.grad_scaler.is_enabled() and not bool(norm.isfinite()):
            raise self._not_finite(f"the gradient's norm must be finite, got {float(norm):g}", original)
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()

    def _not_finite(self, what: str, batch: dict[str, Any]) -> NonFiniteLossError:
        cases = batch.get("case", ["(the batch carries no names)"])
        kept = self.last_checkpoint or "none was written yet"
        return NonFiniteLossError(
            f"step {self.state.iteration}: {what}. Volumes of this batch: {', '.join(map(str, cases))}. "
            f"Last good checkpoint: {kept}. Look at these volumes, lower the learning rate or use precision fp32, "
            "then run again: it goes on from that checkpoint"
        )


def _without_tuple(transform: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The transform, without a tuple around a single value, which MONAI's ``from_engine`` makes of a dictionary."""

    def alone(output: Any) -> Any:
        value = transform(output)
        return value[0] if isinstance(value, tuple) and len(value) == 1 else value

    return alone


def to_device(value: Any, device: torch.device) -> Any:
    """Tensors of a nested batch on ``device``; all else as it is."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, dict):
        return {key: to_device(item, device) for key, item in value.items()}
    return value
