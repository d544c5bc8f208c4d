"""Handlers for stock MONAI trainers: what fine-tuning needs and MONAI lacks."""

from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
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
            cases = [str(item.get("case", "?")) for item in batch] if isinstance(batch, list) else ["?"]
            raise NonFiniteLossError(
                f"step {engine.state.iteration}: the loss must be finite, got {loss}. Volumes of this batch: "
                f"{', '.join(cases)}. Look at them, or lower the learning rate"
            )


class SaveNetwork:
    """Write the trained network when training is done: a plain state dict, with its contract beside it.

    Args:
        network: The network.
        path: The file.
        contract: What users of the network must know.
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
