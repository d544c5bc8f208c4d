"""Anatomical invariance: the same anatomy of two patients gets one answer, and hidden columns are restored."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from monai_cl.methods.base import Method
from monai_cl.methods.distillation_term import AlignedDistillationTerm
from monai_cl.methods.masked_views import ColumnMask, MaskedViewTerm
from monai_cl.methods.teacher import Teacher


class AnatomicalInvariance(Method):
    r"""Let crops of the same anatomy in two patients get the answers of a teacher, and restore what was hidden of them.

    .. math:: L = w_a (L_1 + L_2) + w_r L_3

    with :math:`L_1`, across patients, and :math:`L_2`, within a view, of :class:`monai_cl.losses.SelfDistillationLoss`,
    and :math:`L_3` of :class:`monai_cl.methods.MaskedViewTerm`. Whole columns of the student's views are hidden; the
    teacher, which follows the network, its alignment and its head, sees them whole. Pairs come from
    :class:`monai_cl.data.AnatomicalPairs`.

    Args:
        network: A MONAI encoder-decoder (see :func:`monai_cl.networks.network_features`).
        patch_size: Edge lengths of the views in voxels, or one for all axes; checked against the network here.
        key: Key of the views (B, 2, C, \*S) in a batch.
        mask_ratio: Share of the columns that is hidden, rounded up.
        columns: Columns along each axis but the last.
        mask: A mask of one's own in place of these.
        alignment_weight: :math:`w_a`.
        reconstruction_weight: :math:`w_r`.
        momentum: Of the teacher at the start, rising to 1 along a half cosine.
        gather: Take means and centres of the loss over all processes.
        loss: Further options of the loss.
        **options: Further options of :class:`monai_cl.methods.AlignedDistillationTerm`.

    Raises:
        ValueError: If the network is unknown or cannot take ``patch_size``, or an option is out of range.

    References:
        Alice, Jiang et al. 2023 (ICCV), with a convolutional network in place of its transformer and pairs of our own.
    """

    size_name = "patch_size"

    def __init__(
        self,
        network: nn.Module,
        patch_size: int | Sequence[int],
        *,
        key: str = "image",
        mask_ratio: float = 0.75,
        columns: int = 4,
        mask: nn.Module | None = None,
        alignment_weight: float = 1.0,
        reconstruction_weight: float = 10.0,
        momentum: float = 0.996,
        gather: bool = True,
        loss: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        hiding = ColumnMask(mask_ratio, columns) if mask is None else mask
        alignment = AlignedDistillationTerm(hiding, key=key, loss={"gather": gather, **(loss or {})}, **options)
        super().__init__(
            network,
            {"alignment": alignment, "reconstruction": MaskedViewTerm(hiding, key=key)},
            weights={"alignment": alignment_weight, "reconstruction": reconstruction_weight},
            teacher=Teacher(momentum=momentum) if alignment_weight > 0 else None,
            image_size={key: patch_size},
        )
