"""Pretraining methods: a network and terms. Named ones, one a file, and the terms they are made of."""

from typing import TYPE_CHECKING

from monai_cl._lazy import face

if TYPE_CHECKING:
    from monai_cl.methods.anatomical_invariance import AnatomicalInvariance as AnatomicalInvariance
    from monai_cl.methods.base import Method as Method
    from monai_cl.methods.case_control_term import CaseControlTerm as CaseControlTerm
    from monai_cl.methods.cases_and_controls import CasesAndControls as CasesAndControls
    from monai_cl.methods.cross_modal_terms import (
        CrossModalTerm as CrossModalTerm,
        SequenceContrastTerm as SequenceContrastTerm,
    )
    from monai_cl.methods.distillation_term import AlignedDistillationTerm as AlignedDistillationTerm
    from monai_cl.methods.domain_term import CrossDomainTerm as CrossDomainTerm
    from monai_cl.methods.extraction import FeatureExtractor as FeatureExtractor, Maps as Maps
    from monai_cl.methods.global_local_contrast import GlobalLocalContrast as GlobalLocalContrast
    from monai_cl.methods.image_terms import InstanceTerm as InstanceTerm, PartitionTerm as PartitionTerm
    from monai_cl.methods.label_term import LabelTerm as LabelTerm, draw_by_label as draw_by_label
    from monai_cl.methods.map_terms import DenseTerm as DenseTerm, RegionTerm as RegionTerm
    from monai_cl.methods.mask_curriculum import MaskCurriculum as MaskCurriculum, attention_of as attention_of
    from monai_cl.methods.masked_reconstruction import MaskedReconstruction as MaskedReconstruction
    from monai_cl.methods.masked_views import (
        ColumnMask as ColumnMask,
        MaskedViewTerm as MaskedViewTerm,
        column_mask as column_mask,
    )
    from monai_cl.methods.missing_sequences import MissingSequences as MissingSequences
    from monai_cl.methods.position_term import PositionTerm as PositionTerm
    from monai_cl.methods.restoration_terms import (
        MaskedReconstructionTerm as MaskedReconstructionTerm,
        ReconstructionTerm as ReconstructionTerm,
    )
    from monai_cl.methods.separate_vae_term import SeparateVAETerm as SeparateVAETerm
    from monai_cl.methods.sequence_contrast import SequenceContrast as SequenceContrast
    from monai_cl.methods.teacher import Teacher as Teacher
    from monai_cl.methods.term import Term as Term, views_of as views_of
    from monai_cl.methods.two_spaces import Spaces as Spaces, TwoSpaceTerm as TwoSpaceTerm
    from monai_cl.methods.volume_contrast import VolumeContrast as VolumeContrast
    from monai_cl.methods.volume_dense_contrast import VolumeDenseContrast as VolumeDenseContrast
    from monai_cl.methods.voxel_position import VoxelPosition as VoxelPosition, VoxelPositionTerm as VoxelPositionTerm

__getattr__, __dir__, __all__ = face(__name__)
