"""Self-similarity as a descriptor of anatomy that does not depend on the MR sequence: MIND-SSC."""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor

from monai_cl.metrics._base import as_float, full_precision

_LEAST, _MOST = 1e-3, 1e3  # limits of the local variance, in units of its mean


@full_precision
def mind_ssc(image: Tensor, *, radius: int = 1, dilation: int = 2) -> Tensor:
    r"""Modality-independent neighbourhood descriptor with self-similarity context.

    Around each voxel $x$ lie the neighbours at distance ``dilation`` along each axis. For every pair of them that is
    not opposite, the patches around both are compared,

    $$D_{ij}(x) = \frac{1}{|P|} \sum_{p \in P} \bigl(I(x + n_i + p) - I(x + n_j + p)\bigr)^2, \qquad
    \mathrm{MIND}_{ij}(x) = \exp\Bigl(-\frac{D_{ij}(x) - \min_{kl} D_{kl}(x)}{V(x)}\Bigr),$$

    with $V$ the mean of $D$ over the pairs, which stands for noise and contrast, kept within a thousandth and a
    thousand times its mean over the image. The image continues beyond its border with the value there.

    Args:
        image: Images (B, 1, *S) with two or three spatial axes.
        radius: Half width of the cubic patches P in voxels; 0 compares single voxels.
        dilation: Distance of the neighbours in voxels.

    Returns:
        Descriptors (B, 12, *S), (B, 4, *S) in two dimensions, in (0, 1].

    Raises:
        ValueError: If the image has another shape, or a length is out of range.

    Source:
        Heinrich et al., MICCAI 2013, "Towards realtime multimodal fusion for image-guided interventions using
        self-similarities".

    Example:
        >>> image = torch.rand(1, 1, 8, 8, 8)
        >>> torch.allclose(mind_ssc(image), mind_ssc(5 - 3 * image), atol=1e-5)   # inverted contrast, another unit
        True
    """
    x = as_float("image", image)
    if x.ndim not in (4, 5) or x.shape[1] != 1:
        raise ValueError(f"image must have shape (B, 1, *S) with two or three spatial axes, got {tuple(x.shape)}")
    if radius < 0 or dilation < 1:
        raise ValueError(f"radius must be at least 0 and dilation at least 1, got {radius} and {dilation}")
    neighbours = _neighbours(x, dilation)
    axes = x.ndim - 2
    pairs = [(i, j) for i, j in itertools.combinations(range(2 * axes), 2) if i // 2 != j // 2]
    distance = torch.cat([_patch_mean((neighbours[i] - neighbours[j]).square(), radius) for i, j in pairs], dim=1)
    variance = distance.mean(1, keepdim=True)
    mean = variance.mean(tuple(range(1, x.ndim)), keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
    variance = torch.minimum(torch.maximum(variance, _LEAST * mean), _MOST * mean)
    return torch.exp(-(distance - distance.amin(1, keepdim=True)) / variance)


def _neighbours(x: Tensor, dilation: int) -> list[Tensor]:
    """The image shifted forth and back along each axis, continued at its border."""
    axes = x.ndim - 2
    padded = F.pad(x, [dilation] * (2 * axes), mode="replicate")
    shifted = []
    for axis in range(axes):
        for start in (0, 2 * dilation):
            part = padded
            for other in range(axes):
                part = part.narrow(other + 2, start if other == axis else dilation, x.shape[other + 2])
            shifted.append(part)
    return shifted


def _patch_mean(x: Tensor, radius: int) -> Tensor:
    if radius == 0:
        return x
    width = 2 * radius + 1
    padded = F.pad(x, [radius] * (2 * (x.ndim - 2)), mode="replicate")
    return F.avg_pool3d(padded, width, stride=1) if x.ndim == 5 else F.avg_pool2d(padded, width, stride=1)
