"""MONAI transforms: array and dictionary form of each."""

from typing import TYPE_CHECKING

from monai_cl._lazy import face

if TYPE_CHECKING:
    from monai_cl.transforms._crop_plan import CropPlan
    from monai_cl.transforms.augmentation import usual_augmentation
    from monai_cl.transforms.copy_paste import Box
    from monai_cl.transforms.label_crop import RandCropByClassesD, RandCropByClassesd, RandCropByClassesDict
    from monai_cl.transforms.load import LoadVolume, LoadVolumeD, LoadVolumed, LoadVolumeDict
    from monai_cl.transforms.load_maps import (
        LoadMapsD,
        LoadMapsd,
        LoadMapsDict,
        WeightedRatesD,
        WeightedRatesd,
        WeightedRatesDict,
    )
    from monai_cl.transforms.mask_files import MaskFiles
    from monai_cl.transforms.mr_artefacts import MRArtefacts
    from monai_cl.transforms.mr_contrast import RandMRContrast
    from monai_cl.transforms.mr_contrast_dictionary import RandMRContrastD, RandMRContrastd, RandMRContrastDict
    from monai_cl.transforms.mr_record import MRRecord
    from monai_cl.transforms.overlap import overlap_fractions
    from monai_cl.transforms.pseudo_labels import Pseudo, PseudoLabels, keep_largest
    from monai_cl.transforms.save_mask import SaveMask, SaveMaskD, SaveMaskd, SaveMaskDict
    from monai_cl.transforms.sequence_views import (
        RandSequenceViews,
        RandSequenceViewsD,
        RandSequenceViewsd,
        RandSequenceViewsDict,
        usual_geometry,
    )
    from monai_cl.transforms.share_items import ShareItemsD, ShareItemsd, ShareItemsDict
    from monai_cl.transforms.short_axis import (
        ShortAxisOrientation,
        ShortAxisOrientationD,
        ShortAxisOrientationd,
        ShortAxisOrientationDict,
        slice_axis,
    )
    from monai_cl.transforms.stored import (
        ReadCrop,
        ReadCropD,
        ReadCropd,
        ReadCropDict,
        ReadVolume,
        ReadVolumeD,
        ReadVolumed,
        ReadVolumeDict,
        StoredVolume,
    )
    from monai_cl.transforms.views import RandViews, RandViewsD, RandViewsd, RandViewsDict
    from monai_cl.transforms.volume_contrast_crops import VolumeContrastCrops
    from monai_cl.transforms.volume_contrast_crops_dictionary import (
        VolumeContrastCropsD,
        VolumeContrastCropsd,
        VolumeContrastCropsDict,
    )

__all__ = [
    "Box",
    "CropPlan",
    "LoadMapsD",
    "LoadMapsDict",
    "LoadMapsd",
    "LoadVolume",
    "LoadVolumeD",
    "LoadVolumeDict",
    "LoadVolumed",
    "MRArtefacts",
    "MRRecord",
    "MaskFiles",
    "Pseudo",
    "PseudoLabels",
    "RandCropByClassesD",
    "RandCropByClassesDict",
    "RandCropByClassesd",
    "RandMRContrast",
    "RandMRContrastD",
    "RandMRContrastDict",
    "RandMRContrastd",
    "RandSequenceViews",
    "RandSequenceViewsD",
    "RandSequenceViewsDict",
    "RandSequenceViewsd",
    "RandViews",
    "RandViewsD",
    "RandViewsDict",
    "RandViewsd",
    "ReadCrop",
    "ReadCropD",
    "ReadCropDict",
    "ReadCropd",
    "ReadVolume",
    "ReadVolumeD",
    "ReadVolumeDict",
    "ReadVolumed",
    "SaveMask",
    "SaveMaskD",
    "SaveMaskDict",
    "SaveMaskd",
    "ShareItemsD",
    "ShareItemsDict",
    "ShareItemsd",
    "ShortAxisOrientation",
    "ShortAxisOrientationD",
    "ShortAxisOrientationDict",
    "ShortAxisOrientationd",
    "StoredVolume",
    "VolumeContrastCrops",
    "VolumeContrastCropsD",
    "VolumeContrastCropsDict",
    "VolumeContrastCropsd",
    "WeightedRatesD",
    "WeightedRatesDict",
    "WeightedRatesd",
    "keep_largest",
    "overlap_fractions",
    "slice_axis",
    "usual_augmentation",
    "usual_geometry",
]

__getattr__, __dir__ = face(__name__)
