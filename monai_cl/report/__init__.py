"""What people look at."""

from monai_cl.report.predictions import PredictionPicture, foreground_dice
from monai_cl.report.run_record import RunRecord
from monai_cl.report.save_cases import SaveCases

__all__ = ["PredictionPicture", "RunRecord", "SaveCases", "foreground_dice"]
