"""Mixed precision: what to compute in, decided once."""

import contextlib
from dataclasses import dataclass
from typing import Any

import torch

PRECISIONS = ("auto", "fp32", "bf16", "fp16")


@dataclass(frozen=True)
class Precision:
    """Chosen number format of the forward pass; weights, optimiser and losses stay in float32.

    Attributes:
        name: ``"fp32"``, ``"bf16"`` or ``"fp16"``.
        device_type: ``"cuda"``, ``"cpu"`` and so on.
    """

    name: str
    device_type: str

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Context for the forward pass; does nothing (and warns of nothing) in float32."""
        if self.name == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device_type, dtype=torch.bfloat16 if self.name == "bf16" else torch.float16)

    def scaler(self) -> torch.amp.GradScaler:
        """Scaler of the loss; does nothing unless the format is fp16, whose gradients underflow without one."""
        return torch.amp.GradScaler(self.device_type, enabled=self.name == "fp16")


def choose_precision(name: str, device: torch.device) -> Precision:
    """Resolve ``"auto"``: bf16 where a GPU has it, fp16 on older GPUs, fp32 on a CPU.

    Raises:
        ValueError: If the name is unknown, or half precision is asked for on a CPU, where the backward pass of
            three-dimensional convolutions is slow and has given NaN on small maps.
    """
    if name not in PRECISIONS:
        raise ValueError(f"precision must be one of {PRECISIONS}, got {name!r}")
    if name == "auto":
        name = "fp32" if device.type != "cuda" else "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    if device.type == "cpu" and name != "fp32":
        raise ValueError(f"precision on a CPU must be 'fp32' or 'auto', got {name!r}")
    return Precision(name, device.type)
