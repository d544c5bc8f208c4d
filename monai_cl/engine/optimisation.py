"""Optimiser and schedule with the defaults that contrastive pretraining and fine-tuning share."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from monai.networks import eval_mode
from monai.optimizers import WarmupCosineSchedule
from torch import nn
from torch.optim import AdamW, Optimizer

from monai_cl.networks.encoders import input_channels

_RATES = 8  # steps from the learning rate of the last layer to that of the first: more groups make a step slower


def adamw(
    module: nn.Module,
    lr: float,
    *,
    weight_decay: float = 0.01,
    decay: float = 1.0,
    roi_size: Sequence[int] | None = None,
) -> AdamW:
    """AdamW over the parameters that require gradients; norms and biases (one axis or none) are not decayed.

    Args:
        module: The network, or a method.
        lr: Learning rate.
        weight_decay: Weight decay of the others.
        decay: Learning rate of the first layer as a share of that of the last; between them it rises geometrically in
            the order in which the layers are used, in a few steps.
        roi_size: Size of an image with which that order is found, where ``decay`` is not 1.

    Raises:
        ValueError: If nothing in ``module`` requires a gradient, ``decay`` is not in (0, 1], or ``roi_size`` is needed.
    """
    trained = [p for p in module.parameters() if p.requires_grad]
    if not trained:
        raise ValueError("at least one parameter of the module must require a gradient, none does")
    if not 0 < decay <= 1:
        raise ValueError(f"decay must be above 0 and at most 1, which leaves all layers alike, got {decay!r}")
    if decay < 1 and roi_size is None:
        raise ValueError("roi_size must be given where decay is below 1: an image of it shows the order of the layers")
    before_last = _distances(module, roi_size) if decay < 1 and roi_size is not None else {}
    groups = []
    for distance in sorted({before_last.get(p, 0) for p in trained}):
        mine = [p for p in trained if before_last.get(p, 0) == distance]
        rate = {"lr": lr * decay ** (distance / _RATES)}
        groups += [
            {"params": [p for p in mine if p.ndim > 1], "weight_decay": weight_decay, **rate},
            {"params": [p for p in mine if p.ndim <= 1], "weight_decay": 0.0, **rate},
        ]
    return AdamW([group for group in groups if group["params"]], lr=lr)


class WarmupCosine(WarmupCosineSchedule):
    """MONAI's schedule with the length that it is made with, whatever that of a checkpoint was.

    MONAI keeps the length in the state, so that a run that goes on with more or fewer steps would follow the old one:
    past its end the rate would rise again.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on at the step of the state."""
        own = ("warmup_steps", "t_total")
        super().load_state_dict({key: value for key, value in state_dict.items() if key not in own})


def warmup_cosine(optimizer: Optimizer, steps: int, *, warmup: float = 0.05) -> WarmupCosine:
    """Learning rate rising linearly over the first ``warmup`` share of ``steps``, then falling to zero as a cosine.

    The published code of volume contrast warms up over 2 % of 250 000 steps; of the far shorter runs here that would be
    too few steps, so that the default is 5 %.

    Step it once after each optimiser step. A run that goes on with another number of steps follows that number.

    Raises:
        ValueError: If ``steps`` is below 1 or ``warmup`` outside [0, 1).
    """
    if steps < 1 or not 0 <= warmup < 1:
        raise ValueError(f"steps must be at least 1 and warmup in [0, 1), got {steps} and {warmup}")
    return WarmupCosine(optimizer, warmup_steps=max(1, round(warmup * steps)), t_total=steps)


def _distances(network: nn.Module, roi_size: Sequence[int]) -> dict[nn.Parameter, int]:
    """Distance of each parameter from the last layer, 0 to :data:`_RATES`; 0 where an image does not reach it."""
    order = list(dict.fromkeys(_in_use(network, roi_size)))
    last = max(len(order) - 1, 1)
    rank = {layer: round(_RATES * (1 - place / last)) for place, layer in enumerate(order)}
    return {p: distance for layer, distance in rank.items() for p in layer.parameters(recurse=False)}


def _in_use(network: nn.Module, roi_size: Sequence[int]) -> Iterator[nn.Module]:
    """Modules with parameters of their own, as an image of zeros passes through them."""
    used: list[nn.Module] = []
    layers = [layer for layer in network.modules() if next(layer.parameters(recurse=False), None) is not None]
    hooks = [layer.register_forward_pre_hook(lambda layer, _: used.append(layer)) for layer in layers]
    some = next(network.parameters())
    try:
        with torch.no_grad(), eval_mode(network):
            network(torch.zeros(1, input_channels(network), *roi_size, device=some.device, dtype=some.dtype))
    finally:
        for hook in hooks:
            hook.remove()
    yield from used
