"""Evidence: what pretraining was worth, with intervals."""

from monai_cl.evaluation.curve import CurveResult, run_curve
from monai_cl.evaluation.results import ArmConvergence, ArmLabelsSaved, Curve, CurveArm, Estimate, Score, load_curve
from monai_cl.evaluation.statistics import (
    CaseScore,
    Convergence,
    Interval,
    LabelsSaved,
    converged,
    interval,
    labels_saved,
    paired_difference,
)

__all__ = [
    "ArmConvergence",
    "ArmLabelsSaved",
    "CaseScore",
    "Convergence",
    "Curve",
    "CurveArm",
    "CurveResult",
    "Estimate",
    "Interval",
    "LabelsSaved",
    "Score",
    "converged",
    "interval",
    "labels_saved",
    "load_curve",
    "paired_difference",
    "run_curve",
]
