"""Losses work on plain tensors, whatever subclass they are given."""

from typing import Any

import torch
from torch import Tensor, nn


class PlainLoss(nn.Module):
    """A loss whose tensors are taken as plain ones, and which returns plain ones.

    A network that is shown a ``MetaTensor`` of MONAI gives one. Its metadata mean nothing to a loss, and every small
    operation on it takes many times as long.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_forward_pre_hook(_with_plain, with_kwargs=True)


def _with_plain(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    return tuple(map(_plain, args)), {name: _plain(value) for name, value in kwargs.items()}


def _plain(value: Any) -> Any:
    subclass = isinstance(value, Tensor) and type(value) is not Tensor
    return value.as_subclass(torch.Tensor) if subclass else value
