"""Data: scanning folders, datalists, prepared volumes, batches of views, phantoms."""

from typing import TYPE_CHECKING

from monai_cl._lazy import face

if TYPE_CHECKING:
    from monai_cl.data.cache import CacheResult, write_cache
    from monai_cl.data.curation import check_pretraining, curate, find_leaks, kept_slices
    from monai_cl.data.loading.depths import items_with_depth
    from monai_cl.data.loading.drawing import BatchDraw, field_of, source_weights
    from monai_cl.data.loading.faults import Faults, TooManyFaultsError
    from monai_cl.data.loading.labelled import labelled_loader
    from monai_cl.data.loading.mixed import MixedBatches, Steps, mixed_loader, unlabelled_rest, without_labels
    from monai_cl.data.loading.partitions import (
        PartitionBatchSampler,
        PartitionDraw,
        partition_of,
        partition_starts,
        positioned_items,
        relative_position,
    )
    from monai_cl.data.loading.prepared import PreparedDataset, PreparedStream
    from monai_cl.data.loading.probing import probe_batches, probe_patches, probe_slices, split_for_probe
    from monai_cl.data.loading.sampling import StepSampler, ViewDataset, fixed_batches, view_loader
    from monai_cl.data.loading.slice_loading import ReadableSlices, fixed_slice_batches, slice_loader
    from monai_cl.data.loading.slices import SliceDataset, check_slab, cut_slab, items_of_rank
    from monai_cl.data.map_study import common_fractions, common_maps, digest_items, map_items, split_subjects
    from monai_cl.data.study import check_axes, check_labels, check_study, class_names, digest
    from monai_cl.datalist import few_labels, load_datalist, shared_subjects
    from monai_cl.intake.new_scans import find_images
    from monai_cl.intake.scan import ScanResult, scan
    from monai_cl.io.maps.finding import find_maps, maps_by_name, names_of_maps
    from monai_cl.io.maps.fractions import find_fractions, fractions_by_tissue
    from monai_cl.phantoms import BrainMaps, brain_maps, write_brain_dataset, write_brain_maps
    from monai_cl.transforms.map_values import load_fractions, load_maps
    from monai_cl.transforms.mask_files import MaskFiles, scans_of

__all__ = [
    "BatchDraw",
    "BrainMaps",
    "CacheResult",
    "Faults",
    "MaskFiles",
    "MixedBatches",
    "PartitionBatchSampler",
    "PartitionDraw",
    "PreparedDataset",
    "PreparedStream",
    "ReadableSlices",
    "ScanResult",
    "SliceDataset",
    "StepSampler",
    "Steps",
    "TooManyFaultsError",
    "ViewDataset",
    "brain_maps",
    "check_axes",
    "check_labels",
    "check_pretraining",
    "check_slab",
    "check_study",
    "class_names",
    "common_fractions",
    "common_maps",
    "curate",
    "cut_slab",
    "digest",
    "digest_items",
    "few_labels",
    "field_of",
    "find_fractions",
    "find_images",
    "find_leaks",
    "find_maps",
    "fixed_batches",
    "fixed_slice_batches",
    "fractions_by_tissue",
    "items_of_rank",
    "items_with_depth",
    "kept_slices",
    "labelled_loader",
    "load_datalist",
    "load_fractions",
    "load_maps",
    "map_items",
    "maps_by_name",
    "mixed_loader",
    "names_of_maps",
    "partition_of",
    "partition_starts",
    "positioned_items",
    "probe_batches",
    "probe_patches",
    "probe_slices",
    "relative_position",
    "scan",
    "scans_of",
    "shared_subjects",
    "slice_loader",
    "source_weights",
    "split_for_probe",
    "split_subjects",
    "unlabelled_rest",
    "view_loader",
    "without_labels",
    "write_brain_dataset",
    "write_brain_maps",
    "write_cache",
]

__getattr__, __dir__ = face(__name__)
