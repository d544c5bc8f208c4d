"""Pages, pictures and model cards."""

from typing import TYPE_CHECKING

from monai_cl._lazy import face

if TYPE_CHECKING:
    from monai_cl.engine.prediction_picture import (
        PredictionPicture as PredictionPicture,
        foreground_dice as foreground_dice,
    )
    from monai_cl.engine.run_record import RunRecord as RunRecord
    from monai_cl.engine.save_cases import SaveCases as SaveCases

__getattr__, __dir__, __all__ = face(__name__)
