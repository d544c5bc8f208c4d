"""Restoration across sequences with templates, for MR studies of which each has other sequences."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from monai.utils import evenly_divisible_all_gather
from torch import Tensor, nn

from monai_cl.losses import SymmetricInfoNCELoss
from monai_cl.methods.base import Method
from monai_cl.methods.cross_modal_terms import CrossModalTerm, SequenceContrastTerm
from monai_cl.networks import ModalityTemplates
from monai_cl.transforms.block_replace import BlockReplace, kept_blocks, replace_blocks

_NEEDED = ("target", "donor", "has_donor", "sequence", "place")


class MissingSequences(Method):
    r"""Restore a series of which one block in five is left, the others being those of a template or another sequence.

    .. math::
        L = 10\,\mathrm{MSE}(r(f(v_1)), x) + \mathrm{MSE}(r(f(v_2)), x) + w_c\,\mathrm{InfoNCE}(z(v_1), z(v_2))

    with :math:`v_1 = m \odot x + (1 - m) \odot t` and :math:`v_2 = m' \odot x + (1 - m') \odot d`: a series :math:`x`,
    a mask by blocks :math:`m`, the template :math:`t` of its sequence at the place of the crop and a crop :math:`d` of
    another, differently named sequence of the same study. Where a study has no other sequence, and for all studies in
    the first stage of a run, the template takes its place. One network of one channel learns from all sequences, and a
    study may lack any of them.

    A template is the mean of what came of its sequence before this step, at the same place, over all processes; or it
    learns with the network (:class:`monai_cl.networks.ModalityTemplates` on both rules).

    Args:
        network: A MONAI encoder-decoder of one input channel (see :func:`monai_cl.networks.encoder_features`).
        sequences: Names of the sequences, each of which has a template; as given to
            :class:`monai_cl.transforms.RandStudyViewsd`, which makes the views.
        crop_size: Edge lengths of the crops in voxels, or one for all axes.
        template_size: Edge lengths of the templates in voxels.
        key: Key of the views in a batch.
        mask_rate: Share of the blocks that is replaced.
        block: Edge length of a block in voxels.
        skips: Restore with the decoder of the network, which is then pretrained too; see :class:`CrossModalTerm`.
        view_weights: Weights of the two errors.
        contrast_weight: Weight :math:`w_c`; 0 switches the contrast off.
        contrast_start: Share of the run after which the contrast sets in.
        temperature: Of the contrast.
        gather: Contrast with the series of all processes.
        donor_start: Share of the run, at its start, in which templates stand in for other sequences, too.
        template_rule: As ``rule`` of the templates: ``"mean"``, or ``"gradient"`` as published.
        template_gain: As ``gain`` of the templates.
        normalise_templates: As ``normalise`` of the templates.
        max_mib: As of the templates.

    Raises:
        ValueError: If the network is unknown or cannot take ``crop_size``, or an option is out of range; while running,
            if the batch lacks something.

    References:
        BrainMVP, arXiv 2410.10604. Written from its formulas. Differences: a series is drawn for each study of a
        batch, not one sequence for the batch; masks of the two views are drawn apart; templates are means, with the
        intensities of the images.
    """

    size_name = "crop_size"
    progress: Tensor

    def __init__(
        self,
        network: nn.Module,
        sequences: Sequence[str],
        crop_size: int | Sequence[int],
        *,
        template_size: Sequence[int],
        key: str = "image",
        mask_rate: float = 0.8,
        block: int = 8,
        skips: bool = False,
        view_weights: Sequence[float] = (10.0, 1.0),
        contrast_weight: float = 1.0,
        contrast_start: float = 2 / 3,
        temperature: float = 1.0,
        gather: bool = True,
        donor_start: float = 0.2,
        template_rule: str = "mean",
        template_gain: float = 10.0,
        normalise_templates: bool = False,
        max_mib: float = 1024.0,
    ) -> None:
        if not 0 <= donor_start <= 1:
            raise ValueError(f"donor_start must be a share of the run between 0 and 1, got {donor_start!r}")
        BlockReplace(mask_rate, block)  # refuses what is out of range
        contrast = SequenceContrastTerm(SymmetricInfoNCELoss(temperature, gather), start=contrast_start, key=key)
        super().__init__(
            network,
            {"reconstruction": CrossModalTerm(view_weights, skips=skips, key=key), "contrast": contrast},
            weights={"reconstruction": 1.0, "contrast": contrast_weight},
            image_size=crop_size,
        )
        self.key = key
        self.mask_rate = mask_rate
        self.block = block
        self.donor_start = donor_start
        self.templates = ModalityTemplates(
            sequences, template_size, rule=template_rule, gain=template_gain, normalise=normalise_templates,
            max_mib=max_mib,
        )  # fmt: skip
        self.register_buffer("progress", torch.zeros(()))

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Losses of a batch of :class:`monai_cl.transforms.RandStudyViewsd`.

        Returns:
            ``loss``; ``reconstruction`` and ``contrast``, the terms before they are weighted; ``from_template`` and
            ``from_donor``, the errors of the views; ``with_donor``, the share of studies with another sequence.
        """
        result = super().forward(self.with_views(batch))
        if self.templates.training:
            self._observe(batch[self.key])  # after the views are made: nothing is restored from itself
        return {**result, "with_donor": batch[self.key]["has_donor"].float().mean()}

    def probe(self, batches: Iterable[dict[str, Any]]) -> Mapping[str, float | Tensor]:
        """Errors and health on batches that are not trained on; blocks are the same each time, donors always used."""
        return super().probe(self.with_views(batch, probing=True) for batch in batches)

    def after_step(self, progress: float) -> None:
        """Move to the stage of the run."""
        super().after_step(progress)
        self.progress.fill_(progress)

    def with_views(self, batch: Mapping[str, Any], *, probing: bool = False) -> dict[str, Any]:
        """The batch with two views of each series under the key, and the series as their target.

        Raises:
            ValueError: If the batch lacks what they are made of, or a sequence has no template.
        """
        given = batch.get(self.key)
        missing = [name for name in _NEEDED if not isinstance(given, Mapping) or name not in given]
        if missing or given is None:
            raise ValueError(
                f"a batch must hold {', '.join(map(repr, missing))} under {self.key!r}, got {sorted(map(str, batch))}; "
                "make them with RandStudyViewsd"
            )
        target: Tensor = given["target"]
        template = self._template(given, target)
        others = given["has_donor"].bool()
        if not probing and float(self.progress) < self.donor_start:
            others = torch.zeros_like(others)
        others = others.reshape(-1, *[1] * (target.ndim - 1))
        donor = torch.where(others, given["donor"].to(target), template)
        twice = target.repeat(2, *[1] * (target.ndim - 1))
        made = replace_blocks(twice, torch.cat([template, donor]), self._kept(twice, probing=probing))
        views = torch.stack(made.chunk(2), 1)  # b, view, channel, voxels
        return {**batch, self.key: {"views": views, "target": torch.stack([target, target], 1)}}

    def _observe(self, given: Mapping[str, Any]) -> None:
        if self.templates.seen is None:
            return
        parts = [given[name].detach() for name in ("target", "sequence", "place")]
        self.templates.observe(*(evenly_divisible_all_gather(part) for part in parts))  # of all processes

    def _template(self, given: Mapping[str, Any], target: Tensor) -> Tensor:
        last = int(given["sequence"].max())
        if last >= len(self.templates.sequences):
            raise ValueError(
                f"sequences of a batch must be numbers below {len(self.templates.sequences)}, got {last}; give "
                "RandStudyViewsd and the method the same sequences"
            )
        result: Tensor = self.templates(given["sequence"], given["place"], target.shape[2:])
        return result.to(target)

    def _kept(self, images: Tensor, *, probing: bool) -> Tensor:
        generator = torch.Generator(images.device).manual_seed(0) if probing else None
        return kept_blocks(
            images.shape, spatial_dims=images.ndim - 2, mask_rate=self.mask_rate, block=self.block,
            device=images.device, generator=generator,
        )  # fmt: skip

    def causes_of_collapse(self) -> list[str]:
        """Settings under which embeddings become alike, likeliest first."""
        causes = super().causes_of_collapse()
        if self.mask_rate > 0.95:
            causes.append(f"mask_rate={self.mask_rate:g}: next to nothing of a patient is left in a view; use 0.8")
        return causes
