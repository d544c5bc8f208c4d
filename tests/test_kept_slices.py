"""Slices that curating keeps are the ones that are drawn, whichever way preparation turns the volume."""

import json
import re
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from conftest import write_study
from monai.data import MetaTensor
from monai.transforms import Compose, Orientationd, Spacingd
from test_bundle_runs import run

from monai_cl import bundles
from monai_cl.data import (
    PartitionDraw,
    PreparedDataset,
    SliceDataset,
    curate,
    fixed_slice_batches,
    kept_slices,
    load_datalist,
    partition_of,
    slice_loader,
    write_cache,
)
from monai_cl.data.loading.kept import kept_starts
from monai_cl.transforms.load import LoadVolumed

REPEAT, DIFFERENT = 3, 6
DEPTH = REPEAT * DIFFERENT
MARK = 1e-4
# the axes of the prepared volume, and which of them the slices of the file (inferior to superior) are
TURNS = {"RAS": 2, "LPI": 2, "SRA": 0, "AIL": 1}


def write_curated(folder: Path, *, oblique: bool = False, cases: int = 3) -> Path:
    """Files of which every slice is there three times, and the curated list of them; voxels tell their slice."""
    items = []
    turn = np.eye(3)
    if oblique:
        a, b = 0.2, -0.15
        turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]]) @ np.array(
            [[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]]
        )
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn * (1.0, 1.2, 4.0), (3, -5, 7)
    for case in range(cases):
        values = np.random.default_rng(case).normal(size=(20, 22, DIFFERENT)).repeat(REPEAT, axis=2)
        values[0, 0] = MARK * np.arange(1, DEPTH + 1)
        nib.save(nib.Nifti1Image(values.astype("float32"), affine), folder / f"case_{case}.nii.gz")
        items.append({"image": f"case_{case}.nii.gz", "subject": f"s{case}"})
    (folder / "study.json").write_text(json.dumps({"unlabelled": items}))
    curated = curate(folder / "study.json", threshold=2).datalist
    assert curated is not None
    return curated


def prepared(datalist: Path, *transforms: Any) -> PreparedDataset:
    return PreparedDataset(load_datalist(datalist, "unlabelled"), Compose([LoadVolumed("image"), *transforms]))


def numbers_of_slices(dataset: SliceDataset) -> list[set[int]]:
    """Which slices of its file each volume gives, told by their voxels."""
    found: list[set[int]] = [set() for _ in range(len(dataset))]
    for volume, starts in enumerate(dataset.starts):
        for start in starts:
            plane = dataset[PartitionDraw(volume, start, 0, 0)]["image"].as_tensor()
            corners = [float(plane[0, i, j]) / MARK for i in (0, -1) for j in (0, -1)]
            (number,) = (round(c) - 1 for c in corners if 0.5 < c < DEPTH + 0.5 and abs(c - round(c)) < 1e-3)
            found[volume].add(number)
    return found


def test_curating_says_which_slices_of_how_many_and_which_way_they_run(tmp_path: Path) -> None:
    item = json.loads(write_curated(tmp_path).read_text())["unlabelled"][0]
    assert kept_slices(item) == list(range(0, DEPTH, REPEAT))
    assert item["slices_of"] == DEPTH
    assert item["slice_step"] == [0.0, 0.0, 4.0]


@pytest.mark.parametrize("oblique", [False, True])
@pytest.mark.parametrize("turn", TURNS)
def test_the_slices_drawn_are_those_of_the_file(tmp_path: Path, turn: str, oblique: bool) -> None:
    curated = write_curated(tmp_path, oblique=oblique)
    volumes = prepared(curated, Orientationd("image", axcodes=turn, labels=(("L", "R"), ("P", "A"), ("I", "S"))))
    dataset = SliceDataset(volumes, axis=TURNS[turn])
    kept = [set(kept_slices(item)) for item in json.loads(curated.read_text())["unlabelled"]]
    assert numbers_of_slices(dataset) == kept
    assert dataset.drawn == (3 * DIFFERENT, 3 * DEPTH)
    every = SliceDataset(volumes, axis=TURNS[turn], kept_slices=False)
    assert numbers_of_slices(every) == [set(range(DEPTH))] * 3
    assert every.drawn == (3 * DEPTH, 3 * DEPTH)


def test_batches_hold_kept_slices_alone_and_reach_all_of_them(tmp_path: Path) -> None:
    dataset = SliceDataset(prepared(write_curated(tmp_path)), axis=2)
    drawn = [draw for batch in slice_loader(dataset, 2, 3, steps=200).batch_sampler for draw in batch]  # type: ignore[union-attr]
    assert {(draw.volume, draw.start) for draw in drawn} == {(v, s) for v in range(3) for s in range(0, DEPTH, REPEAT)}
    assert all(partition_of(draw.start, DEPTH, 3) == draw.partition for draw in drawn)  # of the whole volume
    (batch,) = fixed_slice_batches(dataset, 3, 3)
    assert {round(float(position) * DEPTH - 0.5) % REPEAT for position in batch["position"]} == {0}


def test_a_partition_without_kept_slices_gives_none(tmp_path: Path) -> None:
    dataset = SliceDataset(prepared(write_curated(tmp_path)), axis=2)
    dataset.starts = [[0, 3], [15], [0, 3, 6, 9, 12, 15]]
    drawn = [draw for batch in slice_loader(dataset, 3, 3, steps=20).batch_sampler for draw in batch]  # type: ignore[union-attr]
    assert {(d.volume, d.partition) for d in drawn} == {(0, 0), (1, 2), (2, 0), (2, 1), (2, 2)}


