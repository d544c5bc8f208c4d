"""What a pretraining method is."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn


class Method(nn.Module, ABC):
    """Network, heads and loss of one way of pretraining, in one module.

    ``network`` is the very network that will be fine-tuned; its state dict is what pretraining hands over. Heads and
    teachers live beside it, so a checkpoint of the method holds everything that learns.

    Attributes:
        network: A stock MONAI segmentation network.
    """

    network: nn.Module

    @abstractmethod
    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Named losses of a batch: ``"loss"`` is optimised, the others are logged. All 0-dim."""

    def after_step(self, progress: float) -> None:
        """Called once after each optimiser step with the share of training that is done; updates teachers."""

    def probe(self, batches: Iterable[dict[str, Any]]) -> Mapping[str, float | Tensor]:
        """Health of the representation on batches that are not trained on; nothing where a method has no embedding.

        A value is a number, or a sample of numbers (N,) that is looked at as a distribution. Runs on the weights that
        will be handed over or their teacher, in evaluation mode, without gradient. Every process must call it with
        batches of its own.
        """
        return {}

    @property
    def steady_network(self) -> nn.Module:
        """The network that stands for what has been learnt: a teacher's where there is one."""
        return self.network

    def causes_of_collapse(self) -> list[str]:
        """What in this method's settings may make all embeddings alike, likeliest first."""
        return []

    def touched(self) -> list[str]:
        """Names of the network's parameters that pretraining changes."""
        return [name for name, p in self.network.named_parameters() if p.requires_grad]
