"""Common form for outputs of segmentation networks: a map, or with deep supervision a list, the main map first."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from monai.networks.nets import BasicUNetPlusPlus
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

_REMEDY = "take a network that returns one map of its input's size, or a list of maps for deep supervision"


def segmenter(network: nn.Module, *, channels_last: bool = False) -> nn.Module:
    r"""Let a network of MONAI return one map (B, C, \*S), or in training a list of maps, the main one first.

    With deep supervision DynUNet stacks its maps along a further axis, SegResNetDS and MedNeXt return lists,
    BasicUNetPlusPlus a list whose last map is the main one, even of one map and when it is not trained. The network
    itself and the names of its tensors stay as they are.

    Args:
        network: The network; a forward hook is added to it.
        channels_last: Whether channels are the innermost axis in memory: on a CPU faster for UNet and DynUNet, slower
            for networks with group normalisation. The values of its tensors stay.

    Returns:
        The same network.

    Example:
        >>> from monai.networks.nets import BasicUNetPlusPlus
        >>> network = segmenter(BasicUNetPlusPlus(2, 1, 2, features=(4, 4, 4, 4, 4, 4)))
        >>> network.eval()(torch.zeros(1, 1, 32, 32)).shape
        torch.Size([1, 2, 32, 32])
    """
    if not getattr(network, "is_segmenter", False):
        network.register_forward_hook(_main_first)
        network.is_segmenter = True  # type: ignore[assignment]
    if channels_last:
        lay_channels_last(network)
    return network


def lay_channels_last(module: nn.Module) -> None:
    """Make channels the innermost axis in memory of every kernel of a convolution in two or three axes; values stay.

    Other parameters with as many axes, such as templates of sequences, keep their layout. On a CPU convolutions of UNet
    and DynUNet are faster this way, group normalisation is slower.

    Example:
        >>> layer = nn.Conv2d(2, 3, 3)
        >>> lay_channels_last(layer)
        >>> layer.weight.is_contiguous(memory_format=torch.channels_last)
        True
    """
    layouts = {4: torch.channels_last, 5: torch.channels_last_3d}  # by number of axes, of which two are channels
    for layer in module.modules():
        for tensor in layer.parameters() if isinstance(layer, _ConvNd) else ():
            if tensor.ndim in layouts:
                tensor.data = tensor.data.contiguous(memory_format=layouts[tensor.ndim])


def _main_first(network: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
    if isinstance(output, Tensor):
        deep = bool(args) and isinstance(args[0], Tensor) and output.ndim == args[0].ndim + 1
        maps = list(output.unbind(1)) if deep else [output]
    elif isinstance(output, list | tuple):
        maps = [one for one in output if one is not None]  # SegResNetVAE has no loss of its own in evaluation
        if isinstance(network, BasicUNetPlusPlus):
            maps.reverse()
    else:
        return output
    return maps if network.training and len(maps) > 1 else maps[0]


def check_segmenter(network: nn.Module, *, in_channels: int, out_channels: int, roi_size: Sequence[int]) -> None:
    """Refuse a network that does not give a map of each class at the size of its input, before a step is run.

    The network is run on tensors that have a shape and no values, in training and in evaluation, which takes no time;
    only where that fails on an image. Neither changes it or the state of random numbers.

    Args:
        network: As :func:`segmenter` gives it.
        in_channels: Channels of the image.
        out_channels: Classes with the background.
        roi_size: Size of the image.

    Raises:
        ValueError: If it cannot take such an image, or returns something else; names the network, and what it gives.
    """
    name = type(network).__name__
    for training in (True, False):
        maps = _outputs(network, (in_channels, *roi_size), training)
        for output in maps:
            if not isinstance(output, Tensor) or output.ndim != 2 + len(roi_size):
                raise ValueError(f"network_def must give maps to learn from, {name} returns {_form(output)}; {_REMEDY}")
            if output.shape[1] != out_channels:
                raise ValueError(
                    f"network_def must give {out_channels} channels, one for each class, {name} gives "
                    f"{output.shape[1]}; set its number of output channels to out_channels, {out_channels}"
                )
        if tuple(maps[0].shape[2:]) != tuple(roi_size):
            raise ValueError(
                f"network_def must give a map of the size of its input, {tuple(roi_size)}, {name} gives "
                f"{tuple(maps[0].shape[2:])}; {_REMEDY}, or another roi_size"
            )


def _outputs(network: nn.Module, shape: Sequence[int], training: bool) -> list[Any]:
    """Outputs of a network for two images: normalisation over one small map would have nothing to average."""
    trial = copy.deepcopy(network).train(training)
    with torch.no_grad():
        try:
            output = copy.deepcopy(trial).to("meta")(torch.zeros(2, *shape, device="meta"))
        except Exception:  # the network does not fit, or an operator needs values: the pass with values shows why
            output = _run(trial, torch.zeros(2, *shape))
    return list(output) if isinstance(output, list | tuple) else [output]


def _run(network: nn.Module, image: Tensor) -> Any:
    try:
        with torch.random.fork_rng(devices=[]):
            return network.cpu()(image)
    except Exception as error:  # whatever a network may throw at an image it was not made for
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"network_def must take images of in_channels {image.shape[1]} and roi_size {tuple(image.shape[2:])}, "
            f"{type(network).__name__} does not: {reason}; change the network's arguments or roi_size"
        ) from error


def _form(output: Any) -> str:
    if isinstance(output, Tensor):
        return f"a tensor of shape {tuple(output.shape)} for two images"
    return f"a {type(output).__name__} as well"
