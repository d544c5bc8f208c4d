"""Losses: tensors in, scalars out, float32 inside."""

from monai_cl.losses._checks import NonFiniteError
from monai_cl.losses.attribute import AttributeLoss
from monai_cl.losses.cacr import CACRLoss
from monai_cl.losses.class_contrast import ClassContrastiveLoss
from monai_cl.losses.cross_domain import CrossDomainSupConLoss
from monai_cl.losses.cross_volume_local import CrossVolumeLocalContrastiveLoss
from monai_cl.losses.dense import DenseContrastiveLoss
from monai_cl.losses.image_text import ClipLoss, SigLipLoss
from monai_cl.losses.info_nce import SymmetricInfoNCELoss
from monai_cl.losses.joint_entropy import KernelJointEntropyLoss
from monai_cl.losses.kernel_info_nce import KernelInfoNCELoss
from monai_cl.losses.local_region import LocalRegionContrastiveLoss
from monai_cl.losses.mean_shifted import MeanShiftedContrastiveLoss
from monai_cl.losses.nt_xent import DecoupledContrastiveLoss, NTXentLoss
from monai_cl.losses.partition_contrast import PartitionContrastiveLoss
from monai_cl.losses.self_distillation import SelfDistillationLoss
from monai_cl.losses.sep_clr import SepCLRLoss
from monai_cl.losses.sep_vae import SepVAELoss
from monai_cl.losses.sup_con import PositionalContrastiveLoss, SupConLoss
from monai_cl.losses.vicreg import VICRegLoss
from monai_cl.losses.volume_contrast import VolumeContrastLoss

__all__ = [
    "AttributeLoss",
    "CACRLoss",
    "ClassContrastiveLoss",
    "ClipLoss",
    "CrossDomainSupConLoss",
    "CrossVolumeLocalContrastiveLoss",
    "DecoupledContrastiveLoss",
    "DenseContrastiveLoss",
    "KernelInfoNCELoss",
    "KernelJointEntropyLoss",
    "LocalRegionContrastiveLoss",
    "MeanShiftedContrastiveLoss",
    "NTXentLoss",
    "NonFiniteError",
    "PartitionContrastiveLoss",
    "PositionalContrastiveLoss",
    "SelfDistillationLoss",
    "SepCLRLoss",
    "SepVAELoss",
    "SigLipLoss",
    "SupConLoss",
    "SymmetricInfoNCELoss",
    "VICRegLoss",
    "VolumeContrastLoss",
]
