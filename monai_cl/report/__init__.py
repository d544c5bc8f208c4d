"""What people look at."""

from monai_cl.report.predictions import PredictionPicture, foreground_dice

__all__ = ["PredictionPicture", "foreground_dice"]
