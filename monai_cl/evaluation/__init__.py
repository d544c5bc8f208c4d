"""Evidence: what pretraining was worth, with intervals."""

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
    "CaseScore",
    "Convergence",
    "Interval",
    "LabelsSaved",
    "converged",
    "interval",
    "labels_saved",
    "paired_difference",
]
