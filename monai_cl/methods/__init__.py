"""Pretraining methods: a network and terms. Named ones, one a file, and the terms they are made of."""

from typing import TYPE_CHECKING

from monai_cl._lazy import face

if TYPE_CHECKING:
    from monai_cl.methods.base import Method
    from monai_cl.methods.extraction import FeatureExtractor, Maps
    from monai_cl.methods.global_local_contrast import GlobalLocalContrast
    from monai_cl.methods.image_terms import InstanceTerm, PartitionTerm
    from monai_cl.methods.map_terms import DenseTerm, RegionTerm
    from monai_cl.methods.masked_reconstruction import MaskedReconstruction
    from monai_cl.methods.position_term import PositionTerm
    from monai_cl.methods.restoration_terms import MaskedReconstructionTerm, ReconstructionTerm
    from monai_cl.methods.sequence_contrast import SequenceContrast
    from monai_cl.methods.teacher import Teacher
    from monai_cl.methods.term import Term, views_of
    from monai_cl.methods.volume_contrast import VolumeContrast
    from monai_cl.methods.volume_dense_contrast import VolumeDenseContrast
    from monai_cl.methods.voxel_position import VoxelPosition
    from monai_cl.methods.voxel_position_term import VoxelPositionTerm

__all__ = [
    "DenseTerm",
    "FeatureExtractor",
    "GlobalLocalContrast",
    "InstanceTerm",
    "Maps",
    "MaskedReconstruction",
    "MaskedReconstructionTerm",
    "Method",
    "PartitionTerm",
    "PositionTerm",
    "ReconstructionTerm",
    "RegionTerm",
    "SequenceContrast",
    "Teacher",
    "Term",
    "VolumeContrast",
    "VolumeDenseContrast",
    "VoxelPosition",
    "VoxelPositionTerm",
    "views_of",
]

__getattr__, __dir__ = face(__name__)
