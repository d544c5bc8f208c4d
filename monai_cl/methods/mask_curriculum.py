"""Curriculum of hidden blocks: where attention lies, or where restoration has gone wrong so far."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from monai.networks.blocks.selfattention import SABlock
from torch import Tensor, nn

from monai_cl.methods._fitting import Size
from monai_cl.networks import encoder_features, resized
from monai_cl.transforms import CurriculumMask

DRIVEN_BY = ("error", "attention", "both")


class MaskCurriculum(nn.Module):
    r"""Hide the blocks that a score points at, see :class:`monai_cl.transforms.CurriculumMask`.

    The error of a block is remembered by its place in the crop: a running mean, over crops and processes, of the mean
    error of the voxels that were hidden there. It is a buffer, so that a run that goes on hides what it would have
    hidden. Attention is that of the crop at hand, without gradient: see :func:`attention_of`; it costs a further pass
    through the encoder.

    Args:
        image_size: Edge lengths of the crops in voxels, or one for all axes.
        block_size: Edge length of a block in voxels.
        driven_by: ``"error"``, ``"attention"`` or ``"both"``.
        mask_ratio: Least share of the blocks that is hidden.
        memory: Share of the remembered error that stays when a further one comes.
        spatial_dims: Axes of the crops.
        **options: Further options of the mask, ``guided`` and ``attention_weight``.

    Raises:
        ValueError: If an option is out of range, or crops have another size.
    """

    errors: Tensor
    progress: Tensor

    def __init__(
        self,
        image_size: Size,
        block_size: int,
        *,
        driven_by: str = "error",
        mask_ratio: float = 0.6,
        memory: float = 0.9,
        spatial_dims: int = 3,
        **options: Any,
    ) -> None:
        super().__init__()
        if driven_by not in DRIVEN_BY:
            raise ValueError(f"curriculum must be one of {DRIVEN_BY}, got {driven_by!r}")
        if not 0 <= memory < 1:
            raise ValueError(f"memory must be at least 0 and below 1, got {memory!r}")
        self.image_size = (image_size,) * spatial_dims if isinstance(image_size, int) else tuple(image_size)
        self.block_size = block_size
        self.driven_by = driven_by
        self.memory = memory
        self.choose = CurriculumMask(mask_ratio, **options)
        self.grid = tuple(-(-edge // block_size) for edge in self.image_size)
        self.register_buffer("errors", torch.zeros(self.grid))
        self.register_buffer("progress", torch.zeros((), dtype=torch.float64))

    def forward(self, network: nn.Module, images: Tensor) -> Tensor:
        r"""Voxels to hide, (B, 1, \*S), of images (B, C, \*S)."""
        if tuple(images.shape[2:]) != self.image_size:
            raise ValueError(
                f"crops must have the size {self.image_size} that the curriculum was made for, got "
                f"{tuple(images.shape[2:])}; set image_size to that of the crops"
            )
        error = attention = None
        if self.driven_by != "attention":
            error = self.errors.flatten().expand(len(images), -1)
        if self.driven_by != "error":
            attention = resized(attention_of(network, images), self.grid).flatten(1)
        blocks = self.choose(float(self.progress), error=error, attention=attention).unflatten(1, self.grid)
        return spread(blocks, self.block_size, images)

    @torch.no_grad()
    def remember(self, error: Tensor, hidden: Tensor) -> None:
        r"""Take the errors of hidden voxels, (B, C, \*S) and (B, 1, \*S); of all processes.

        A block that nowhere was hidden keeps what is remembered of it.
        """
        per_voxel = error.detach().float().mean(1, keepdim=True)
        sums = torch.stack([self._blocks(per_voxel * hidden), self._blocks(hidden.float())])
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(sums)
        seen = sums[1] > 0
        latest = sums[0] / sums[1].clamp(min=1)
        fresh = torch.where(self.errors > 0, torch.lerp(latest.to(self.errors), self.errors, self.memory), latest)
        self.errors.copy_(torch.where(seen, fresh, self.errors))

    def _blocks(self, values: Tensor) -> Tensor:
        r"""Sums (\*grid) over images and over the voxels of each block, of (B, 1, \*S)."""
        total = values.sum((0, 1))
        for axis, edge in enumerate(self.grid):
            number = torch.arange(total.shape[axis], device=total.device) // self.block_size
            shape = [*total.shape[:axis], edge, *total.shape[axis + 1 :]]
            total = total.new_zeros(shape).index_add(axis, number, total)
        return total


def spread(blocks: Tensor, block_size: int, images: Tensor) -> Tensor:
    r"""Masks of voxels (B, 1, \*S) of masks of blocks (B, \*grid); the last block of an axis may be cut."""
    mask = blocks[:, None]
    for axis, edge in enumerate(images.shape[2:], start=2):
        mask = mask.repeat_interleave(block_size, dim=axis).narrow(axis, 0, edge)
    return mask


@torch.no_grad()
def attention_of(network: nn.Module, images: Tensor) -> Tensor:
    r"""Attention of an encoder to the parts of images (B, C, \*S): (B, 1, \*s), without gradient.

    Of a transformer with blocks of MONAI's ``SABlock``, as ``UNETR``: what each token of the last block gets, averaged
    over heads and queries. Of a convolutional encoder: the mean square of the features in each voxel of its deepest
    map (arXiv 1612.03928).
    """
    blocks: list[Any] = [module for module in network.modules() if isinstance(module, SABlock)]
    block = blocks[-1] if blocks else None
    mode, kept = network.training, getattr(block, "save_attn", None)
    network.eval()
    try:
        if block is not None:
            block.save_attn = True
        maps: Sequence[Tensor] = encoder_features(network, images, levels="deepest")
        if block is None:
            return maps[-1].float().square().mean(1, keepdim=True)
        received = torch.as_tensor(block.att_mat).float().mean((1, 2))  # (B, heads, queries, keys)
        return received.reshape(len(images), 1, *maps[-1].shape[2:])
    finally:
        network.train(mode)
        if block is not None:
            block.save_attn = kept
            block.att_mat = torch.Tensor()
