"""Pretraining methods, one a file."""

from typing import TYPE_CHECKING

from monai_cl._lazy import face

if TYPE_CHECKING:
    from monai_cl.methods.base import Method
    from monai_cl.methods.global_local_contrast import GlobalLocalContrast
    from monai_cl.methods.masked_reconstruction import MaskedReconstruction
    from monai_cl.methods.sequence_contrast import SequenceContrast
    from monai_cl.methods.volume_contrast import VolumeContrast
    from monai_cl.methods.volume_dense_contrast import VolumeDenseContrast
    from monai_cl.methods.voxel_position import VoxelPosition

__all__ = [
    "GlobalLocalContrast",
    "MaskedReconstruction",
    "Method",
    "SequenceContrast",
    "VolumeContrast",
    "VolumeDenseContrast",
    "VoxelPosition",
]

__getattr__, __dir__ = face(__name__)
