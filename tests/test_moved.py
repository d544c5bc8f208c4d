"""Modules and names of version 0.1.0 are there under the names they had."""

import importlib
import pickle
import subprocess
import sys

import pytest

from monai_cl._moved import MOVED

MODULES_0_1_0 = {
    "monai_cl.data": (
        *("BatchDraw", "BrainMaps", "CacheResult", "Faults", "MaskFiles", "PartitionBatchSampler", "PartitionDraw"),
        *("PreparedDataset", "PreparedStream", "ReadableSlices", "ScanResult", "SliceDataset", "StepSampler"),
        *("TooManyFaultsError", "ViewDataset", "brain_maps", "check_axes", "check_labels", "check_pretraining"),
        *("check_slab", "check_study", "class_names", "common_fractions", "common_maps", "curate", "cut_slab"),
        *("digest", "digest_items", "few_labels", "field_of", "find_fractions", "find_images", "find_leaks"),
        *("find_maps", "fixed_batches", "fixed_slice_batches", "fractions_by_tissue", "items_of_rank"),
        *("items_with_depth", "kept_slices", "load_datalist", "load_fractions", "load_maps", "map_items"),
        *("maps_by_name", "names_of_maps", "partition_of", "partition_starts", "positioned_items", "probe_batches"),
        *("probe_patches", "probe_slices", "relative_position", "scan", "scans_of", "shared_subjects"),
        *("slice_loader", "source_weights", "split_for_probe", "split_subjects", "view_loader"),
        *("write_brain_dataset", "write_brain_maps", "write_cache"),
    ),
    "monai_cl.data.datalist": ("few_labels", "load_datalist", "read_datalist", "shared_subjects", "subject_of"),
    "monai_cl.data.intake.decathlon": ("Claim", "subjects_by_name"),
    "monai_cl.data.intake.description": ("Description", "describe"),
    "monai_cl.data.intake.dicom": ("Series", "find_series"),
    "monai_cl.data.intake.new_scans": ("find_images",),
    "monai_cl.data.intake.nifti": ("check_same_grid", "read_grid", "read_itk_grid"),
    "monai_cl.data.intake.pseudonyms": ("KEY_VARIABLE", "Key", "find_or_make_key", "key_path", "new_key", "read_key"),
    "monai_cl.data.intake.scan": ("ScanResult", "scan"),
    "monai_cl.data.intake.scan_result": ("ScanResult",),
    "monai_cl.data.intake.study": ("check_axes", "check_labels", "check_study", "class_names", "digest"),
    "monai_cl.data.intake.units": ("check_spacing", "check_unit_name"),
    "monai_cl.data.maps.files": ("files_below", "grid_of", "values_of"),
    "monai_cl.data.maps.finding": ("find_maps", "maps_by_name", "names_of_maps"),
    "monai_cl.data.maps.fractions": ("find_fractions", "fractions_by_tissue"),
    "monai_cl.data.maps.kinds": ("KINDS", "NAMES"),
    "monai_cl.data.maps.reading": ("load_maps",),
    "monai_cl.data.maps.sidecars": ("stated_unit",),
    "monai_cl.data.maps.study": ("common_fractions", "common_maps", "digest_items", "map_items", "split_subjects"),
    "monai_cl.data.masks": ("MaskFiles", "scans_of"),
    "monai_cl.data.phantoms": (
        *("BrainMaps", "BrainSubject", "LabelledVolume", "abdomen_ct_phantom", "brain_maps", "brain_subject"),
        *("cardiac_mr_phantom", "chest_ct_phantom", "save_subject", "write_brain_dataset", "write_brain_maps"),
    ),
    "monai_cl.data.phantoms.shapes": ("abdomen_ct_phantom", "cardiac_mr_phantom", "chest_ct_phantom"),
    "monai_cl.data.phantoms.template": ("full_template", "template_fractions"),
    "monai_cl.data.phantoms.volume": ("LabelledVolume", "write_nifti"),
    "monai_cl.evaluation.handlers": ("StepTime", "SurfaceDistance"),
    "monai_cl.report.predictions": ("PredictionPicture", "foreground_dice"),
    "monai_cl.report.run_record": ("RunRecord",),
    "monai_cl.report.save_cases": ("SaveCases", "read_cases"),
}


@pytest.mark.parametrize("former", MODULES_0_1_0)
def test_a_module_of_0_1_0_has_its_names(former: str) -> None:
    module = importlib.import_module(former)
    assert [name for name in MODULES_0_1_0[former] if not hasattr(module, name)] == []


@pytest.mark.parametrize(("former", "present"), MOVED.items())
def test_a_former_name_gives_the_very_module_of_today(former: str, present: str) -> None:
    module = importlib.import_module(present)
    spec = module.__spec__
    assert importlib.import_module(former) is module
    assert module.__spec__ is spec
    assert spec is not None
    assert spec.name == module.__name__ == present


@pytest.mark.parametrize("first", ["monai_cl.data.intake.scan", "monai_cl.intake.scan"])
def test_whichever_name_is_imported_first_there_is_one_class(first: str) -> None:
    code = (
        f"import sys, {first}, monai_cl.intake.scan_result as now, monai_cl.data.intake.scan_result as then\n"
        "import monai_cl\n"
        "same = now.ScanResult is then.ScanResult is monai_cl.data.ScanResult is monai_cl.data.intake.scan.ScanResult\n"
        "sys.exit(not same)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_what_was_pickled_under_a_former_name_is_read() -> None:
    from monai_cl.intake.scan_result import ScanResult

    stored = pickle.dumps(ScanResult, protocol=0).replace(b"monai_cl.intake", b"monai_cl.data.intake")
    assert b"monai_cl.data.intake" in stored
    assert pickle.loads(stored) is ScanResult


def test_a_module_that_never_was_is_not_found() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'monai_cl\.data\.intake\.nothing'"):
        importlib.import_module("monai_cl.data.intake.nothing")
