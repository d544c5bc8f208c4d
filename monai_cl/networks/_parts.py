"""Parts of a class of network, as taps of encoder and decoder look at it."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn


class Tap(NamedTuple):
    """Module whose output is a feature map while the whole network runs, and how the map is got from it."""

    module: nn.Module
    of: Callable[[Any], Tensor] = lambda output: output


class EncoderParts(NamedTuple):
    """Parts of the encoder of one class of network, and the end of its decoder."""

    modules: Callable[[Any], list[nn.Module]]
    features: Callable[[Any, Tensor], list[Tensor]]
    stride: Callable[[Any], Sequence[int]]  # of the whole encoder: one for all axes, or one an axis
    taps: Callable[[Any], Sequence[nn.Module | Tap]]  # whose outputs are the features, while the whole network runs
    output: Callable[[Any], nn.Module]  # what turns the features of the decoder into classes
    trunk: Callable[[Any], list[nn.Module]] | None = None  # what the deepest map needs, if not all modules
    deepest: Callable[[Any, Tensor], Tensor] | None = None
    size: Callable[[Any], Sequence[int]] | None = None  # of images, where the network takes no other


class Block(NamedTuple):
    """Block of a decoder: its layers, and its step from the map below and the encoder's map.

    The last module is the one whose output is the map, while the whole network runs.
    """

    modules: list[nn.Module]
    run: Callable[[Tensor, Any], Tensor]


class EncoderMaps(list[Tensor]):
    """Feature maps of an encoder, fine to coarse, with what its decoder needs beside them.

    Args:
        maps: The maps.
        inner: Map that enters the first block of the decoder in place of the next finer one.
    """

    def __init__(self, maps: Sequence[Tensor], inner: Tensor) -> None:
        super().__init__(maps)
        self.inner = inner


def run_all(stages: Sequence[nn.Module], x: Tensor) -> list[Tensor]:
    """Outputs of modules that run one after the other."""
    maps = []
    for stage in stages:
        x = stage(x)
        maps.append(x)
    return maps


def product_of(strides: Sequence[int | Sequence[int]]) -> list[int]:
    """Product of the strides of levels, each one for all axes or one an axis.

    Example:
        >>> product_of([2, (2, 1)])
        [4, 2]
    """
    rows = [tuple(s) if isinstance(s, Sequence) else (s,) for s in strides]
    result = [1] * max(map(len, rows))
    for row in rows:
        result = [edge * row[axis % len(row)] for axis, edge in enumerate(result)]
    return result


def names_of(kinds: Iterable[type[nn.Module]]) -> str:
    """Names of classes of networks in words, those of MONAI first."""
    listed = sorted(kinds, key=lambda kind: kind.__name__)
    stock = ", ".join(kind.__name__ for kind in listed if kind.__module__.startswith("monai."))
    others = ", ".join(kind.__name__ for kind in listed if not kind.__module__.startswith("monai."))
    return f"MONAI's {stock}, or {others}"
