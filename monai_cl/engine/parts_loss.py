"""Loss of images that are mixed of a part with true labels and a part with labels of the teacher."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from monai_cl.engine.selftraining_contrast import ClassContrast, Embedded
from monai_cl.engine.tied_copies import TiedCopies
from monai_cl.engine.voxel_loss import Maps, VoxelLoss, counted_one_hot

NOT_COUNTED = -1  # of a target, where the other part lies


class PartsLoss(nn.Module):
    r"""Loss of the true part of each image, and of the other with a weight; the mean over all images.

    Each part is a loss of its own voxels alone: cross-entropy is normalised by their number, and Dice counts no other.
    With a contrast by class its weighted loss is added.

    Labels are one-hot for a loss of MONAI without ``to_onehot_y``, as :class:`monai_cl.engine.MixupBatch` makes them
    for plain fine-tuning. With class weights :math:`w` that is another loss: cross-entropy of one-hot labels is
    :math:`-\frac{1}{n} \sum_i w_{y_i} \log p_{i y_i}`, that of class numbers is divided by :math:`\sum_i w_{y_i}` in
    place of the number of voxels :math:`n`.

    Args:
        loss: Loss of MONAI of logits and labels, voxel by voxel.
        contrast: Contrast by class; None for none.
        copies: Ties the features of copies of an image; None for none.

    Attributes:
        contrasted: Contrast of the last call before it was weighted; None if none exists.
    """

    def __init__(
        self, loss: nn.Module, contrast: ClassContrast | None = None, copies: TiedCopies | None = None
    ) -> None:
        super().__init__()
        self.of_part = VoxelLoss(loss, ignore_index=NOT_COUNTED)
        # DiceCELoss and its like keep the option in their Dice
        self.one_hot = not getattr(getattr(loss, "dice", loss), "to_onehot_y", True)
        self.contrast = contrast
        self.copies = copies
        self.weight = 0.0
        self.contrasted: Tensor | None = None

    def forward(self, output: Maps | Embedded, targets: Tensor) -> Tensor:
        r"""The loss of maps (N, K, \*S), or of several of deep supervision, and targets (N, 2, \*S).

        Args:
            output: The maps; with embedded voxels beside them if a contrast is used.
            targets: True labels and those of the teacher, -1 if none exists.
        """
        maps = output.maps if isinstance(output, Embedded) else output
        loss = self._mean(maps, targets[:, :1])
        if self.weight > 0:
            loss = loss + self.weight * self._mean(maps, targets[:, 1:])
        if self.contrast is not None and isinstance(output, Embedded):
            contrasted = self.contrast(output.embedding, targets, pseudo=self.weight > 0)
            self.contrasted = contrasted.detach()
            loss = loss + self.contrast.weight * contrasted
        if self.copies is not None and (tie := self.copies.take_tie()) is not None:
            loss = loss + self.copies.weight * tie
        return loss

    def _mean(self, maps: Maps, target: Tensor) -> Tensor:
        if self.one_hot:
            classes = (maps if isinstance(maps, Tensor) else maps[0]).shape[1]
            target = counted_one_hot(target, classes, target == NOT_COUNTED)
        # one image after the other: an image in which nothing counts is a zero in the mean, on whichever process it is
        each = [
            self.of_part(maps[i : i + 1] if isinstance(maps, Tensor) else [m[i : i + 1] for m in maps], one[None])
            for i, one in enumerate(target)
        ]
        return torch.stack(each).mean()
