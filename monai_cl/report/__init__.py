"""Pages, pictures and model cards."""

from typing import TYPE_CHECKING

from monai_cl._lazy import face

if TYPE_CHECKING:
    from monai_cl.engine.prediction_picture import PredictionPicture, foreground_dice
    from monai_cl.engine.run_record import RunRecord
    from monai_cl.engine.save_cases import SaveCases

__all__ = ["PredictionPicture", "RunRecord", "SaveCases", "foreground_dice"]

__getattr__, __dir__ = face(__name__)