def test_slabs_begin_at_kept_slices_and_end_in_the_volume(tmp_path: Path) -> None:
    dataset = SliceDataset(prepared(write_curated(tmp_path)), axis=2, slab=5)
    assert dataset.starts == [[0, 3, 6, 9, 12, DEPTH - 5]] * 3
    assert dataset.drawn == (18, 3 * (DEPTH - 4))


def test_volumes_of_a_cache_give_the_same(tmp_path: Path) -> None:
    curated = write_curated(tmp_path)
    recipe = tmp_path / "turned.yaml"
    recipe.write_text(
        "purpose: slices along the first axis, head first\n"
        "preprocessing:\n  _target_: Compose\n  transforms:\n"
        "  - {_target_: monai_cl.transforms.load.LoadVolumed, keys: image}\n"
        "  - {_target_: Orientationd, keys: image, axcodes: IRA, labels: [[L, R], [P, A], [I, S]]}\n"
    )
    write_cache(curated, tmp_path / "cache", recipe=recipe, dtype="float32", processes=0)
    volumes = PreparedDataset(load_datalist(tmp_path / "cache", "unlabelled"), None)
    dataset = SliceDataset(volumes, axis=0)
    assert dataset.starts == [[DEPTH - 1 - index for index in range(DEPTH - REPEAT, -1, -REPEAT)]] * 3
    assert numbers_of_slices(dataset) == [set(range(0, DEPTH, REPEAT))] * 3


# --- what cannot be told


def test_volumes_resampled_along_their_slices_are_refused(tmp_path: Path) -> None:
    curated = write_curated(tmp_path)
    volumes = prepared(curated, Spacingd("image", pixdim=(1.0, 1.0, 2.0)))
    told = (
        r"case_0 must have 18 slices along axis 2, of which the datalist names those to keep, the prepared volume has "
        r"35: .*use a recipe that leaves slices as they are, as with `spacing: .*, or set kept_slices to false"
    )
    with pytest.raises(ValueError, match=told):
        SliceDataset(volumes, axis=2)
    assert SliceDataset(volumes, axis=2, kept_slices=False).depths == [35] * 3


def test_slices_along_another_axis_are_refused(tmp_path: Path) -> None:
    volume = {
        "image": MetaTensor(torch.zeros(1, 6, 7, 6), affine=torch.eye(4)),
        "slices": "0,5",
        "slices_of": 6,
        "slice_step": [0, 0, 1],
    }
    assert kept_starts(volume, axis=2) == [0, 5]
    with pytest.raises(ValueError, match=r"must lie along axis 0 .*, got axis 2; set slice_axis to that, or kept"):
        kept_starts(volume, axis=0, case="case_0")
    with pytest.raises(ValueError, match=r"slices of case_0 must be below 6, got '0-6'; curate the study again"):
        kept_starts({**volume, "slices": "0-6"}, axis=2, case="case_0")


@pytest.mark.parametrize(
    "told", [{"slices_of": 6}, {"shape": [4, 5, 6]}, {"weight": 0.3333}], ids=lambda told: next(iter(told))
)
def test_lists_of_older_versions_are_understood_or_refused(told: dict[str, Any]) -> None:
    image = MetaTensor(torch.zeros(1, 4, 5, 6), affine=torch.diag(torch.tensor([1.0, 1, -2, 1]).double()))
    volume = {"image": image, "slices": "0,2"}
    with pytest.raises(ValueError, match=r"not of how many or which way they run; curate it again with `monai-cl cu"):
        kept_starts(volume | told, axis=2)
    image.meta["original_affine"] = np.diag([1.0, 1, 2, 1])
    assert kept_starts(volume | told, axis=2) == [3, 5]
    with pytest.raises(ValueError, match=r"names kept slices of case_0, but not of how many"):
        kept_starts(volume, axis=2, case="case_0")


# --- the bundle


def test_the_bundle_pretrains_on_kept_slices_and_says_so(tmp_path: Path) -> None:
    study = write_study(tmp_path / "study")
    curated = curate(study / "datalist.json", threshold=20).datalist
    assert curated is not None
    items = load_datalist(curated, "training+unlabelled", dataset_dir=study)
    bundle = bundles.copy("global_local_contrast", tmp_path / "bundle")
    kept = sum(len(kept_slices(item)) for item in items)
    assert kept < 18 * len(items)
    for option, drawn in (("true", kept), ("false", 18 * len(items))):
        folder = bundle / "runs" / option
        run(bundle, "pretrain", study, datalist=str(curated), kept_slices=option == "true", output_dir=str(folder))
        record = json.loads((folder / "run.json").read_text())
        assert record["settings"]["kept_slices"] is (option == "true")
        assert record["data"]["slices"] == {"drawn": drawn, "there": 18 * len(items)}


def test_the_bundle_refuses_a_recipe_that_resamples_slices(tmp_path: Path) -> None:
    study = write_study(tmp_path / "study")
    curated = curate(study / "datalist.json", threshold=20).datalist
    bundle = bundles.copy("global_local_contrast", tmp_path / "bundle")
    with pytest.raises(RuntimeError, match=r"^Failed to ") as caught:
        run(bundle, "pretrain", study, datalist=str(curated), recipe_options={"spacing": 2.0})
    assert re.match(r"case_\d must have 18 slices along axis 2, .* has 11: ", bundles._reason(caught.value))
