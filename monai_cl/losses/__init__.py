"""Losses: tensors in, scalars out, float32 inside."""

from monai_cl.losses._checks import NonFiniteError
from monai_cl.losses.attribute import AttributeLoss
from monai_cl.losses.class_contrast import ClassContrastiveLoss
from monai_cl.losses.cross_domain import CrossDomainSupConLoss
from monai_cl.losses.cross_volume_local import CrossVolumeLocalContrastiveLoss
from monai_cl.losses.dense import DenseContrastiveLoss
from monai_cl.losses.info_nce import SymmetricInfoNCELoss
from monai_cl.losses.joint_entropy import KernelJointEntropyLoss
from monai_cl.losses.local_region import LocalRegionContrastiveLoss
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
    "ClassContrastiveLoss",
    "CrossDomainSupConLoss",
    "CrossVolumeLocalContrastiveLoss",
    "DecoupledContrastiveLoss",
    "DenseContrastiveLoss",
    "KernelJointEntropyLoss",
    "LocalRegionContrastiveLoss",
    "NTXentLoss",
    "NonFiniteError",
    "PartitionContrastiveLoss",
    "PositionalContrastiveLoss",
    "SelfDistillationLoss",
    "SepCLRLoss",
    "SepVAELoss",
    "SupConLoss",
    "SymmetricInfoNCELoss",
    "VICRegLoss",
    "VolumeContrastLoss",
]
