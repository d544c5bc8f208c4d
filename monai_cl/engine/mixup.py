"""Mixup of labelled batches: images and one-hot labels of two samples in the same proportion."""

from collections.abc import Mapping
from typing import Any

import torch
from monai.engines.utils import default_prepare_batch
from monai.networks import one_hot
from monai.transforms import MixUp, Randomizable
from monai.utils import convert_to_tensor
from torch import Tensor

from monai_cl.engine.voxel_loss import counted_one_hot, ignored


class MixupBatch(Randomizable):
    r"""Prepares batches for ``SupervisedTrainer`` (``prepare_batch``): one-hot labels, mixed with those of another.

    .. math::
        \tilde x_i = \lambda_i x_i + (1 - \lambda_i) x_{\pi(i)}, \quad
        \tilde y_i = \lambda_i y_i + (1 - \lambda_i) y_{\pi(i)}, \quad \lambda_i \sim \mathrm{Beta}(\alpha, \alpha)

    with :math:`\pi` a random permutation of the batch and :math:`y` one-hot. The loss must take labels as
    probabilities (MONAI's Dice and cross-entropy with ``to_onehot_y: false`` do).

    Args:
        num_classes: Classes, background included.
        alpha: Parameter of the Beta distribution; 0 mixes nothing, and labels come as plain one-hot.
        seed: Seed of the draws; by default a random one.
        ignore_index: Label of voxels that do not count: they are of no class, and so is their share in what they are
            mixed with, which :class:`~monai_cl.engine.VoxelLoss` leaves out.

    Raises:
        ValueError: If fewer than two classes are given or ``alpha`` is negative.

    References:
        mixup, arXiv 1710.09412; of segmentation with few labels, arXiv 2006.10511.

    Example:
        >>> batch = {"image": torch.rand(2, 1, 4, 4), "label": torch.tensor([0, 1]).reshape(2, 1, 1, 1).expand(2, 1, 4, 4)}
        >>> image, label = MixupBatch(2, alpha=0.2, seed=0)(batch)
        >>> tuple(label.shape), bool((label.sum(1) - 1).abs().max() < 1e-6)
        ((2, 2, 4, 4), True)
    """  # noqa: E501

    def __init__(
        self, num_classes: int, alpha: float = 0.0, *, seed: int | None = None, ignore_index: int | None = None
    ) -> None:
        if num_classes < 2:
            raise ValueError(f"num_classes must be at least 2, background included, got {num_classes!r}")
        if not alpha >= 0:
            raise ValueError(f"alpha must be at least 0 (0 mixes nothing), got {alpha!r}")
        self.num_classes = num_classes
        self.alpha = alpha
        self.ignore_index = ignore_index
        self.set_random_state(seed=seed)

    def __call__(
        self,
        batch: Mapping[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor]:
        r"""Images (B, C, \*S) and labels (B, num_classes, \*S) of ``image`` and ``label`` (B, 1, \*S) of a batch."""
        # plain tensors: MONAI's metadata would be kept up at each operation of the network
        image, label = (convert_to_tensor(one) for one in default_prepare_batch(batch, device, non_blocking, **kwargs))
        label = self._one_hot(label)
        if self.alpha == 0:
            return image, label
        mix = MixUp(len(image), self.alpha)
        mix.set_random_state(state=self.R)
        mix.randomize()
        weight, order, _ = mix._params
        mix._params = (weight.to(image.device), torch.as_tensor(order, device=image.device), [])  # drawn on the CPU
        return mix.apply(image), mix.apply(label)

    def _one_hot(self, label: Tensor) -> Tensor:
        if self.ignore_index is None:
            result: Tensor = one_hot(label, self.num_classes)
            return result
        dropped = ignored(label, self.num_classes, self.ignore_index)[:, None]
        return counted_one_hot(label, self.num_classes, dropped)
