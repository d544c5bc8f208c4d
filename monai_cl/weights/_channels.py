"""First convolutions of a checkpoint made fit for other input channels."""

from collections.abc import Mapping

from torch import Tensor, nn


def inflatable(network: nn.Module, own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, int]:
    """Names of the convolutions that differ from a checkpoint in the image's channels alone, and their sizes.

    The first convolution gives the number of channels, of the network and of the checkpoint.
    """
    convolutions = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    first = next((f"{name}.weight" for name, m in network.named_modules() if isinstance(m, convolutions)), "")
    if first not in state or state[first].ndim != own[first].ndim:
        return {}
    new, old = own[first].shape[1], state[first].shape[1]
    if new == old:
        return {}
    return {
        name: tensor.numel()
        for name, tensor in own.items()
        if _takes(tensor, new) and name in state and _takes(state[name], old) and _rest(tensor) == _rest(state[name])
    }


def inflate(weight: Tensor, channels: int) -> Tensor:
    r"""Weights (O, C', \*k) for another number of input channels ``C``: their mean times C'/C in each.

    Example:
        >>> import torch
        >>> inflate(torch.ones(1, 1, 3), 2).tolist()
        [[[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]]]
    """
    mean = weight.mean(dim=1, keepdim=True) * (weight.shape[1] / channels)
    return mean.expand(-1, channels, *weight.shape[2:]).clone()


def _takes(weight: Tensor, channels: int) -> bool:
    return weight.ndim > 2 and weight.shape[1] == channels


def _rest(weight: Tensor) -> tuple[int, ...]:
    return (weight.shape[0], *weight.shape[2:])
