"""Weights that no network can compute with: NaN, infinities, variances below zero."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

_LISTED = 3
_PLAIN = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


class NonFiniteWeightsError(ValueError):
    """Tensors of a file or a network hold NaN, infinities or variances below zero."""


def require_finite(content: Mapping[str, Any], what: str) -> None:
    """Refuse tensors, at any depth of a mapping, that hold NaN or infinities or, as ``running_var``, negative values.

    Args:
        content: Tensors by name; of what is nested, lists and dictionaries are looked into.
        what: Their description, for the message.

    Raises:
        NonFiniteWeightsError: If any exist; names the first few and their number.
    """
    bad = [(name, fault) for name, tensor in _tensors(content) if (fault := _fault(name, tensor))]
    if bad:
        listed = ", ".join(f"{name} ({fault})" for name, fault in bad[:_LISTED])
        more = f" and {len(bad) - _LISTED} more" if len(bad) > _LISTED else ""
        raise NonFiniteWeightsError(
            f"weights must be finite, got {listed}{more} in {what}: a network with them gives NaN or empty masks. The "
            "training that made it has diverged, or the file is damaged: take an earlier file, or train again with a "
            "lower learning rate or precision fp32"
        )


def _tensors(content: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(content, Tensor):
        yield name, content
    elif isinstance(content, Mapping):
        for key, value in content.items():
            yield from _tensors(value, f"{name}.{key}" if name else str(key))
    elif isinstance(content, list | tuple):
        for index, value in enumerate(content):
            yield from _tensors(value, f"{name}.{index}")


def _fault(name: str, tensor: Tensor) -> str:
    """Fault of a tensor, in words; none for integers, truth values and empty ones."""
    if tensor.is_sparse:
        tensor = tensor.coalesce().values()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    if not tensor.is_floating_point() or not tensor.numel() or tensor.is_meta:
        return ""
    values = tensor if tensor.dtype in _PLAIN else tensor.float()  # of eight bits
    low, high = values.aminmax()  # in one pass, and a NaN anywhere is in both
    if not bool(torch.isfinite(low) & torch.isfinite(high)):
        nan, all_ = int(values.isnan().sum()), values.numel()
        return f"{nan} of {all_} values NaN" if nan else f"{int(values.isinf().sum())} of {all_} values infinite"
    if name.endswith("running_var") and bool(low < 0):
        return f"a variance of {float(low):g}"
    return ""
