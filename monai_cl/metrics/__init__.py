"""Health of a representation: alignment, uniformity, rank, probes, position, correspondence; MIND-SSC beside it."""

from monai_cl.metrics.alignment import (
    DenseAlignmentMetric,
    InstanceAlignmentMetric,
    alignment,
    dense_alignment,
    nearest_matches,
)
from monai_cl.metrics.collapse import BufferedCollapseMetric
from monai_cl.metrics.correspondence import correspondence_errors, features_at
from monai_cl.metrics.domain_leakage import DomainLeakage, domain_leakage
from monai_cl.metrics.knn_probe import KNNProbeMetric, knn_accuracy, leave_one_out_knn_accuracy
from monai_cl.metrics.linear_probe import LinearProbeMetric, cross_validated_probe_accuracy, linear_probe_accuracy
from monai_cl.metrics.mind import mind_ssc
from monai_cl.metrics.position import PositionMetric, position_error
from monai_cl.metrics.rank import DeadDimensionsMetric, EffectiveRankMetric, dead_dimensions, effective_rank
from monai_cl.metrics.retrieval import RetrievalMetric, retrieval_at_k
from monai_cl.metrics.uniformity import DenseUniformityMetric, InstanceUniformityMetric, dense_uniformity, uniformity

__all__ = [
    "BufferedCollapseMetric",
    "DeadDimensionsMetric",
    "DenseAlignmentMetric",
    "DenseUniformityMetric",
    "DomainLeakage",
    "EffectiveRankMetric",
    "InstanceAlignmentMetric",
    "InstanceUniformityMetric",
    "KNNProbeMetric",
    "LinearProbeMetric",
    "PositionMetric",
    "RetrievalMetric",
    "alignment",
    "correspondence_errors",
    "cross_validated_probe_accuracy",
    "dead_dimensions",
    "dense_alignment",
    "dense_uniformity",
    "domain_leakage",
    "effective_rank",
    "features_at",
    "knn_accuracy",
    "leave_one_out_knn_accuracy",
    "linear_probe_accuracy",
    "mind_ssc",
    "nearest_matches",
    "position_error",
    "retrieval_at_k",
    "uniformity",
]
