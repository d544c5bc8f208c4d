"""Labels made of a network's own predictions, with what is too uncertain or scattered taken out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor


class Pseudo(NamedTuple):
    r"""Labels made of logits, each (B, 1, \*S).

    Attributes:
        labels: Class of each voxel.
        certain: Voxels that count.
        confidence: Probability of the likeliest class.
    """

    labels: Tensor
    certain: Tensor
    confidence: Tensor


class PseudoLabels:
    r"""Labels of logits: the likeliest class, of each class the largest connected component, and what is certain.

    Args:
        num_classes: Classes with the background.
        foreground: With two classes, probability from which a voxel is foreground. None: the likeliest class.
        confidence: Probability of the likeliest class below which a voxel does not count; 0 counts all.
        largest: Classes of which the largest component alone is kept, the others becoming background; ``"all"`` for
            each foreground class, an empty list for none.
        connectivity: Axes along which neighbours may differ at once: 1 joins faces alone; None joins corners too.

    Raises:
        ValueError: If an option is out of range.

    References:
        Bidirectional copy-paste, arXiv 2305.00673.

    Example:
        >>> logits = torch.tensor([[9.0, 0, 9, 0, 0], [0, 9, 0, 9, 9]]).reshape(1, 2, 1, 5)
        >>> PseudoLabels(2)(logits).labels.tolist()
        [[[[0, 0, 0, 1, 1]]]]
    """

    def __init__(
        self,
        num_classes: int,
        *,
        foreground: float | None = None,
        confidence: float = 0.0,
        largest: Sequence[int] | str = "all",
        connectivity: int | None = 1,
    ) -> None:
        if num_classes < 2:
            raise ValueError(f"num_classes must be at least 2, background included, got {num_classes!r}")
        if foreground is not None and (num_classes != 2 or not 0 < foreground < 1):
            raise ValueError(
                f"foreground must be between 0 and 1, with two classes, or None, got {foreground!r} with {num_classes}"
            )
        if not 0 <= confidence < 1:
            raise ValueError(f"confidence must be at least 0 and below 1, got {confidence!r}")
        if connectivity is not None and connectivity < 1:
            raise ValueError(f"connectivity must be at least 1, or None for corners too, got {connectivity!r}")
        self.num_classes = num_classes
        self.foreground = foreground
        self.confidence = confidence
        self.largest = _classes(largest, num_classes)
        self.connectivity = connectivity

    @torch.no_grad()
    def __call__(self, logits: Tensor) -> Pseudo:
        r"""Labels of logits (B, K, \*S), the voxels that count, and how certain they are.

        Raises:
            ValueError: If there are not as many channels as classes.
        """
        if logits.shape[1] != self.num_classes:
            raise ValueError(f"logits must have {self.num_classes} channels, one a class, got {tuple(logits.shape)}")
        probability = torch.as_tensor(logits).as_subclass(Tensor).float().softmax(1)
        best, labels = probability.max(1, keepdim=True)
        if self.foreground is not None:
            labels = (probability[:, 1:] >= self.foreground).long()
        return Pseudo(keep_largest(labels, self.largest, self.connectivity), best >= self.confidence, best)


def keep_largest(labels: Tensor, classes: Sequence[int], connectivity: int | None = 1) -> Tensor:
    r"""Labels (B, 1, \*S) in which all but the largest connected component of some classes is background.

    Of components of one size the first is kept, a class that is not there changes nothing. It is computed on the CPU.

    Args:
        labels: Class of each voxel.
        classes: The classes.
        connectivity: Axes along which neighbours may differ at once; None for all.

    Raises:
        ValueError: If ``connectivity`` is above the number of axes.
    """
    axes = labels.ndim - 2
    if connectivity is not None and connectivity > axes:
        raise ValueError(f"connectivity must be at most {axes}, the number of spatial axes, got {connectivity!r}")
    structure = ndimage.generate_binary_structure(axes, connectivity or axes)
    kept = labels.cpu().numpy().copy()
    for image in kept[:, 0]:
        for one in classes:
            image[_but_largest(image == one, structure)] = 0
    return torch.from_numpy(kept).to(labels.device)


def _but_largest(mask: np.ndarray, structure: np.ndarray) -> np.ndarray:
    components, number = ndimage.label(mask, structure)
    if number < 2:
        return np.zeros_like(mask)
    sizes = np.bincount(components.ravel())[1:]
    return np.asarray(mask & (components != 1 + sizes.argmax()))


def _classes(largest: Sequence[int] | str, num_classes: int) -> tuple[int, ...]:
    if isinstance(largest, str):
        if largest != "all":
            raise ValueError(f"largest must be 'all' or a list of classes, got {largest!r}")
        return tuple(range(1, num_classes))
    if any(not 1 <= one < num_classes for one in largest):
        raise ValueError(f"largest must list classes from 1 to {num_classes - 1}, got {list(largest)}")
    return tuple(largest)
