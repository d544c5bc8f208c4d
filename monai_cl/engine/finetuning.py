"""Handlers for stock MONAI trainers: what fine-tuning needs and MONAI lacks."""

from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from torch import nn

from monai_cl import weights
from monai_cl.engine.distributed import unwrap
from monai_cl.engine.progress import scalars
from monai_cl.engine.trainer import NonFiniteLossError


class FiniteLoss:
    """Stop a supervised trainer whose loss is NaN or infinite, naming the volumes of the batch.

    Raises:
        NonFiniteLossError: While running.
    """

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._check)

    def _check(self, engine: Engine) -> None:
        batch = engine.state.batch
        loss = scalars(engine.state.output).get("loss", 0.0)
        if loss - loss != 0:  # true for NaN and both infinities only
            raise NonFiniteLossError(
                f"step {engine.state.iteration}: the loss must be finite, got {loss}. Volumes of this batch: "
                f"{', '.join(_cases(batch))}. Look at them, or lower the learning rate"
            )


def _cases(batch: Any) -> list[str]:
    """Names of the volumes of a batch: of a list of items, or of a dictionary of tensors as self-training has."""
    if isinstance(batch, dict):
        named = [batch[key] for key in ("case", "unlabelled_case") if key in batch]
        return list(dict.fromkeys(str(case) for cases in named for case in cases)) or ["?"]
    return [str(item.get("case", "?")) for item in batch] if isinstance(batch, list) else ["?"]


class FinitePredictions:
    """Stop an evaluator whose network gives NaN or infinite values, naming the scans, before a mask is made of them.

    The class of the largest value is 0 where all are NaN, so that such a mask is empty, and its Dice a number.

    Raises:
        NonFiniteLossError: While running.
    """

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator."""
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self._check)

    def _check(self, engine: Engine) -> None:
        outputs = engine.state.output["pred"]
        every = outputs if isinstance(outputs, list | tuple) else [outputs]
        if all(bool(torch.isfinite(output.sum()) or output.isfinite().all()) for output in every):
            return
        batch = engine.state.batch
        cases = batch.get("case", "?") if isinstance(batch, dict) else "?"
        raise NonFiniteLossError(
            f"the network's output must be finite, it has NaN or infinite values for {_listed(cases)}: no mask is "
            "written. Look at the values of that scan; or else the weights cannot compute in this precision"
        )


def _listed(cases: Any) -> str:
    return ", ".join(map(str, cases)) if isinstance(cases, list | tuple) else str(cases)


class ClipGradients:
    """Keep the gradient of a supervised trainer's network at a norm of at most ``max_norm``.

    With few labels a single crop may pull the network to where a class is never predicted again; a bound on each step
    keeps it from there. Under automatic mixed precision the gradient is unscaled first.

    Args:
        max_norm: The bound on the gradient's Euclidean norm; ``None`` leaves gradients alone.

    Raises:
        ValueError: If ``max_norm`` is not above 0.
    """

    def __init__(self, max_norm: float | None = 1.0) -> None:
        if max_norm is not None and not max_norm > 0:
            raise ValueError(f"max_norm must be above 0, or None for no bound, got {max_norm!r}")
        self.max_norm = max_norm

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        if self.max_norm is not None:
            engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self._clip, self.max_norm)

    @staticmethod
    def _clip(engine: Any, max_norm: float) -> None:
        if engine.amp and engine.scaler is not None:
            engine.scaler.unscale_(engine.optimizer)
        torch.nn.utils.clip_grad_norm_(engine.network.parameters(), max_norm)


class SaveNetwork:
    """Write the trained network when training is done: a plain state dict, with its contract beside it.

    Args:
        network: The network.
        path: The file.
        contract: Facts that users of the network need.
    """

    def __init__(self, network: nn.Module, path: str | Path, *, contract: dict[str, Any] | None = None) -> None:
        self.network = network
        self.path = path
        self.contract = contract

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.COMPLETED, self._save)

    def _save(self, engine: Engine) -> None:
        weights.save_network(unwrap(self.network), self.path, contract=self.contract)
