"""Curation: what of a study is worth pretraining on, and what must not be pretrained on."""

from monai_cl.data.curation.curate import curate
from monai_cl.data.curation.leaks import Leak, check_pretraining, find_leaks
from monai_cl.data.curation.reduction import METHODS, greedy_reduce
from monai_cl.data.curation.result import CurationResult
from monai_cl.data.curation.slice_hash import difference_hash, hamming
from monai_cl.data.curation.slices import kept_slices

__all__ = [
    "METHODS",
    "CurationResult",
    "Leak",
    "check_pretraining",
    "curate",
    "difference_hash",
    "find_leaks",
    "greedy_reduce",
    "hamming",
    "kept_slices",
]
