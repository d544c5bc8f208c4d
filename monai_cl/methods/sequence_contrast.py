"""Sequence contrast: the same anatomy in two simulated MR sequences, as a pretraining method."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import nn

from monai_cl.methods.base import Method, used_weights
from monai_cl.methods.image_terms import InstanceTerm
from monai_cl.methods.map_terms import DenseTerm
from monai_cl.methods.restoration_terms import ReconstructionTerm
from monai_cl.methods.term import require_positive


class SequenceContrast(Method):
    r"""Learn anatomy instead of scanner settings, from two simulated contrasts of each crop.

    .. math::
        L = w_g\,L_{global}(p_1, p_2) + w_d\,L_{dense}(q_1, q_2) + w_r\,\frac{1}{2}\sum_v \lVert r_v - t_v \rVert_1

    with :math:`p_v` the projected, pooled features of the encoder for view :math:`v`, :math:`q_v` projected features
    of voxels and :math:`r_v` the target :math:`t_v` of view :math:`v` as restored from the features of the decoder, by
    one linear map in each voxel. The published loss adds the errors of both views, which is ``reconstruction_weight=2``
    here, where their mean is taken. A weight of 0 switches a term off, and with it what only that term needs. Takes the
    views of :class:`monai_cl.transforms.RandSequenceViewsd`: each view has its own geometry, and the source
    coordinates of its voxels match those that show the same place.

    Encoder and decoder of ``network`` learn together; only its last convolution, which knows classes, is exported
    as it was.

    Args:
        network: A MONAI encoder-decoder (see :func:`monai_cl.networks.network_features`).
        crop_size: Edge lengths of the views in voxels, or one for all axes.
        key: Key of the views in a batch.
        global_weight: Weight of the contrast of whole crops.
        dense_weight: Weight of the contrast of voxels.
        reconstruction_weight: Weight of the reconstruction.
        global_loss: Loss of two sets of embeddings, (B, D) twice; NT-Xent at temperature 0.5 when left out.
        dense_loss: Loss of two maps with coordinates and validity;
            :class:`monai_cl.losses.DenseContrastiveLoss` when left out.
        dense_on: Features that voxels are compared by: ``"decoder"``; ``"encoder"``: all its levels brought to the grid
            of the dense contrast and joined; or ``"all"``: these and the decoder, joined.
        dense_stride: Voxels of the view along an axis that are averaged to one of the dense contrast.
        target_channels: Channels of the targets of the reconstruction.
        pool_size: Cells an axis to which feature maps are averaged; see :func:`monai_cl.networks.pool_pyramid`.
        hidden: Width of the projector's hidden layers.
        embedding: Width of the embedding of a crop.
        dense_embedding: Width of the embedding of a voxel.
        norm: Normalisation in the projector: ``"batch"``, with the statistics of a process' batch, or ``"layer"``, with
            which any number of processes gives the same result, but all embeddings start out nearly alike.

    Raises:
        ValueError: If the network is unknown or cannot take ``crop_size``, or an option is out of range.

    References:
        Unified 3D MRI representations via sequence-invariant contrastive learning, arXiv 2501.12057, which has the
        global term and the reconstruction.
    """

    size_name = "crop_size"
    renamed: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "projector.": ("terms.global.projector.",),
        "dense_head.": ("terms.dense.head.",),
        "reconstruction_head.": ("terms.reconstruction.head.",),
    }

    def __init__(
        self,
        network: nn.Module,
        crop_size: int | Sequence[int],
        *,
        key: str = "image",
        global_weight: float = 1.0,
        dense_weight: float = 1.0,
        reconstruction_weight: float = 1.0,
        global_loss: nn.Module | None = None,
        dense_loss: nn.Module | None = None,
        dense_on: str = "decoder",
        dense_stride: int = 2,
        target_channels: int = 1,
        pool_size: int = 2,
        hidden: int = 512,
        embedding: int = 128,
        dense_embedding: int = 64,
        norm: str = "batch",
    ) -> None:
        weights = {"global": global_weight, "dense": dense_weight, "reconstruction": reconstruction_weight}
        used_weights(weights, weights, named="{}_weight")
        if dense_on not in ("decoder", "encoder", "all"):
            raise ValueError(f"dense_on must be 'decoder', 'encoder' or 'all', got {dense_on!r}")
        require_positive(dense_embedding=dense_embedding, dense_stride=dense_stride)
        whole = InstanceTerm(
            global_loss, key=key, pool_size=pool_size, hidden=hidden, embedding=embedding, norm=norm
        )  # fmt: skip
        dense = DenseTerm(
            dense_loss, key=key, on=dense_on, stride=dense_stride, embedding=dense_embedding, millimetres=True
        )  # fmt: skip
        super().__init__(
            network,
            {"global": whole, "dense": dense, "reconstruction": ReconstructionTerm(target_channels, key=key)},
            weights=weights,
            image_size=crop_size,
        )
