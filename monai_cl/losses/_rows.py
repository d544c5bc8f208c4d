"""Rows of unit length, in full precision, with which losses of embeddings begin."""

import torch
import torch.nn.functional as F
from torch import Tensor


def unit_rows(x: Tensor) -> Tensor:
    """Rows of length one, at least in float32; a row shorter than 1e-8 is divided by 1e-8."""
    x = x if x.dtype == torch.float64 else x.float()
    return F.normalize(x, dim=-1, eps=1e-8)


def require_rows(**tensors: Tensor) -> None:
    """Raise ``ValueError`` unless each tensor is a matrix of floating-point rows."""
    for name, tensor in tensors.items():
        if tensor.ndim != 2 or not tensor.is_floating_point():
            raise ValueError(f"{name} must be floating-point rows (N, D), got {tensor.dtype} {tuple(tensor.shape)}")


def fixed_precision(tensor: Tensor) -> torch.autocast:
    """A context without autocast on the device of ``tensor``."""
    return torch.autocast(device_type=tensor.device.type, enabled=False)
