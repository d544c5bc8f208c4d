"""Blocks of an image replaced by those of a donor: another sequence of the same anatomy, or a template."""

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import get_track_meta
from monai.transforms import MapTransform, Randomizable, Transform
from monai.utils import TransformBackends, convert_to_tensor, ensure_tuple_rep
from torch import Tensor


def kept_count(blocks: int, mask_rate: float) -> int:
    r"""Number of blocks that stay, :math:`\lfloor n (1 - r) \rfloor`, whatever the binary fraction of the rate.

    Example:
        >>> kept_count(1728, 0.8), kept_count(1728, 0.875), kept_count(10, 0.9)
        (345, 216, 1)
    """
    return math.floor(round(blocks * (1 - mask_rate), 9))


def block_grid(size: Sequence[int], block: int) -> tuple[int, ...]:
    """Number of blocks along each axis; the last of an axis may be cut."""
    return tuple(-(-side // block) for side in size)


def kept_blocks(
    shape: Sequence[int],
    *,
    spatial_dims: int,
    mask_rate: float = 0.8,
    block: int = 8,
    device: torch.device | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Draw which voxels of a batch of images stay, by blocks: a mask (B, 1, \*S), the same number in each image.

    Drawn on the device from torch's generator, for whole batches within a training step.

    Args:
        shape: Shape (B, C, \*S) of the images.
        spatial_dims: Number of spatial axes.
        mask_rate: Share of the blocks that is replaced.
        block: Edge length of a block in voxels.
        device: Where to draw.
        generator: Source of the draw; torch's own when left out.

    Example:
        >>> kept = kept_blocks((3, 1, 8, 8), spatial_dims=2, mask_rate=0.75, block=4)
        >>> kept.sum(dim=(1, 2, 3)).tolist()
        [16, 16, 16]
    """
    size = tuple(shape[len(shape) - spatial_dims :])
    grid = block_grid(size, block)
    draws = torch.rand(shape[0], math.prod(grid), device=device, generator=generator)
    return whole_blocks(_chosen(draws, mask_rate).reshape(shape[0], 1, *grid), size, block)


def _chosen(draws: Tensor, mask_rate: float) -> Tensor:
    """The smallest of draws (..., N), as many as stay."""
    return draws.argsort(-1).argsort(-1) < kept_count(draws.shape[-1], mask_rate)


def whole_blocks(chosen: Tensor, size: Sequence[int], block: int) -> Tensor:
    r"""Spread a mask of blocks (..., \*grid) over their voxels: (..., \*size)."""
    for axis, side in zip(range(chosen.ndim - len(size), chosen.ndim), size, strict=True):
        chosen = chosen.repeat_interleave(block, dim=axis).narrow(axis, 0, side)
    return chosen


def replace_blocks(image: Tensor, donor: Tensor, kept: Tensor) -> Tensor:
    r"""Take ``image`` where ``kept`` is true and ``donor`` elsewhere, bit by bit.

    Gradients reach the donor through replaced voxels alone.

    Args:
        image: Images (..., C, \*S).
        donor: The same shape.
        kept: Mask that broadcasts to them.
    """
    return torch.where(kept, image, donor)


class BlockReplace(Randomizable, Transform):
    r"""Keep a few blocks of an image, and take all other voxels from a donor.

    .. math:: y = m \odot x + (1 - m) \odot d

    with a mask :math:`m` that is constant on blocks of a grid and keeps exactly :math:`\lfloor n (1 - r) \rfloor` of
    the :math:`n` blocks. Kept voxels are bit-identical to the image, replaced ones to the donor. Unlike a hole, a
    replaced block shows anatomy: of the same patient in another sequence, or of a template.

    Args:
        mask_rate: Share :math:`r` of the blocks that is replaced, in [0, 1].
        block: Edge length of a block in voxels; the last block of an axis may be cut.
        spatial_dims: Number of spatial axes. Axes before that of the channels are a batch, each image of which has
            blocks of its own.

    Raises:
        ValueError: If an option is out of range, or image and donor differ in shape.

    References:
        BrainMVP, arXiv 2410.10604.

    Example:
        >>> image, donor = torch.ones(1, 8, 8, 8), torch.zeros(1, 8, 8, 8)
        >>> float(BlockReplace(mask_rate=0.75, block=4).set_random_state(seed=0)(image, donor).mean())
        0.25
    """

    backend = [TransformBackends.TORCH]  # noqa: RUF012 - MONAI's contract

    def __init__(self, mask_rate: float = 0.8, block: int = 8, *, spatial_dims: int = 3) -> None:
        if not 0 <= mask_rate <= 1:
            raise ValueError(f"mask_rate must be between 0 and 1, got {mask_rate!r}")
        if block < 1:
            raise ValueError(f"block must be at least 1 voxel, got {block!r}")
        if spatial_dims < 1:
            raise ValueError(f"spatial_dims must be at least 1, got {spatial_dims!r}")
        self.mask_rate = mask_rate
        self.block = block
        self.spatial_dims = spatial_dims

    def randomize(self, data: Sequence[int]) -> Tensor:
        r"""Draw which blocks stay, for images of a shape (..., C, \*S): a mask (..., 1, \*grid)."""
        shape = tuple(data)
        if len(shape) <= self.spatial_dims:
            raise ValueError(
                f"an image must have an axis of channels before its {self.spatial_dims} spatial axes, got {shape}; "
                "set spatial_dims to that of the images"
            )
        grid = block_grid(shape[-self.spatial_dims :], self.block)
        leading = shape[: -self.spatial_dims - 1]
        draws = torch.from_numpy(self.R.random_sample((*leading, math.prod(grid))))
        return _chosen(draws, self.mask_rate).reshape(*leading, 1, *grid)

    def __call__(self, image: Tensor | np.ndarray, donor: Tensor | np.ndarray) -> Tensor:
        r"""Draw blocks and replace them: image and donor (C, \*S), or a batch of each."""
        return self.apply(image, donor, self.randomize(image.shape))

    def apply(self, image: Tensor | np.ndarray, donor: Tensor | np.ndarray, blocks: Tensor) -> Tensor:
        """Replace all but the ``blocks`` that were drawn."""
        result: Tensor = convert_to_tensor(image, track_meta=get_track_meta())
        other: Tensor = convert_to_tensor(donor, track_meta=False)
        if result.shape != other.shape:
            raise ValueError(
                f"image and donor must have one shape, got {tuple(result.shape)} and {tuple(other.shape)}; resample "
                "the donor onto the grid of the image"
            )
        kept = whole_blocks(blocks.to(result.device), result.shape[-self.spatial_dims :], self.block)
        return replace_blocks(result, other.to(result), kept)


class BlockReplaced(Randomizable, MapTransform):
    """Dictionary version of :class:`BlockReplace`: the same blocks for all keys.

    Args:
        keys: Keys of the images.
        donor_keys: Key of the donor of each, or one for all.
        mask_rate: As for :class:`BlockReplace`.
        block: As for :class:`BlockReplace`.
        spatial_dims: As for :class:`BlockReplace`.
        allow_missing_keys: Skip keys that an item lacks.

    Example:
        >>> item = {"t1": torch.ones(1, 8, 8, 8), "t2": torch.zeros(1, 8, 8, 8)}
        >>> found = BlockReplaced("t1", "t2", mask_rate=0.5, block=4).set_random_state(seed=0)(item)
        >>> float(found["t1"].mean()), float(found["t2"].mean())
        (0.5, 0.0)
    """

    backend = BlockReplace.backend

    def __init__(
        self,
        keys: KeysCollection,
        donor_keys: KeysCollection,
        mask_rate: float = 0.8,
        block: int = 8,
        *,
        spatial_dims: int = 3,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.donor_keys = ensure_tuple_rep(donor_keys, len(self.keys))
        self.replace = BlockReplace(mask_rate, block, spatial_dims=spatial_dims)

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> "BlockReplaced":
        """Seed the draws."""
        super().set_random_state(seed, state)
        self.replace.set_random_state(state=self.R)
        return self

    def randomize(self, data: Sequence[int]) -> Tensor:
        """Draw which blocks stay, for images of a shape."""
        return self.replace.randomize(data)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace blocks of the images under all keys."""
        d = dict(data)
        pairs = list(self.key_iterator(d, self.donor_keys))
        if not pairs:
            return d
        blocks = self.randomize(d[pairs[0][0]].shape)
        for key, donor in pairs:
            d[key] = self.replace.apply(d[key], data[donor], blocks)
        return d


BlockReplaceD = BlockReplaceDict = BlockReplaced
