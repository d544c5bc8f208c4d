"""The loss of fine-tuning: over the maps of deep supervision, without the voxels that are not to count."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.losses import DeepSupervisionLoss
from monai.networks import one_hot
from torch import Tensor, nn

Maps = Tensor | Sequence[Tensor]


class VoxelLoss(nn.Module):
    r"""A loss of MONAI, of one map or of several, from which ignored voxels are taken out before it is computed.

    Of a list of maps, the main one first, the losses are added with the weights 1, 1/2, 1/4, ... of
    :class:`monai.losses.DeepSupervisionLoss`, each against the labels at the size of its map.

    Where ``ignore_index`` is given, the loss of each image is that of its other voxels alone, and the mean of these is
    taken: an ignored voxel has no gradient and is in no denominator. A batch without ignored voxels has the very loss
    that it has without ``ignore_index``, one with nothing else has the loss 0.

    Args:
        loss: Loss of logits (B, C, \*S) and labels, (B, 1, \*S) or one-hot (B, C, \*S), voxel by voxel: not one that
            looks at distances or neighbours.
        ignore_index: Label of voxels that do not count, as those of labels that are no class; of one-hot labels those
            voxels that are of no class, wholly or, after mixing, in part. ``None``: each voxel counts.

    Example:
        >>> from monai.losses import DiceCELoss
        >>> loss = VoxelLoss(DiceCELoss(to_onehot_y=True, softmax=True), ignore_index=255)
        >>> logits, label = torch.zeros(1, 2, 2, 2, requires_grad=True), torch.tensor([[[[0, 1], [1, 255]]]])
        >>> loss(logits, label).backward()
        >>> logits.grad[0, :, 1, 1].tolist()
        [0.0, 0.0]
    """

    def __init__(self, loss: nn.Module, *, ignore_index: int | None = None) -> None:
        super().__init__()
        self.loss = loss
        self.ignore_index = ignore_index
        self._levels = DeepSupervisionLoss(self._of_one)

    def forward(self, maps: Maps, target: Tensor) -> Tensor:
        """The loss of one map, or of several."""
        if isinstance(maps, Tensor):
            return self._of_one(maps, target)
        # sizes are matched by interpolation, which has no integers
        result: Tensor = self._levels(list(maps), torch.as_tensor(target).as_subclass(Tensor).float())
        return result

    def _of_one(self, logits: Tensor, target: Tensor) -> Tensor:
        if self.ignore_index is None:
            return self._loss(logits, target)
        counted = ~ignored(target, logits.shape[1], self.ignore_index)
        if counted.all():
            return self._loss(logits, target)
        parts = [
            self._loss(one[:, keep][None], label[:, keep][None])
            for one, label, keep in zip(logits, target, counted, strict=True)
            if keep.any()
        ]
        return torch.stack(parts).mean() if parts else logits.sum() * 0.0

    def _loss(self, logits: Tensor, target: Tensor) -> Tensor:
        result: Tensor = self.loss(logits, target)
        return result


def ignored(target: Tensor, num_classes: int, ignore_index: int | None) -> Tensor:
    r"""Voxels (B, \*S) of labels (B, 1, \*S) or one-hot (B, C, \*S) that do not count."""
    label = torch.as_tensor(target).as_subclass(Tensor)
    if label.shape[1] == num_classes and num_classes > 1:
        return label.sum(1) < 1 - 1e-3
    result = (label[:, 0] < 0) | (label[:, 0] >= num_classes)
    return result if ignore_index is None else result | (label[:, 0] == ignore_index)


def counted_one_hot(label: Tensor, num_classes: int, dropped: Tensor) -> Tensor:
    r"""Labels (B, 1, \*S) as one-hot (B, C, \*S), in which voxels of ``dropped`` (B, 1, \*S) are of no class."""
    result: Tensor = one_hot(label.masked_fill(dropped, 0), num_classes) * ~dropped
    return result


def without_ignored(
    postprocessing: Callable[[Any], Any], *, num_classes: int, ignore_index: int | None = None
) -> Callable[[Any], Any]:
    r"""Take voxels that do not count out of what metrics and pictures see.

    Args:
        postprocessing: Transform of an item that makes ``pred`` and ``label`` one-hot (C, \*S).
        num_classes: Classes with the background.
        ignore_index: Label of voxels that do not count; ``None`` gives the transform itself.

    Returns:
        A transform after which such voxels are of no class, in ``pred`` as in ``label``.
    """
    if ignore_index is None:
        return postprocessing

    def clear(item: dict[str, Any]) -> dict[str, Any]:
        item = dict(item)
        dropped = ignored(item["label"][None], num_classes, ignore_index)
        item["label"] = item["label"].clone()
        item["label"][dropped] = 0
        item = postprocessing(item)
        for key in ("pred", "label"):
            item[key] = item[key] * ~dropped
        return item

    return clear
