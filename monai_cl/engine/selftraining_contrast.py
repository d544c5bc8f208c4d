"""Contrast by class beside the loss of self-training: a head on the decoder, which the network does not keep."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from monai.networks.layers import Conv
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.modules.conv import _ConvNd

from monai_cl.engine.distributed import world_size
from monai_cl.engine.voxel_loss import Maps
from monai_cl.losses import ClassContrastiveLoss
from monai_cl.networks import output_module, resized


class Embedded(NamedTuple):
    r"""Output of a network and of a head beside it.

    Attributes:
        maps: Logits (B, K, \*S), or several of deep supervision, the main ones first.
        embedding: Embedded voxels (B, C, \*s) of the map that the network turns into logits.
    """

    maps: Maps
    embedding: Tensor


class ClassContrast(nn.Module):
    """Head in each voxel of a network's last map, and the contrast of what it gives by class, with a weight.

    Args:
        network: The network: one that :func:`monai_cl.networks.encoder_features` knows.
        num_classes: Classes with the background.
        weight: Weight of the contrast in the loss.
        form: Form of :class:`monai_cl.losses.ClassContrastiveLoss`, ``"softmax"`` or ``"published"``.
        temperature: Divisor of the cosine similarities.
        num_anchors: Voxels drawn of each class in each process; None takes all.

    Raises:
        ValueError: If the network is another, or an option is out of range.

    References:
        Local contrastive loss with pseudo-label based self-training, arXiv 2112.09645.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        num_classes: int,
        weight: float = 0.1,
        form: str = "softmax",
        temperature: float = 0.1,
        num_anchors: int | None = 256,
    ) -> None:
        super().__init__()
        if not weight > 0:
            raise ValueError(f"weight must be above 0, got {weight!r}; leave the contrast out for 0")
        last = _last_convolution(network)
        dims, channels = last.weight.ndim - 2, last.in_channels
        self.weight = weight
        self.head = EmbeddingHead(dims, channels).to(last.weight.device)
        self.loss = ClassContrastiveLoss(
            dims, temperature, num_anchors, form, gather=True, num_classes=num_classes
        )  # fmt: skip

    def forward(self, embedding: Tensor, targets: Tensor, *, pseudo: bool = True) -> Tensor:
        r"""Contrast of embedded voxels, before it is weighted.

        Args:
            embedding: Output (B, C, \*s) of the head.
            targets: True labels and those of the teacher (B, 2, \*S), below 0 if none exists.
            pseudo: Let the teacher's labels take part.
        """
        true, teacher = targets.unbind(1)
        label = torch.where(true < 0, teacher, true) if pseudo else true
        loss: Tensor = self.loss(resized(embedding, label.shape[1:]), label, label >= 0)
        return loss


class EmbeddingHead(nn.Module):
    """Linear, batch norm, ReLU and linear in each voxel; the norm is that of all processes and has no state.

    Args:
        spatial_dims: Spatial axes of a map.
        channels: Channels of the map, and of the embedding.
    """

    def __init__(self, spatial_dims: int, channels: int) -> None:
        super().__init__()
        convolution = Conv[Conv.CONV, spatial_dims]
        self.first = convolution(channels, channels, kernel_size=1, bias=False)
        self.last = convolution(channels, channels, kernel_size=1, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Embed each voxel of maps (B, C, *S)."""
        embedding: Tensor = self.last(_normalised(self.first(maps)).relu())
        return embedding


class WithEmbedding(nn.Module):
    """A network and a head that looks at the map before its last module; both run at once.

    Args:
        network: The network, whose parameters and modules stay as they are.
        contrast: The contrast whose head it is.
    """

    def __init__(self, network: nn.Module, contrast: ClassContrast) -> None:
        super().__init__()
        self.network = network
        self.head = contrast.head

    def forward(self, x: Tensor) -> Embedded:
        """Run the network on images, and the head on what it gives last."""
        kept: list[Tensor] = []
        handle = output_module(self.network).register_forward_pre_hook(lambda module, inputs: kept.append(inputs[0]))
        try:
            maps = self.network(x)
        finally:
            handle.remove()
        return Embedded(maps, self.head(kept[-1]))


def class_contrast(network: nn.Module, weight: float, **options: Any) -> ClassContrast | None:
    """Make the contrast of a weight; none, which costs nothing, where that is 0.

    Args:
        network: The network.
        weight: Weight of the contrast in the loss.
        options: Options of :class:`ClassContrast`.

    Raises:
        ValueError: If the weight is below 0.
    """
    if not weight >= 0:
        raise ValueError(f"class_contrast must be a weight of at least 0, got {weight!r}")
    return ClassContrast(network, weight=weight, **options) if weight else None


def _last_convolution(network: nn.Module) -> _ConvNd:
    try:
        modules = output_module(network).modules()
    except ValueError as error:
        raise ValueError(
            f"class_contrast looks at the network's last map: {error}; or set class_contrast to 0"
        ) from error
    return next(one for one in modules if isinstance(one, _ConvNd))


def _normalised(maps: Tensor) -> Tensor:
    if world_size() == 1:
        return F.batch_norm(maps, None, None, training=True)
    axes = [0, *range(2, maps.ndim)]
    maps, voxels = maps.float(), maps[:, 0].numel() * world_size()  # as many in each process
    centred = maps - all_reduce(maps.sum(axes, keepdim=True)) / voxels
    variance = all_reduce(centred.square().sum(axes, keepdim=True)) / voxels
    normalised: Tensor = centred * (variance + 1e-5).rsqrt()
    return normalised
