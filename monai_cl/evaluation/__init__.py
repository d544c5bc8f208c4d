"""Evidence: what pretraining was worth, with intervals."""

from typing import TYPE_CHECKING

from monai_cl._lazy import face

if TYPE_CHECKING:
    from monai_cl.evaluation._invariance_config import run_invariance
    from monai_cl.evaluation.curve import CurveResult, CurveStoppedError, run_curve
    from monai_cl.evaluation.records import (
        ArmConvergence,
        ArmLabelsSaved,
        CaseScore,
        Convergence,
        Curve,
        CurveArm,
        Estimate,
        Interval,
        LabelsSaved,
        Score,
    )
    from monai_cl.evaluation.results import load_curve
    from monai_cl.evaluation.sequence_invariance import (
        Invariance,
        load_sequences,
        measure_invariance,
        mind_descriptor,
        network_descriptor,
        shift_for,
    )
    from monai_cl.evaluation.statistics import converged, interval, labels_saved, paired_difference

__all__ = [
    "ArmConvergence",
    "ArmLabelsSaved",
    "CaseScore",
    "Convergence",
    "Curve",
    "CurveArm",
    "CurveResult",
    "CurveStoppedError",
    "Estimate",
    "Interval",
    "Invariance",
    "LabelsSaved",
    "Score",
    "converged",
    "interval",
    "labels_saved",
    "load_curve",
    "load_sequences",
    "measure_invariance",
    "mind_descriptor",
    "network_descriptor",
    "paired_difference",
    "run_curve",
    "run_invariance",
    "shift_for",
]

__getattr__, __dir__ = face(__name__)
