"""Terms of two views of one series, in which blocks of a template or of another sequence stand in for its own."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monai_cl.losses import SymmetricInfoNCELoss
from monai_cl.methods._dense_maps import pointwise
from monai_cl.methods._embedding_health import ENOUGH, EmbeddingHealth
from monai_cl.methods.extraction import FeatureExtractor, Maps
from monai_cl.methods.term import Term, Views, views_of
from monai_cl.networks import PlainDecoder, encoder_stride, pool_pyramid, resized

_HEALTH_CELLS = 2  # cells an axis to which the coarsest map is averaged where its health is looked at


class CrossModalTerm(Term):
    r"""Restoration of one series from two views of it, of which most blocks are a template's or another sequence's.

    .. math:: L = w_1\,\mathrm{MSE}(r(f(v_1)), x) + w_2\,\mathrm{MSE}(r(f(v_2)), x)

    over all voxels, with :math:`v_1` the view with the template, :math:`v_2` that with the other sequence.

    Args:
        weights: Weights :math:`w_1` and :math:`w_2` of the two views.
        skips: Restore from the decoder of the network, with its skip connections, by one linear map in each voxel, so
            that the decoder is pretrained too. Without, from the coarsest map of the encoder alone, by a decoder that
            is not exported, as published.
        key: Key of the views (B, 2, C, \*S) in a batch, which have the series as target (B, 2, C, \*S).

    Raises:
        ValueError: If a weight is negative or none is above 0; while running, if targets are missing or views are
            not two.

    References:
        BrainMVP, arXiv 2410.10604, with weights 10 and 1.
    """

    def __init__(self, weights: Sequence[float] = (10.0, 1.0), *, skips: bool = False, key: str = "image") -> None:
        super().__init__()
        if len(weights) != 2 or min(weights) < 0 or not 0 < sum(weights) < float("inf"):
            raise ValueError(f"weights must be two numbers of at least 0, one of them above, got {tuple(weights)}")
        self.view_weights = (float(weights[0]), float(weights[1]))
        self.skips = skips
        self.key = key
        self.needs = frozenset({"decoder"}) if skips else frozenset({"deepest"})
        self.head: nn.Module

    def build(self, network: nn.Module, maps: Maps) -> None:
        """Make the linear map, or the decoder without skip connections."""
        if self.skips:
            self.head = pointwise(maps.decoder.ndim - 2, maps.decoder.shape[1], 1)
            return
        deepest = maps.encoder[-1]
        dims = deepest.ndim - 2
        self.head = PlainDecoder(dims, deepest.shape[1], encoder_stride(network, dims), 1)

    def forward(self, extract: FeatureExtractor, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Weighted error, and that of each view before it is weighted: ``from_template``, ``from_donor``."""
        views = views_of(batch, self.key)
        if views.target is None or views.images.shape[1] != 2:
            raise ValueError(
                f"a batch must hold 'target' beside two views under {self.key!r}, got {views.images.shape[1]} views "
                f"and {'no' if views.target is None else 'a'} target; make them with MissingSequences"
            )
        maps = extract(views.images)
        restored = self.head(maps.decoder if self.skips else maps.encoder[-1])
        target = views.target.flatten(0, 1).float()
        # the decoder of some networks ends below the size of the image
        restored = resized(restored, target.shape[2:]).float().unflatten(0, views.images.shape[:2])
        first, second = (F.mse_loss(restored[:, view], views.target[:, view].float()) for view in range(2))
        loss = self.view_weights[0] * first + self.view_weights[1] * second
        return loss, {"from_template": first.detach(), "from_donor": second.detach()}

    def probe(self, extract: FeatureExtractor, batch: Mapping[str, Any]) -> Any:
        """Errors of a batch."""
        return self(extract, batch)[1]

    def summary(self, records: Sequence[Any]) -> Mapping[str, float | Tensor]:
        """Mean errors of both views."""
        return {name: float(torch.stack([one[name] for one in records]).mean()) for name in records[0]}


class SequenceContrastTerm(Term):
    r"""Contrast of the coarsest maps of two views of one series, from a stage of the run on.

    .. math:: L = \mathrm{InfoNCE}(z(v_1), z(v_2))

    with :math:`z` all values of the coarsest map in one row, without a projector; see
    :class:`monai_cl.losses.SymmetricInfoNCELoss`. Until its stage the term is 0.

    Args:
        loss: Loss of two sets of embeddings (B, D); symmetric InfoNCE at temperature 1 when left out.
        start: Share of the run after which it sets in. Before the templates have learnt something, view 1 of every
            patient shows the same, and the contrast would be of noise.
        key: Key of the views (B, 2, C, \*S) in a batch.

    Raises:
        ValueError: If ``start`` is not in [0, 1]; while running, with a single image.

    References:
        BrainMVP, arXiv 2410.10604, from two thirds of the run on.
    """

    needs = frozenset({"deepest"})
    progress: Tensor

    def __init__(self, loss: nn.Module | None = None, *, start: float = 2 / 3, key: str = "image") -> None:
        super().__init__()
        if not 0 <= start <= 1:
            raise ValueError(f"start must be a share of the run between 0 and 1, got {start!r}")
        self.loss = SymmetricInfoNCELoss() if loss is None else loss
        self.start = start
        self.key = key
        self.register_buffer("progress", torch.zeros(()))

    def after_step(self, progress: float) -> None:
        """Note the share of the run that is done."""
        self.progress.fill_(progress)

    def forward(self, extract: FeatureExtractor, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of a batch of pairs of views, 0 before the term's stage."""
        views = views_of(batch, self.key)
        if float(self.progress) < self.start:
            return torch.zeros((), device=views.images.device), {}
        deepest = self._deepest(extract, views)
        gathered = bool(getattr(self.loss, "gather", False))
        if len(deepest) < 2 and not (gathered and torch.distributed.is_initialized()):
            raise ValueError("contrast needs at least two series in a batch, got 1; use batch_size 2")
        return self.loss(*(deepest[:, view].flatten(1) for view in range(2))), {}

    def _deepest(self, extract: FeatureExtractor, views: Views) -> Tensor:
        """Coarsest maps (B, V, C, *s)."""
        maps: Tensor = extract(views.images).encoder[-1].unflatten(0, views.images.shape[:2])
        return maps

    def probe(self, extract: FeatureExtractor, batch: Mapping[str, Any]) -> Any:
        """Embeddings of both views, averaged to a few cells."""
        deepest = self._deepest(extract, views_of(batch, self.key))
        return [pool_pyramid([deepest[:, view]], _HEALTH_CELLS) for view in range(2)]

    def summary(self, records: Sequence[Any]) -> Mapping[str, float | Tensor]:
        """Health of the embeddings, about their mean: without a projector all of them share a direction."""
        first, second = (torch.cat([record[view] for record in records]).float() for view in range(2))
        mean = torch.cat([first, second]).mean(0)
        health = EmbeddingHealth(fewest=ENOUGH)
        health(first - mean, second - mean, rows=torch.cat([first, second]) - mean)
        return {name: float(value) for name, value in health.values().items()}

    def causes_of_collapse(self) -> list[str]:
        """Settings of this term under which embeddings become alike."""
        if self.start > 0:
            return []
        return ["contrast_start=0: templates are still empty, and views of all patients alike; begin later"]
