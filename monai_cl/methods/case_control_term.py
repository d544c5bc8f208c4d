"""Term of healthy and patients: contrast in a common and in a salient space."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from monai_cl.losses import SepCLRLoss
from monai_cl.methods.extraction import FeatureExtractor, Maps
from monai_cl.methods.image_terms import spread
from monai_cl.methods.term import of_batch, require_positive, views_of
from monai_cl.methods.two_spaces import SPACES, Spaces, TwoSpaceTerm


class CaseControlTerm(TwoSpaceTerm):
    r"""Contrast of healthy and patients in a common and a salient space.

    Views (B, 2, C, \*S) go through the encoder; its pooled maps through two heads, each linear, batch norm, ReLU,
    linear; the embeddings into :class:`monai_cl.losses.SepCLRLoss`. A batch holds ``label_key`` of each volume, 0
    (healthy) or 1 (patient), as from :func:`monai_cl.data.weak_labels`.

    Args:
        loss: Loss of the two views in both spaces; SepCLR with the weights 1, 10 and 10 when left out.
        common: Width of the common space.
        salient: Width of the salient space.
        options: Options of :class:`TwoSpaceTerm`.

    Raises:
        ValueError: If an option is out of range.

    References:
        Separating common from salient patterns with contrastive representation learning (SepCLR), arXiv 2402.11928.
    """

    def __init__(self, loss: SepCLRLoss | None = None, *, common: int = 32, salient: int = 32, **options: Any) -> None:
        super().__init__(**options)
        require_positive(common=common, salient=salient)
        self.loss = SepCLRLoss(gather=True) if loss is None else loss
        self.widths = (common, salient)

    def build(self, network: nn.Module, maps: Maps) -> None:
        """Make the two heads."""
        for name, width in zip(SPACES, self.widths, strict=True):
            self.add_head(name, maps, width)

    def embed(self, extract: FeatureExtractor, batch: Mapping[str, Any]) -> Spaces:
        """Embeddings of the views in both spaces."""
        images = views_of(batch, self.key).images
        pooled = self.pool(extract(images))
        return Spaces(*(self.heads[name](pooled).unflatten(0, images.shape[:2]) for name in SPACES))

    def forward(self, extract: FeatureExtractor, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of a batch of pairs of views.

        Returns:
            The loss; its parts ``common``, ``salient``, ``information_less`` and ``joint_entropy``; ``patients`` and
            ``missing`` of the batch; ``embedding_std`` of the common space (near 1 when embeddings fill the sphere, 0
            when they have collapsed) and ``salient_length``, that of the salient embeddings of patients.

        Raises:
            ValueError: If the batch has no weak labels, or not two views of each volume.
        """
        labels = of_batch(batch, self.label_key, views_of(batch, self.key).images.device)
        result = self.embed(extract, batch)
        if result.common.shape[1] != 2:
            raise ValueError(f"pairs of views are contrasted, got {result.common.shape[1]} of each; set num_views to 2")
        terms = self.loss(*result.common.unbind(1), *result.salient.unbind(1), labels)
        loss = terms.pop("loss")
        with torch.no_grad():
            length = result.salient.float().norm(dim=2).mean(1)[labels == 1]
            signals = {
                "embedding_std": spread(result.common.flatten(0, 1)),
                "salient_length": length.sum() / max(len(length), 1),
            }
        return loss, {name: value.detach().float() for name, value in terms.items()} | signals

    def causes_of_collapse(self) -> list[str]:
        """Settings of this term under which embeddings become alike."""
        causes, weight = super().causes_of_collapse(), self.loss.weights["information_less"]
        if weight >= 100 * self.loss.weights["common"]:
            causes.append(f"information_less_weight={weight:g}: it may drown the contrast of the common space; try 10")
        return causes
