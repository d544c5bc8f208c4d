"""Parts of networks: encoder taps, projection heads, the momentum teacher."""

from typing import TYPE_CHECKING

from monai_cl._lazy import face

if TYPE_CHECKING:
    from monai_cl.networks.anatomix import AnatomixUNet as AnatomixUNet
    from monai_cl.networks.cross_attention import CrossAttentionAlign as CrossAttentionAlign
    from monai_cl.networks.decoders import (
        decoder_blocks as decoder_blocks,
        decoder_features as decoder_features,
        decoder_modules as decoder_modules,
    )
    from monai_cl.networks.encoders import (
        encoder_features as encoder_features,
        encoder_modules as encoder_modules,
        encoder_stride as encoder_stride,
        fixed_size as fixed_size,
        input_channels as input_channels,
        output_module as output_module,
        trial_size as trial_size,
    )
    from monai_cl.networks.features import Features as Features, network_features as network_features
    from monai_cl.networks.heads import (
        Projector as Projector,
        PrototypeHead as PrototypeHead,
        pool_pyramid as pool_pyramid,
        resized as resized,
    )
    from monai_cl.networks.modality_templates import ModalityTemplates as ModalityTemplates
    from monai_cl.networks.momentum import (
        MomentumTeacher as MomentumTeacher,
        cosine_momentum as cosine_momentum,
        scheduled_momentum as scheduled_momentum,
    )
    from monai_cl.networks.outputs import (
        check_segmenter as check_segmenter,
        lay_channels_last as lay_channels_last,
        segmenter as segmenter,
    )
    from monai_cl.networks.plain_decoder import PlainDecoder as PlainDecoder
    from monai_cl.networks.stu_net import STUNet as STUNet

__getattr__, __dir__, __all__ = face(__name__)
