"""A first phase of fine-tuning in which what came from a file of weights stays as it is."""

import contextlib
import logging
from typing import Any

from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from torch import nn

from monai_cl.engine.distributed import unwrap
from monai_cl.networks import output_module
from monai_cl.weights import receipt_of

logger = logging.getLogger(__name__)


class FrozenFirst:
    """Keep pretrained parameters as they are over the first share of a supervised training.

    They are the tensors that :func:`monai_cl.weights.start_from` filled and pretraining had moved, where the file
    lists them; the output layer always learns. Their gradients are dropped before the optimiser sees them, so it
    gathers no momentum for them; statistics of batch norms go on. All is a function of the step alone, so that an
    interrupted run goes on alike.

    Args:
        network: The network.
        share: Share of the steps; 0 freezes nothing, and from scratch nothing is frozen.

    Raises:
        ValueError: If ``share`` is not in [0, 1); at the start, if nothing would be left to train.
    """

    def __init__(self, network: nn.Module, share: float = 0.0) -> None:
        if not 0 <= share < 1:
            raise ValueError(f"the frozen share must be at least 0 and below 1, got {share!r}")
        self.network = network
        self.share = share
        self._frozen: list[nn.Parameter] = []

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        if self.share > 0:
            engine.add_event_handler(Events.STARTED, self._start)
            engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self._drop)

    def _start(self, engine: Engine) -> None:
        names = frozen_names(self.network)
        parameters = dict(unwrap(self.network).named_parameters())
        if names and len(names) == len(parameters):
            raise ValueError(
                f"finetune_frozen must leave something to train, all {len(parameters)} parameters came from the file; "
                "set it to 0"
            )
        self._frozen = [parameters[name] for name in names]
        logger.info("%d of %d parameters are frozen over %g of the steps", len(names), len(parameters), self.share)

    def _drop(self, engine: Any) -> None:
        if engine.state.iteration <= self.share * engine.state.max_epochs * engine.state.epoch_length:
            for parameter in self._frozen:
                parameter.grad = None


def frozen_names(network: nn.Module) -> list[str]:
    """Names of the parameters that came from a file of weights, the output layer's aside."""
    network = unwrap(network)
    receipt = receipt_of(network)
    if receipt is None:
        return []
    output: set[nn.Parameter] = set()
    with contextlib.suppress(ValueError):  # of a network whose parts are not known nothing is left aside
        output = set(output_module(network).parameters())
    came = set(receipt.matched) & set(receipt.touched or receipt.matched)
    return [name for name, parameter in network.named_parameters() if name in came and parameter not in output]
