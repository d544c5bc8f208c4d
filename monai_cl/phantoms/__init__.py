"""Synthetic patients: brains with quantitative maps, hearts, chests and abdomens, for demos, notebooks and tests."""

from typing import TYPE_CHECKING

from monai_cl._lazy import face

if TYPE_CHECKING:
    from monai_cl.phantoms.bids import save_subject, write_brain_maps
    from monai_cl.phantoms.brain import BrainSubject, brain_subject
    from monai_cl.phantoms.maps import BrainMaps, brain_maps
    from monai_cl.phantoms.shapes import abdomen_ct_phantom, cardiac_mr_phantom, chest_ct_phantom
    from monai_cl.phantoms.study import write_brain_dataset
    from monai_cl.phantoms.volume import LabelledVolume

__all__ = [
    "BrainMaps",
    "BrainSubject",
    "LabelledVolume",
    "abdomen_ct_phantom",
    "brain_maps",
    "brain_subject",
    "cardiac_mr_phantom",
    "chest_ct_phantom",
    "save_subject",
    "write_brain_dataset",
    "write_brain_maps",
]

__getattr__, __dir__ = face(__name__)
