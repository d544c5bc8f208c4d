"""Data: scanning folders, datalists, prepared volumes, batches of views, phantoms."""

from typing import TYPE_CHECKING

from monai_cl._lazy import face

if TYPE_CHECKING:
    from monai_cl.data.cache import CacheResult as CacheResult, write_cache as write_cache
    from monai_cl.data.cohort import weak_labels as weak_labels
    from monai_cl.data.curation import (
        check_pretraining as check_pretraining,
        curate as curate,
        find_leaks as find_leaks,
        kept_slices as kept_slices,
    )
    from monai_cl.data.domains import with_domains as with_domains
    from monai_cl.data.loading.balanced import WeakLabelBalancedSampler as WeakLabelBalancedSampler
    from monai_cl.data.loading.depths import items_with_depth as items_with_depth
    from monai_cl.data.loading.drawing import (
        BatchDraw as BatchDraw,
        field_of as field_of,
        source_weights as source_weights,
    )
    from monai_cl.data.loading.faults import Faults as Faults, TooManyFaultsError as TooManyFaultsError
    from monai_cl.data.loading.labelled import labelled_loader as labelled_loader
    from monai_cl.data.loading.mixed import (
        MixedBatches as MixedBatches,
        Steps as Steps,
        mixed_loader as mixed_loader,
        unlabelled_rest as unlabelled_rest,
        without_labels as without_labels,
    )
    from monai_cl.data.loading.partitions import (
        PartitionBatchSampler as PartitionBatchSampler,
        PartitionDraw as PartitionDraw,
        partition_of as partition_of,
        partition_starts as partition_starts,
        positioned_items as positioned_items,
        relative_position as relative_position,
    )
    from monai_cl.data.loading.prepared import PreparedDataset as PreparedDataset, PreparedStream as PreparedStream
    from monai_cl.data.loading.probing import (
        probe_batches as probe_batches,
        probe_patches as probe_patches,
        probe_slices as probe_slices,
        split_for_probe as split_for_probe,
    )
    from monai_cl.data.loading.sampling import (
        StepSampler as StepSampler,
        ViewDataset as ViewDataset,
        fixed_batches as fixed_batches,
        view_loader as view_loader,
    )
    from monai_cl.data.loading.slice_loading import (
        ReadableSlices as ReadableSlices,
        fixed_slice_batches as fixed_slice_batches,
        slice_loader as slice_loader,
    )
    from monai_cl.data.loading.slices import (
        SliceDataset as SliceDataset,
        check_slab as check_slab,
        cut_slab as cut_slab,
        items_of_rank as items_of_rank,
    )
    from monai_cl.data.map_series import maps_apart as maps_apart, study_maps as study_maps
    from monai_cl.data.map_study import (
        common_fractions as common_fractions,
        common_maps as common_maps,
        digest_items as digest_items,
        map_items as map_items,
        split_subjects as split_subjects,
    )
    from monai_cl.data.pairs.anatomical_pairs import (
        AnatomicalPairs as AnatomicalPairs,
        NoMatchError as NoMatchError,
        pair_batches as pair_batches,
    )
    from monai_cl.data.pairs.correspondence import (
        BodyBoxes as BodyBoxes,
        Correspondence as Correspondence,
        Matches as Matches,
    )
    from monai_cl.data.pairs.embedding import EmbeddingMatches as EmbeddingMatches, match_points as match_points
    from monai_cl.data.pairs.registration import AffineRegistration as AffineRegistration
    from monai_cl.data.series import (
        channel_names as channel_names,
        check_channels as check_channels,
        first_series as first_series,
        labelled_studies as labelled_studies,
        say_sequences as say_sequences,
        sequence_name as sequence_name,
        split_studies as split_studies,
        study_items as study_items,
        study_sequences as study_sequences,
        unlabelled_studies as unlabelled_studies,
        with_channels as with_channels,
    )
    from monai_cl.data.study import (
        check_axes as check_axes,
        check_labels as check_labels,
        check_study as check_study,
        class_names as class_names,
        digest as digest,
        source_of as source_of,
    )
    from monai_cl.data.template_files import read_templates as read_templates, write_templates as write_templates
    from monai_cl.datalist import (
        few_labels as few_labels,
        load_datalist as load_datalist,
        shared_subjects as shared_subjects,
    )
    from monai_cl.intake.new_scans import find_images as find_images
    from monai_cl.intake.scan import ScanResult as ScanResult, scan as scan
    from monai_cl.io.maps.finding import (
        find_maps as find_maps,
        maps_by_name as maps_by_name,
        names_of_maps as names_of_maps,
    )
    from monai_cl.io.maps.fractions import find_fractions as find_fractions, fractions_by_tissue as fractions_by_tissue
    from monai_cl.phantoms import (
        BrainMaps as BrainMaps,
        brain_maps as brain_maps,
        write_brain_dataset as write_brain_dataset,
        write_brain_maps as write_brain_maps,
    )
    from monai_cl.transforms.map_values import load_fractions as load_fractions, load_maps as load_maps
    from monai_cl.transforms.mask_files import MaskFiles as MaskFiles, scans_of as scans_of

__getattr__, __dir__, __all__ = face(__name__)
