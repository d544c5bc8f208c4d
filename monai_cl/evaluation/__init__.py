"""Evidence: what pretraining was worth, with intervals."""

from typing import TYPE_CHECKING

from monai_cl._lazy import face

if TYPE_CHECKING:
    from monai_cl.evaluation._invariance_config import run_invariance as run_invariance
    from monai_cl.evaluation.curve import (
        CurveResult as CurveResult,
        CurveStoppedError as CurveStoppedError,
        run_curve as run_curve,
    )
    from monai_cl.evaluation.records import (
        ArmConvergence as ArmConvergence,
        ArmLabelsSaved as ArmLabelsSaved,
        CaseScore as CaseScore,
        Convergence as Convergence,
        Curve as Curve,
        CurveArm as CurveArm,
        Estimate as Estimate,
        Interval as Interval,
        LabelsSaved as LabelsSaved,
        Score as Score,
    )
    from monai_cl.evaluation.results import load_curve as load_curve
    from monai_cl.evaluation.sequence_invariance import (
        Invariance as Invariance,
        load_sequences as load_sequences,
        measure_invariance as measure_invariance,
        mind_descriptor as mind_descriptor,
        network_descriptor as network_descriptor,
        shift_for as shift_for,
    )
    from monai_cl.evaluation.statistics import (
        converged as converged,
        interval as interval,
        labels_saved as labels_saved,
        paired_difference as paired_difference,
    )

__getattr__, __dir__, __all__ = face(__name__)
