"""Parts of networks: encoder taps, projection heads, the momentum teacher."""

from typing import TYPE_CHECKING

from monai_cl._lazy import face

if TYPE_CHECKING:
    from monai_cl.networks.decoders import decoder_blocks, decoder_features, decoder_modules
    from monai_cl.networks.encoders import (
        encoder_features,
        encoder_modules,
        encoder_stride,
        input_channels,
        output_module,
    )
    from monai_cl.networks.features import Features, network_features
    from monai_cl.networks.heads import Projector, pool_pyramid, resized
    from monai_cl.networks.momentum import MomentumTeacher, cosine_momentum, scheduled_momentum
    from monai_cl.networks.outputs import check_segmenter, segmenter

__all__ = [
    "Features",
    "MomentumTeacher",
    "Projector",
    "check_segmenter",
    "cosine_momentum",
    "decoder_blocks",
    "decoder_features",
    "decoder_modules",
    "encoder_features",
    "encoder_modules",
    "encoder_stride",
    "input_channels",
    "network_features",
    "output_module",
    "pool_pyramid",
    "resized",
    "scheduled_momentum",
    "segmenter",
]

__getattr__, __dir__ = face(__name__)
