"""Term of healthy and patients that restores the image from two codes, and so can show what is pathological in it."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from monai_cl.losses import SepVAELoss
from monai_cl.methods.code_decoder import CodeDecoder
from monai_cl.methods.extraction import FeatureExtractor, Maps
from monai_cl.methods.image_terms import spread
from monai_cl.methods.term import of_batch, require_positive, views_of
from monai_cl.methods.total_correlation import TotalCorrelation
from monai_cl.methods.two_spaces import SPACES, Spaces, TwoSpaceTerm
from monai_cl.networks import input_channels

_LOG_VARIANCES = (-10.0, 5.0)  # outside of which an exponential loses its meaning


class Code(NamedTuple):
    """Normal distribution of a code.

    Attributes:
        mean: (N, D).
        log_variance: (N, D).
    """

    mean: Tensor
    log_variance: Tensor


class SeparateVAETerm(TwoSpaceTerm):
    r"""Variational autoencoder with a common and a salient code.

    Each view goes through the encoder; heads on its pooled maps give the normal distributions of both codes. A decoder
    restores the view from a draw of both, the salient one of the healthy replaced by 0. The loss is that of
    :class:`monai_cl.losses.SepVAELoss`, a classifier of the salient means among it, with the total correlation of both
    codes of patients (:class:`TotalCorrelation`) and the loss of its discriminator beside it.

    The pathology in a patient's image is the part that the decoder takes away when the salient code is set to 0
    (:meth:`decode`); see :func:`monai_cl.engine.separation.draw_separation`.

    Args:
        image_size: Edge lengths of a view in voxels, which the decoder makes.
        loss: Weights of the terms, the usual ones when left out.
        correlation_weight: Weight of the total correlation.
        common: Width of the common code.
        salient: Width of the salient code.
        width: Channels of the decoder's finest map.
        doublings: Times its map is doubled from the coarsest to the image.
        options: Options of :class:`TwoSpaceTerm`.

    Raises:
        ValueError: If an option is out of range.

    References:
        SepVAE: a contrastive VAE to separate pathological patterns from healthy ones, arXiv 2307.06206. Its healthy
        salient codes have a narrow prior in place of the pull to 0.
    """

    def __init__(
        self,
        image_size: Sequence[int],
        loss: SepVAELoss | None = None,
        *,
        correlation_weight: float = 1e-3,
        common: int = 32,
        salient: int = 32,
        width: int = 8,
        doublings: int = 3,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        require_positive(common=common, salient=salient, width=width, doublings=doublings)
        if not 0 <= correlation_weight < float("inf"):
            raise ValueError(f"correlation_weight must be at least 0, got {correlation_weight!r}")
        self.image_size = tuple(image_size)
        self.loss = SepVAELoss(gather=True) if loss is None else loss
        self.correlation_weight = correlation_weight
        self.widths = (common, salient)
        self.width = width
        self.doublings = doublings
        self.correlation = TotalCorrelation(common + salient)
        self.classifier = nn.Linear(salient, 1)
        self.decoder: CodeDecoder

    def build(self, network: nn.Module, maps: Maps) -> None:
        """Make the heads and the decoder."""
        for name, width in zip(SPACES, self.widths, strict=True):
            self.add_head(name, maps, 2 * width)
        channels = input_channels(network)
        self.decoder = CodeDecoder(
            sum(self.widths), self.image_size, channels, width=self.width, doublings=self.doublings
        )

    def encode(self, extract: FeatureExtractor, images: Tensor) -> dict[str, Code]:
        r"""Distributions of both codes of views (B, V, C, \*S), (B V, D)."""
        pooled = self.pool(extract(images))
        result = {}
        for name in SPACES:
            values: Tensor = self.heads[name](pooled)
            mean, log_variance = (values if values.dtype == torch.float64 else values.float()).chunk(2, dim=1)
            result[name] = Code(mean, log_variance.clamp(*_LOG_VARIANCES))
        return result

    def decode(self, common: Tensor, salient: Tensor | None = None) -> Tensor:
        """Images of codes (N, C) and (N, S); without a salient code what they would be in the healthy."""
        salient = common.new_zeros(len(common), self.widths[1]) if salient is None else salient
        image: Tensor = self.decoder(torch.cat([common, salient], dim=1))
        return image

    def embed(self, extract: FeatureExtractor, batch: Mapping[str, Any]) -> Spaces:
        """Means of both codes."""
        images = views_of(batch, self.key).images
        codes = self.encode(extract, images)
        return Spaces(*(codes[name].mean.unflatten(0, images.shape[:2]) for name in SPACES))

    def forward(self, extract: FeatureExtractor, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of a batch of views.

        Returns:
            The loss; the parts of :class:`monai_cl.losses.SepVAELoss`; ``correlation`` and ``discriminator``, its loss
            (0.69 at chance); and ``embedding_std`` of the common means.

        Raises:
            ValueError: If the batch has no weak labels, or views have another size.
        """
        images = views_of(batch, self.key).images
        if tuple(images.shape[3:]) != self.image_size:
            raise ValueError(f"views must be of size {self.image_size}, got {tuple(images.shape[3:])}; set image_size")
        labels = of_batch(batch, self.label_key, images.device).repeat_interleave(images.shape[1])
        codes = self.encode(extract, images)
        common, drawn = (code.mean + (code.log_variance / 2).exp() * noise_like(code.mean) for code in codes.values())
        salient = drawn * (labels == 1)[:, None]
        terms = self.loss(
            self.decode(common, salient), images.flatten(0, 1), *codes["common"], *codes["salient"],
            self.classifier(codes["salient"].mean)[:, 0], labels,
        )  # fmt: skip
        correlation, discriminator = self.correlation(common, drawn, labels == 1)
        loss = terms.pop("loss") + self.correlation_weight * correlation + discriminator
        terms |= {"correlation": correlation, "discriminator": discriminator}
        signals = {name: value.detach() for name, value in terms.items()}
        return loss, signals | {"embedding_std": spread(codes["common"].mean)}

    def causes_of_collapse(self) -> list[str]:
        """Settings of this term under which codes become alike."""
        causes, weight = super().causes_of_collapse(), self.loss.weights["common_divergence"]
        if weight >= 0.01:
            causes.append(f"common_weight={weight:g}: the prior outweighs the restoration; try 0.0001")
        return causes


def noise_like(mean: Tensor) -> Tensor:
    """Standard normal noise of a code."""
    return torch.randn_like(mean)
