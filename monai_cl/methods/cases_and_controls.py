"""Pretraining on healthy and patients, separated by a weak label alone."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from monai_cl.losses import SepCLRLoss
from monai_cl.methods.base import Method
from monai_cl.methods.case_control_term import CaseControlTerm


class CasesAndControls(Method):
    r"""Learn what healthy and patients have in common, and what patients alone have, in two spaces.

    The loss is that of :class:`monai_cl.losses.SepCLRLoss` on two heads beside the encoder, see
    :class:`CaseControlTerm`; the decoder is exported unchanged. The weak label marks a whole volume as healthy or as
    of a patient; kinds of disease are not labelled, and the salient space may still come apart by them.

    Args:
        network: The network that will be fine-tuned.
        crop_size: Edge lengths of a view in voxels, or one for all axes; checked against the network here.
        salient_weight: Weight :math:`\beta_s` of the contrast of patients in the salient space.
        information_less_weight: Weight :math:`\beta_r` of the salient embeddings of the healthy, which go to 0.
        joint_entropy_weight: Weight :math:`\lambda` of the joint entropy: with a larger one the common space holds
            less of the disease, and in the end less of what is common.
        temperature: Of all kernels.
        options: Options of :class:`CaseControlTerm`.

    Raises:
        ValueError: If the network is unknown or cannot take ``crop_size``, or an option is out of range.

    References:
        Separating common from salient patterns with contrastive representation learning (SepCLR), arXiv 2402.11928.
    """

    size_name = "crop_size"

    def __init__(
        self,
        network: nn.Module,
        crop_size: int | Sequence[int],
        *,
        salient_weight: float = 1.0,
        information_less_weight: float = 10.0,
        joint_entropy_weight: float = 10.0,
        temperature: float = 0.5,
        **options: Any,
    ) -> None:
        loss = SepCLRLoss(
            salient_weight, information_less_weight, joint_entropy_weight, temperature=temperature, gather=True
        )
        super().__init__(network, {"separation": CaseControlTerm(loss, **options)}, image_size=crop_size)
