"""Synthetic patients: brains with maps, hearts, chests, abdomens, slices of heads with spots, and random shapes."""

from typing import TYPE_CHECKING

from monai_cl._lazy import face

if TYPE_CHECKING:
    from monai_cl.phantoms.anatomy_appearance import AnatomyAppearance as AnatomyAppearance
    from monai_cl.phantoms.anatomy_geometry import AnatomyGeometry as AnatomyGeometry
    from monai_cl.phantoms.anatomy_picture import draw_anatomies as draw_anatomies
    from monai_cl.phantoms.anatomy_shapes import AnatomyShapes as AnatomyShapes
    from monai_cl.phantoms.bids import save_subject as save_subject, write_brain_maps as write_brain_maps
    from monai_cl.phantoms.brain import BrainSubject as BrainSubject, brain_subject as brain_subject
    from monai_cl.phantoms.head_slice import spotted_head as spotted_head
    from monai_cl.phantoms.heart import (
        HeartShape as HeartShape,
        HeartSubject as HeartSubject,
        heart_subject as heart_subject,
    )
    from monai_cl.phantoms.maps import BrainMaps as BrainMaps, brain_maps as brain_maps
    from monai_cl.phantoms.random_anatomy import (
        Anatomies as Anatomies,
        AnatomyDraw as AnatomyDraw,
        RandomAnatomy as RandomAnatomy,
    )
    from monai_cl.phantoms.sequence_study import write_sequence_study as write_sequence_study
    from monai_cl.phantoms.shapes import (
        abdomen_ct_phantom as abdomen_ct_phantom,
        cardiac_mr_phantom as cardiac_mr_phantom,
        chest_ct_phantom as chest_ct_phantom,
    )
    from monai_cl.phantoms.study import (
        write_brain_dataset as write_brain_dataset,
        write_heart_dataset as write_heart_dataset,
    )
    from monai_cl.phantoms.volume import LabelledVolume as LabelledVolume

__getattr__, __dir__, __all__ = face(__name__)
