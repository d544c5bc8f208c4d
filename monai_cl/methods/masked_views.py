"""Views of which columns are hidden, and their restoration; terms of one mask share a pass through the network."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from monai_cl.methods._dense_maps import pointwise
from monai_cl.methods.extraction import FeatureExtractor, Maps
from monai_cl.methods.term import Term, require_positive, views_of
from monai_cl.networks import input_channels, resized


def column_mask(images: Tensor, *, ratio: float, columns: int) -> Tensor:
    r"""Random columns to hide, through the whole last axis: (N, 1, \*S) for images (N, C, \*S).

    Args:
        images: The images.
        ratio: Share of the columns that is hidden, rounded up.
        columns: Columns along each axis but the last; those at the end may be cut.

    Example:
        >>> mask = column_mask(torch.zeros(2, 1, 8, 8, 3), ratio=0.75, columns=4)
        >>> mask.sum((1, 2, 3, 4)).tolist(), bool((mask.any(-1) == mask.all(-1)).all())
        ([144, 144], True)
    """
    plane = images.shape[2:-1]
    number = columns ** len(plane)
    order = torch.rand(len(images), number, device=images.device).argsort(1).argsort(1)  # rank of each column
    mask = (order < math.ceil(ratio * number)).reshape(len(images), 1, *[columns] * len(plane))
    for axis, edge in enumerate(plane):
        mask = mask.repeat_interleave(-(-edge // columns), dim=axis + 2).narrow(axis + 2, 0, edge)
    whole: Tensor = mask[..., None].expand(len(images), 1, *images.shape[2:])
    return whole


class ColumnMask(nn.Module):
    """Hide random columns of each image, see :func:`column_mask`.

    Args:
        ratio: Share of the columns that is hidden, rounded up.
        columns: Columns along each axis but the last.

    Raises:
        ValueError: If the ratio is not between 0 and 1 or no column is given.
    """

    def __init__(self, ratio: float = 0.75, columns: int = 4) -> None:
        super().__init__()
        if not 0 < ratio < 1:
            raise ValueError(f"mask_ratio must be between 0 and 1, got {ratio!r}")
        require_positive(columns=columns)
        self.ratio = ratio
        self.columns = columns

    def forward(self, images: Tensor) -> Tensor:
        r"""Voxels to hide, (N, 1, \*S) for images (N, C, \*S)."""
        return column_mask(images, ratio=self.ratio, columns=self.columns)


def masked_views(extract: FeatureExtractor, images: Tensor, mask: nn.Module) -> tuple[Tensor, Tensor]:
    r"""Views (B, V, C, \*S) with what is hidden set to zero, and the mask (B, V, 1, \*S); made once a batch.

    Args:
        extract: The extractor of the batch.
        images: The views.
        mask: Makes a mask (N, 1, \*S) of images (N, C, \*S).
    """

    def make() -> tuple[Tensor, Tensor]:
        hidden = mask(images.flatten(0, 1)).unflatten(0, images.shape[:2])
        return images * ~hidden, hidden

    made: tuple[Tensor, Tensor] = extract.once(("masked", mask), images, make)
    return made


class MaskedViewTerm(Term):
    r"""Restoration of views whose columns were hidden, by one linear map in each voxel.

    .. math:: L = \frac{1}{2n} \sum_v \lVert r(f(x \odot (1 - m)))_v - x_v \rVert^2

    over all voxels, hidden or not.

    Args:
        mask: Makes the mask; give the same one to all terms that look at the masked views.
        key: Key of the views (B, V, C, \*S) in a batch.
    """

    needs = frozenset({"decoder"})
    probed = False

    def __init__(self, mask: nn.Module, *, key: str = "image") -> None:
        super().__init__()
        self.mask = mask
        self.key = key
        self.head: nn.Module

    def build(self, network: nn.Module, maps: Maps) -> None:
        """Make the linear map."""
        self.head = pointwise(maps.decoder.ndim - 2, maps.decoder.shape[1], input_channels(network))

    def forward(self, extract: FeatureExtractor, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Half of the mean squared error, and ``hidden``, that of hidden voxels alone (not optimised)."""
        images = views_of(batch, self.key).images
        masked, hidden = masked_views(extract, images, self.mask)
        restored = self.head(extract(masked).decoder)
        # the decoder of some networks ends below the size of the image
        error = (resized(restored, images.shape[3:]).float() - images.flatten(0, 1).float()).square()
        unseen = hidden.flatten(0, 1).expand_as(error)
        return error.mean() / 2, {"hidden": error[unseen].mean().detach() / 2}
