"""Parts of networks: encoder taps, projection heads, the momentum teacher."""

from monai_cl.networks.encoders import encoder_features, encoder_modules, encoder_stride, input_channels
from monai_cl.networks.heads import Projector, pool_pyramid
from monai_cl.networks.momentum import MomentumTeacher, cosine_momentum, scheduled_momentum

__all__ = [
    "MomentumTeacher",
    "Projector",
    "cosine_momentum",
    "encoder_features",
    "encoder_modules",
    "encoder_stride",
    "input_channels",
    "pool_pyramid",
    "scheduled_momentum",
]
