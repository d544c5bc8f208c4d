"""Labels made of a network's own predictions, with what is too uncertain or scattered taken out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from monai_cl.transforms.largest_component import keep_largest


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
        largest: Classes, or one, of which the largest component alone is kept, the others becoming background;
            ``"all"`` for each foreground class, an empty list for none.
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
        largest: int | Sequence[int] | str = "all",
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
            ValueError: If the numbers of channels and classes differ.
        """
        if logits.shape[1] != self.num_classes:
            raise ValueError(f"logits must have {self.num_classes} channels, one a class, got {tuple(logits.shape)}")
        probability = torch.as_tensor(logits).as_subclass(Tensor).float().softmax(1)
        best, labels = probability.max(1, keepdim=True)
        if self.foreground is not None:
            labels = (probability[:, 1:] >= self.foreground).long()
        return Pseudo(keep_largest(labels, self.largest, self.connectivity), best >= self.confidence, best)


def _classes(largest: int | Sequence[int] | str, num_classes: int) -> tuple[int, ...]:
    if isinstance(largest, str) and largest == "all":
        return tuple(range(1, num_classes))
    # a single class of a command line may arrive as a text
    listed = [largest] if isinstance(largest, int) else largest
    if isinstance(listed, str) and listed.strip().isdecimal():
        listed = [int(listed)]
    if isinstance(listed, str):
        raise ValueError(f"largest must be 'all', a class or a list of classes, got {largest!r}")
    if any(isinstance(one, str) or not 1 <= one < num_classes for one in listed):
        raise ValueError(f"largest must list classes from 1 to {num_classes - 1}, got {list(listed)}")
    return tuple(listed)
