"""MONAI transforms: array and dictionary form of each."""

from typing import TYPE_CHECKING

from monai_cl._lazy import face

if TYPE_CHECKING:
    from monai_cl.transforms._crop_plan import CropPlan as CropPlan
    from monai_cl.transforms.augmentation import (
        RandCropByClassesD as RandCropByClassesD,
        RandCropByClassesd as RandCropByClassesd,
        RandCropByClassesDict as RandCropByClassesDict,
        unlabelled_augmentation as unlabelled_augmentation,
        usual_augmentation as usual_augmentation,
    )
    from monai_cl.transforms.bids_masks import BidsMasks as BidsMasks
    from monai_cl.transforms.block_replace import (
        BlockReplace as BlockReplace,
        BlockReplaceD as BlockReplaceD,
        BlockReplaced as BlockReplaced,
        BlockReplaceDict as BlockReplaceDict,
    )
    from monai_cl.transforms.copy_paste import Box as Box
    from monai_cl.transforms.curriculum_mask import CurriculumMask as CurriculumMask
    from monai_cl.transforms.largest_component import keep_largest as keep_largest
    from monai_cl.transforms.load import (
        LoadVolume as LoadVolume,
        LoadVolumeD as LoadVolumeD,
        LoadVolumed as LoadVolumed,
        LoadVolumeDict as LoadVolumeDict,
    )
    from monai_cl.transforms.load_maps import (
        LoadMapsD as LoadMapsD,
        LoadMapsd as LoadMapsd,
        LoadMapsDict as LoadMapsDict,
        WeightedRatesD as WeightedRatesD,
        WeightedRatesd as WeightedRatesd,
        WeightedRatesDict as WeightedRatesDict,
    )
    from monai_cl.transforms.mask_files import MaskFiles as MaskFiles
    from monai_cl.transforms.mask_writers import (
        DicomSegMasks as DicomSegMasks,
        MaskWriter as MaskWriter,
        NiftiMasks as NiftiMasks,
        mask_writer as mask_writer,
    )
    from monai_cl.transforms.mr_artefacts import MRArtefacts as MRArtefacts
    from monai_cl.transforms.mr_contrast import (
        RandMRContrast as RandMRContrast,
        RandMRContrastD as RandMRContrastD,
        RandMRContrastd as RandMRContrastd,
        RandMRContrastDict as RandMRContrastDict,
    )
    from monai_cl.transforms.mr_record import MRRecord as MRRecord
    from monai_cl.transforms.nonlinear_intensity import (
        RandNonlinearIntensity as RandNonlinearIntensity,
        RandNonlinearIntensityD as RandNonlinearIntensityD,
        RandNonlinearIntensityd as RandNonlinearIntensityd,
        RandNonlinearIntensityDict as RandNonlinearIntensityDict,
    )
    from monai_cl.transforms.overlap import overlap_fractions as overlap_fractions
    from monai_cl.transforms.prepare_study import PrepareStudy as PrepareStudy, laid_on as laid_on
    from monai_cl.transforms.pseudo_labels import Pseudo as Pseudo, PseudoLabels as PseudoLabels
    from monai_cl.transforms.sample_series import (
        SampleSeriesD as SampleSeriesD,
        SampleSeriesd as SampleSeriesd,
        SampleSeriesDict as SampleSeriesDict,
    )
    from monai_cl.transforms.save_mask import (
        SaveMask as SaveMask,
        SaveMaskD as SaveMaskD,
        SaveMaskd as SaveMaskd,
        SaveMaskDict as SaveMaskDict,
    )
    from monai_cl.transforms.sequence_views import (
        RandSequenceViews as RandSequenceViews,
        RandSequenceViewsD as RandSequenceViewsD,
        RandSequenceViewsd as RandSequenceViewsd,
        RandSequenceViewsDict as RandSequenceViewsDict,
        usual_geometry as usual_geometry,
    )
    from monai_cl.transforms.share_items import (
        ShareItemsD as ShareItemsD,
        ShareItemsd as ShareItemsd,
        ShareItemsDict as ShareItemsDict,
    )
    from monai_cl.transforms.short_axis import (
        ShortAxisOrientation as ShortAxisOrientation,
        ShortAxisOrientationD as ShortAxisOrientationD,
        ShortAxisOrientationd as ShortAxisOrientationd,
        ShortAxisOrientationDict as ShortAxisOrientationDict,
        slice_axis as slice_axis,
    )
    from monai_cl.transforms.spacing import (
        KeyedSpacingD as KeyedSpacingD,
        KeyedSpacingd as KeyedSpacingd,
        KeyedSpacingDict as KeyedSpacingDict,
    )
    from monai_cl.transforms.stored import (
        ReadCrop as ReadCrop,
        ReadCropD as ReadCropD,
        ReadCropd as ReadCropd,
        ReadCropDict as ReadCropDict,
        ReadVolume as ReadVolume,
        ReadVolumeD as ReadVolumeD,
        ReadVolumed as ReadVolumed,
        ReadVolumeDict as ReadVolumeDict,
        StoredVolume as StoredVolume,
    )
    from monai_cl.transforms.study_views import (
        RandStudyViews as RandStudyViews,
        RandStudyViewsD as RandStudyViewsD,
        RandStudyViewsd as RandStudyViewsd,
        RandStudyViewsDict as RandStudyViewsDict,
    )
    from monai_cl.transforms.template_mix import (
        RandChannelTemplateMixD as RandChannelTemplateMixD,
        RandChannelTemplateMixd as RandChannelTemplateMixd,
        RandChannelTemplateMixDict as RandChannelTemplateMixDict,
    )
    from monai_cl.transforms.views import (
        RandViews as RandViews,
        RandViewsD as RandViewsD,
        RandViewsd as RandViewsd,
        RandViewsDict as RandViewsDict,
    )
    from monai_cl.transforms.volume_contrast_crops import (
        VolumeContrastCrops as VolumeContrastCrops,
        VolumeContrastCropsD as VolumeContrastCropsD,
        VolumeContrastCropsd as VolumeContrastCropsd,
        VolumeContrastCropsDict as VolumeContrastCropsDict,
    )

__getattr__, __dir__, __all__ = face(__name__)
