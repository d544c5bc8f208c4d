"""Term of several sites: images of one label are drawn together where they come from different sites."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from monai_cl.losses import CrossDomainSupConLoss
from monai_cl.methods._embedding_health import ENOUGH, EmbeddingHealth
from monai_cl.methods.extraction import FeatureExtractor
from monai_cl.methods.image_terms import ImageTerm, spread
from monai_cl.methods.term import of_batch
from monai_cl.metrics import DomainLeakage, LinearProbeMetric

FOLDS = 3  # of the linear probes


class CrossDomainTerm(ImageTerm):
    r"""Contrast of images by label across sites: an encoder that knows the disease and not the scanner.

    Views (B, V, C, \*S) of images with a label and a site each; the views of all go as rows into
    :class:`monai_cl.losses.CrossDomainSupConLoss`. Views of one image share label and site and neither attract nor
    repel each other, so beside :class:`InstanceTerm` each term does what the other leaves out: labels alone let all
    images of a label become one point.

    Args:
        loss: Loss of rows (N, D), labels and domains (N,); by default that of all processes, with labels of which the
            batch holds one site alone left out and counted.
        label_key: Key of the label of each image in a batch, whole numbers.
        domain_key: Key of its site, as from :func:`monai_cl.data.with_domains`.
        temperature: Of the default loss.
        options: Options of :class:`ImageTerm`.

    Raises:
        ValueError: If an option is out of range.

    References:
        MammoDG, arXiv 2308.01057, in our reading: no code is public.
    """

    def __init__(
        self,
        loss: CrossDomainSupConLoss | None = None,
        *,
        label_key: str = "patient",
        domain_key: str = "domain",
        temperature: float = 0.1,
        **options: Any,
    ) -> None:
        given = CrossDomainSupConLoss(temperature, gather=True, fallback="skip") if loss is None else loss
        super().__init__(given, **options)
        self.label_key = label_key
        self.domain_key = domain_key

    def _marks(self, batch: Mapping[str, Any], device: torch.device) -> tuple[Tensor, Tensor]:
        return of_batch(batch, self.label_key, device).long(), of_batch(batch, self.domain_key, device).long()

    def forward(self, extract: FeatureExtractor, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of a batch of views.

        Returns:
            The loss; ``skipped``, the share of views without a positive from another site, and ``across_std``, the
            spread of the embeddings (near 1 when they fill the sphere, 0 when they have collapsed).

        Raises:
            ValueError: If the batch lacks labels or sites.
        """
        z = self.embed(extract, batch)
        labels, domains = (mark.repeat_interleave(z.shape[1]) for mark in self._marks(batch, z.device))
        rows = z.flatten(0, 1)
        loss: Tensor = self.loss(rows, labels, domains)
        left_out = getattr(self.loss, "skipped", None)
        skipped = torch.zeros_like(loss) if left_out is None else left_out.to(loss) / len(rows)
        return loss, {"skipped": skipped.detach(), "across_std": spread(rows)}

    def probe(self, extract: FeatureExtractor, batch: Mapping[str, Any]) -> Any:
        """Embeddings of the views, labels and sites."""
        z = self.embed(extract, batch)
        return z, self._marks(batch, z.device)

    def summary(self, records: Sequence[Any]) -> Mapping[str, float | Tensor]:
        """Health of the embeddings, and what they know of site and label.

        Returns:
            ``alignment`` and, of enough images, ``uniformity``, ``effective_rank`` and ``dead_dimensions``;
            ``domain_leakage``, 1 when each image gives its site away and about 0 when none does, see
            :func:`monai_cl.metrics.domain_leakage`; and ``label_accuracy`` of a linear probe. Probes are left out where
            a site or a label has no more images than the probe has folds.
        """
        health = EmbeddingHealth(fewest=ENOUGH)
        probes = {"label_accuracy": LinearProbeMetric(FOLDS), "domain_leakage": DomainLeakage(FOLDS)}
        for z, marks in records:
            health(z[:, 0], z[:, -1], rows=z.flatten(0, 1))
            for probe, mark in zip(probes.values(), marks, strict=True):
                probe(z[:, 0], mark)
        result = {name: float(value) for name, value in health.values().items()}
        for name, probe in probes.items():
            counts = probe.gathered()[1].unique(return_counts=True)[1]  # of all processes
            if len(counts) > 1 and int(counts.min()) > FOLDS:
                result[name] = float(probe.aggregate())
        return result

    def causes_of_collapse(self) -> list[str]:
        """Settings of this term under which embeddings become alike."""
        return [
            *super().causes_of_collapse(),
            "labels alone draw all images of a label to one point; give the contrast of views (instance_weight) more",
        ]
