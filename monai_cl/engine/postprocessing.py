"""Post-processing of predictions: flips of the image, and the largest component of classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain, combinations
from typing import Any

import torch
from monai.inferers import Inferer
from monai.utils import convert_to_dst_type
from torch import Tensor

from monai_cl.transforms.largest_component import keep_largest
from monai_cl.transforms.pseudo_labels import PseudoLabels


class FlipInferer(Inferer):
    r"""Average the probabilities of a network over flips of the image along some axes, and all combinations of them.

    .. math:: \log \frac{1}{2^n} \sum_f f^{-1}\left(\operatorname{softmax}(g(f(x)))\right)

    with :math:`f` the flips and :math:`g` the network: a softmax of what is returned gives the mean probabilities.

    Args:
        inferer: Runs the network on an image, flipped or not.
        axes: Spatial axes, 0 to 2; not one across which classes change places, such as a left and a right.

    Raises:
        ValueError: If an axis is not of the image, or named twice.
    """

    def __init__(self, inferer: Inferer, axes: Sequence[int]) -> None:
        super().__init__()
        if len(set(axes)) < len(axes) or any(axis not in (0, 1, 2) for axis in axes):
            raise ValueError(f"tta_flips must be different axes among 0, 1 and 2, got {list(axes)}")
        self.inferer = inferer
        self.axes = tuple(axes)

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        """Logarithms of the mean probabilities of images (B, C, ...)."""
        beyond = [axis for axis in self.axes if axis >= inputs.ndim - 2]
        if beyond:
            raise ValueError(f"tta_flips must be axes of the image, which has {inputs.ndim - 2}, got {beyond}")
        every = [chain.from_iterable(combinations(self.axes, n) for n in range(len(self.axes) + 1))]
        flips = [tuple(2 + axis for axis in axes) for axes in every[0]]
        mean: Tensor | None = None
        for axes in flips:
            logits = self.inferer(inputs.flip(axes) if axes else inputs, network, *args, **kwargs)
            share = logits.float().softmax(1) / len(flips)
            share = share.flip(axes) if axes else share
            mean = share if mean is None else mean + share
        if mean is None:
            raise RuntimeError("no flip was made; the image itself is always one")
        return mean.clamp_min(torch.finfo(mean.dtype).tiny).log()


def flipped(inferer: Inferer, axes: Sequence[int]) -> Inferer:
    """Wrap an inferer to average over flips along these axes; without axes it is returned unchanged."""
    return FlipInferer(inferer, axes) if axes else inferer


class LargestComponents:
    r"""Labels (1, \*S) in which all but the largest component of some classes is background; neighbours share a face.

    Args:
        classes: The classes; ``"all"`` for each above background.
        num_classes: Classes with the background.

    Raises:
        ValueError: If a class is not among them.
    """

    def __init__(self, classes: Sequence[int] | str, num_classes: int) -> None:
        self.classes = PseudoLabels(num_classes, largest=classes).largest

    def __call__(self, labels: Tensor) -> Tensor:
        """Labels of one image, with what they know of it."""
        kept: Tensor = convert_to_dst_type(keep_largest(labels.as_subclass(Tensor)[None], self.classes)[0], labels)[0]
        return kept
