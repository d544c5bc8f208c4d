"""Optimiser and schedule with the defaults that contrastive pretraining and fine-tuning share."""

from monai.optimizers import WarmupCosineSchedule
from torch import nn
from torch.optim import AdamW, Optimizer


def adamw(module: nn.Module, lr: float, *, weight_decay: float = 0.01) -> AdamW:
    """AdamW over the parameters that require gradients; norms and biases (one axis or none) are not decayed.

    Raises:
        ValueError: If nothing in ``module`` requires a gradient.
    """
    trained = [p for p in module.parameters() if p.requires_grad]
    if not trained:
        raise ValueError("no parameter of the module requires a gradient; there is nothing to optimise")
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return AdamW([group for group in groups if group["params"]], lr=lr)


def warmup_cosine(optimizer: Optimizer, steps: int, *, warmup: float = 0.05) -> WarmupCosineSchedule:
    """Learning rate rising linearly over the first ``warmup`` share of ``steps``, then falling to zero as a cosine.

    Step it once after each optimiser step.

    Raises:
        ValueError: If ``steps`` is below 1 or ``warmup`` outside [0, 1).
    """
    if steps < 1 or not 0 <= warmup < 1:
        raise ValueError(f"steps must be at least 1 and warmup in [0, 1), got {steps} and {warmup}")
    return WarmupCosineSchedule(optimizer, warmup_steps=max(1, round(warmup * steps)), t_total=steps)
