"""Losses: tensors in, scalars out, float32 inside."""

from monai_cl.losses._checks import NonFiniteError
from monai_cl.losses.volume_contrast import VolumeContrastLoss

__all__ = ["NonFiniteError", "VolumeContrastLoss"]
