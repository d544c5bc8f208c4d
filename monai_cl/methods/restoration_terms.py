"""Terms that restore images: what was hidden of them, or how they were before a corruption."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monai_cl.methods._dense_maps import pointwise
from monai_cl.methods.extraction import FeatureExtractor, Maps
from monai_cl.methods.mask_curriculum import MaskCurriculum
from monai_cl.methods.term import Term, require_positive, views_of
from monai_cl.networks import input_channels, resized, segmenter


class ReconstructionTerm(Term):
    r"""Restoration of a target from the features of the decoder, by one linear map in each voxel.

    .. math:: L = \frac{1}{n} \sum_v \lvert r(f(x))_v - t_v \rvert

    A batch holds the views (B, V, C, \*S) and their targets (B, V, T, \*S) under ``target``.

    Args:
        target_channels: Channels of the target.
        key: Key of the views in a batch.
    """

    needs = frozenset({"decoder"})

    def __init__(self, target_channels: int = 1, *, key: str = "image") -> None:
        super().__init__()
        require_positive(target_channels=target_channels)
        self.target_channels = target_channels
        self.key = key
        self.head: nn.Module

    def build(self, network: nn.Module, maps: Maps) -> None:
        """Make the linear map."""
        self.head = pointwise(maps.decoder.ndim - 2, maps.decoder.shape[1], self.target_channels)

    def forward(self, extract: FeatureExtractor, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """L1 error of the restored targets.

        Raises:
            ValueError: If the batch has no targets, or of other channels.
        """
        views = views_of(batch, self.key)
        if views.target is None:
            raise ValueError("a batch must hold 'target', the images to restore, beside the views for this term")
        restored, target = self.head(extract(views.images).decoder), views.target.flatten(0, 1)
        if restored.shape[1] != target.shape[1]:
            raise ValueError(
                f"target_channels must be that of the targets, {target.shape[1]}, got {restored.shape[1]}; set it alike"
            )
        # the decoder of some networks ends below the size of the image
        return F.l1_loss(resized(restored, target.shape[2:]).float(), target.float()), {}

    def probe(self, extract: FeatureExtractor, batch: Mapping[str, Any]) -> Any:
        """Error of a batch."""
        return self(extract, batch)[0]

    def summary(self, records: Sequence[Any]) -> Mapping[str, float | Tensor]:
        """Mean error, as ``reconstruction``."""
        return {"reconstruction": float(torch.stack(list(records)).mean())}


class MaskedReconstructionTerm(Term):
    r"""Restoration of hidden blocks from the output of the network, see :class:`monai_cl.methods.MaskedReconstruction`.

    Args:
        mask_ratio: Share of the blocks that is hidden.
        block_size: Edge length of a block in voxels; the last block of an axis may be cut.
        key: Key of the crops (B, C, \*S) in a batch; or of views (B, V, C, \*S), each of which is a crop.
        curriculum: Chooses the blocks in place of chance; it has a ratio and a block size of its own.

    Raises:
        ValueError: If the ratio is not between 0 and 1 or the block is smaller than a voxel.
    """

    needs = frozenset({"output"})

    def __init__(
        self,
        *,
        mask_ratio: float = 0.6,
        block_size: int = 4,
        key: str = "image",
        curriculum: MaskCurriculum | None = None,
    ) -> None:
        super().__init__()
        if not 0 < mask_ratio < 1:
            raise ValueError(f"mask_ratio must be between 0 and 1, got {mask_ratio!r}")
        if block_size < 1:
            raise ValueError(f"block_size must be at least 1 voxel, got {block_size!r}")
        self.mask_ratio = mask_ratio
        self.block_size = block_size
        self.key = key
        self.curriculum = curriculum
        self.head: nn.Module

    def build(self, network: nn.Module, maps: Maps) -> None:
        """Make the convolution of size one from the network's output channels to the image's."""
        channels, dims = _output(segmenter(network))
        self.head = pointwise(dims, channels, input_channels(network))

    def forward(self, extract: FeatureExtractor, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean squared error over hidden voxels, and ``visible``, the same over the others (not optimised).

        Raises:
            ValueError: If the network returns something else than maps of its image's size.
        """
        image = self._crops(batch)
        if self.curriculum is None:
            hidden = block_mask(image, ratio=self.mask_ratio, block_size=self.block_size)
        else:
            hidden = self.curriculum(extract.network, image)
        restored = self.head(self._main_map(extract, image * ~hidden))
        error = (restored.float() - image.float()).square()
        if self.curriculum is not None and self.training:
            self.curriculum.remember(error, hidden)
        mask = hidden.expand_as(error)
        return error[mask].mean(), {"visible": error[~mask].mean().detach()}

    def after_step(self, progress: float) -> None:
        """Take the share of training that is done, for the curriculum."""
        if self.curriculum is not None:
            self.curriculum.progress.fill_(progress)

    def _crops(self, batch: Mapping[str, Any]) -> Tensor:
        images = views_of(batch, self.key).images
        weight: Any = self.head.weight  # with as many axes as crops
        return images.flatten(0, 1) if images.ndim > weight.ndim else images

    def _main_map(self, extract: FeatureExtractor, image: Tensor) -> Tensor:
        output = extract(image).output
        maps = output if isinstance(output, list) else [output]
        channels = self.head.in_channels
        fits = [isinstance(one, Tensor) and one.ndim == image.ndim for one in maps]
        if not all(fits) or maps[0].shape[2:] != image.shape[2:] or maps[0].shape[1] != channels:
            raise ValueError(
                f"network must return maps of {channels} channels, the main one of the size of its image, "
                f"{type(extract.network).__name__} returns something else; take another network, such as SegResNet"
            )
        main: Tensor = maps[0]
        return main


def block_mask(image: Tensor, *, ratio: float, block_size: int) -> Tensor:
    r"""Random blocks to hide: (B, 1, \*S) for images (B, C, \*S), the same number of blocks in each.

    Example:
        >>> mask = block_mask(torch.zeros(2, 1, 8, 8), ratio=0.5, block_size=4)
        >>> mask.sum(dim=(1, 2, 3)).tolist()
        [32, 32]
    """
    size = image.shape[2:]
    grid = [-(-s // block_size) for s in size]
    blocks = int(torch.tensor(grid).prod())
    hidden = round(ratio * blocks)
    order = torch.rand(len(image), blocks, device=image.device).argsort(1).argsort(1)  # rank of each block
    mask = (order < hidden).reshape(len(image), 1, *grid)
    for axis in range(len(grid)):
        mask = mask.repeat_interleave(block_size, dim=axis + 2)
    window = (slice(None), slice(None), *(slice(0, s) for s in size))
    return mask[window]


def _output(network: nn.Module) -> tuple[int, int]:
    """Channels of the last convolution of a network, and its spatial dimensions."""
    transposed = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    weights = [m for m in network.modules() if isinstance(m, (nn.Conv1d, nn.Conv2d, nn.Conv3d, *transposed))]
    if not weights:
        raise ValueError(f"{type(network).__name__} has no convolution; its output channels cannot be determined")
    return weights[-1].out_channels, weights[-1].weight.ndim - 2
