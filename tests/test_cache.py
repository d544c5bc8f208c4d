"""`monai-cl cache`: what is written, what is read back, and what happens when something goes wrong on the way."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch

from monai_cl import recipes
from monai_cl.data import PreparedDataset, PreparedStream, TooManyFaultsError, load_datalist, write_cache
from monai_cl.data.cache import arrays
from monai_cl.data.cache.encoding import encode
from monai_cl.data.cache.job import _without_paths
from monai_cl.data.study import digest
from monai_cl.privacy.hidden_paths import HiddenPath

OPTIONS = {"spacing": 1.5}
SECTIONS = ("training", "validation", "unlabelled")


@pytest.fixture
def own(study: Path, tmp_path: Path) -> Path:
    """A copy of the study that a test may damage; returns its datalist."""
    import shutil

    shutil.copytree(study, tmp_path / "study")
    return tmp_path / "study/datalist.json"


def cached(datalist: Path, **kwargs: Any) -> Path:
    return write_cache(datalist, recipe="small_mr", options=OPTIONS, processes=0, **kwargs).folder


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def manifest(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "cache.json").read_text()))


def test_cached_volumes_are_the_prepared_ones_up_to_half_a_step(own: Path) -> None:
    folder = cached(own)
    chain = recipes.load("small_mr", **OPTIONS)
    from_files = PreparedDataset(load_datalist(own, SECTIONS), chain)
    from_cache = PreparedDataset(load_datalist(folder, SECTIONS), chain)
    assert len(from_cache) == len(from_files) == 8
    for one, two in zip(from_files, from_cache, strict=True):
        assert one["case"] == two["case"]
        assert two["image"].dtype == torch.float32
        torch.testing.assert_close(two["image"].affine, one["image"].affine)
        assert (one["image"] - two["image"]).abs().max() <= 0.5005 / 65532  # of a range of 1; float32 rounds too
        if "label" in one:
            assert torch.equal(torch.as_tensor(one["label"]), torch.as_tensor(two["label"]))
            assert one["label"].dtype == two["label"].dtype
            torch.testing.assert_close(two["label"].affine, one["label"].affine)


def test_the_affine_survives_every_reading_and_reading_writes_nothing(own: Path) -> None:
    folder = cached(own)
    before = bytes_of(folder)
    dataset = PreparedDataset(load_datalist(folder), None)
    first, second = dataset[0]["image"].affine, dataset[0]["image"].affine
    assert torch.equal(first, second)
    assert not torch.allclose(first, torch.eye(4, dtype=torch.float64))
    assert bytes_of(folder) == before


def test_the_manifest_says_how_volumes_are_stored_and_what_made_them(own: Path) -> None:
    content = manifest(cached(own))
    assert content["cache"]["recipe"] == {
        "name": "small_mr",
        "options": OPTIONS,
        "digest": recipes.digest("small_mr", **OPTIONS),
    }
    assert content["cache"]["monai_cl"]
    assert content["labels"] == {"0": "background", "1": "left", "2": "right"}
    image = content["training"][0]["cached"]["volumes"]["image"]
    assert image["dtype"] == "int16"
    assert image["spacing"] == pytest.approx([1.5, 1.5, 1.5])
    assert 0 < image["error"] <= 0.5005 * image["scale"][0]
    assert image["error_in_steps"] == pytest.approx(image["error"] / image["scale"][0])
    assert image["statistics"]["min"] == [0.0]
    assert image["statistics"]["max"] == [1.0]
    label = content["training"][0]["cached"]["volumes"]["label"]
    assert (label["dtype"], label["values"], label["error"]) == ("uint8", "int16", 0.0)


@pytest.mark.parametrize("dtype", ["int16", "float16", "float32"])
def test_a_stored_array_and_its_scale_and_offset_give_the_values(own: Path, dtype: str) -> None:
    folder = cached(own, dtype=dtype)
    item = manifest(folder)["training"][0]
    volume = item["cached"]["volumes"]["image"]
    stored = np.load(folder / item["image"])
    assert stored.dtype == np.dtype(dtype)
    scale, offset = (volume["scale"] or [1.0])[0], (volume["offset"] or [0.0])[0]
    truth = PreparedDataset(load_datalist(own), recipes.load("small_mr", **OPTIONS))[0]["image"].numpy()
    assert np.abs(stored * scale + offset - truth).max() <= volume["error"] + 1e-7
    assert volume["error"] <= {"int16": 1e-5, "float16": 5e-4, "float32": 0.0}[dtype]


def test_the_same_study_gives_the_same_bytes_on_any_number_of_processes(own: Path, tmp_path: Path) -> None:
    alone = cached(own, out=tmp_path / "alone")
    write_cache(own, tmp_path / "two", recipe="small_mr", options=OPTIONS, processes=2)
    assert bytes_of(tmp_path / "two") == bytes_of(alone)


def test_a_second_call_prepares_nothing(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = cached(own)
    before = bytes_of(folder)
    monkeypatch.setattr("monai_cl.data.cache.job.encode", None)  # would fail if called
    result = write_cache(own, recipe="small_mr", options=OPTIONS, processes=0)
    assert (len(result.kept), result.prepared) == (8, [])
    assert bytes_of(folder) == before


def test_a_changed_source_is_noticed_and_prepared_again(own: Path) -> None:
    folder = cached(own)
    path = own.parent / "images/case_1.nii.gz"
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[::-1].copy(), image.affine), path)
    old = manifest(folder)["training"][1]
    result = write_cache(own, recipe="small_mr", options=OPTIONS, processes=0)
    assert (result.changed, len(result.kept)) == (["case_1"], 7)
    assert not (folder / old["image"]).exists()
    new = PreparedDataset(load_datalist(folder), None)[1]["image"]
    truth = PreparedDataset(load_datalist(own), recipes.load("small_mr", **OPTIONS))[1]["image"]
    torch.testing.assert_close(torch.as_tensor(new), torch.as_tensor(truth), atol=1e-4, rtol=0)


def test_a_touched_or_copied_source_is_not_prepared_again(own: Path) -> None:
    cached(own)
    for path in own.parent.rglob("*.nii.gz"):
        os.utime(path, (1, 1))
    assert len(write_cache(own, recipe="small_mr", options=OPTIONS, processes=0).kept) == 8


@pytest.mark.parametrize(("suffix", "key"), [("mhd", "ElementDataFile = "), ("nhdr", "data file: ")])
def test_voxels_in_a_file_that_a_header_names_otherwise_are_part_of_the_source(
    tmp_path: Path, suffix: str, key: str
) -> None:
    image = sitk.GetImageFromArray(np.random.default_rng(0).normal(size=(12, 12, 12)).astype("float32"))
    header = tmp_path / f"case.{suffix}"
    sitk.WriteImage(image, str(header))
    header.write_text(header.read_text().replace(f"{key}case.raw", f"{key}voxels of the case.bin"))
    voxels = (tmp_path / "case.raw").rename(tmp_path / "voxels of the case.bin")
    (tmp_path / "list.json").write_text(json.dumps({"unlabelled": [{"image": header.name}]}))
    cached(tmp_path / "list.json")
    voxels.write_bytes(np.frombuffer(voxels.read_bytes(), "<f4")[::-1].tobytes())
    assert write_cache(tmp_path / "list.json", recipe="small_mr", options=OPTIONS, processes=0).changed == ["case"]


@pytest.mark.parametrize("content", ["", "[]", '{"cache": 3}', "{}"])
def test_a_manifest_that_is_none_is_not_taken_for_one(own: Path, content: str) -> None:
    folder = cached(own)
    (folder / "cache.json").write_text(content)
    with pytest.raises(ValueError, match=r"cache\.json is damaged or of no cache; give another --out, or --rebuild"):
        cached(own)
    assert len(write_cache(own, recipe="small_mr", options=OPTIONS, processes=0, rebuild=True).kept) == 8


def test_another_recipe_or_type_is_refused_unless_a_rebuild_is_asked_for(own: Path) -> None:
    folder = cached(own)
    before = bytes_of(folder)
    with pytest.raises(ValueError, match=r"holds a cache with recipe .*1\.5.*asked for is .*2\.0.*--rebuild"):
        write_cache(own, recipe="small_mr", options={"spacing": 2.0}, processes=0)
    with pytest.raises(ValueError, match="with dtype int16, asked for is float32"):
        cached(own, dtype="float32")
    assert bytes_of(folder) == before
    rebuilt = write_cache(own, recipe="small_mr", options={"spacing": 2.0}, processes=0, rebuild=True)
    assert len(rebuilt.prepared) == 8
    assert len(list((folder / "volumes").iterdir())) == 14  # 8 images, 6 labels: the old ones are gone


def test_an_edited_recipe_is_noticed(own: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(recipes.path("small_mr").read_text())
    folder = write_cache(own, recipe=mine, processes=0).folder
    mine.write_text(mine.read_text().replace("[0.5, 99.5]", "[1.0, 99.0]"))
    with pytest.raises(ValueError, match="holds a cache with recipe"):
        write_cache(own, recipe=mine, processes=0)
    with pytest.raises(ValueError, match=r"prepared by recipe mine.*whose content has changed since"):
        PreparedDataset(load_datalist(folder), recipes.load(mine))


def test_training_with_another_recipe_than_the_caches_is_refused(own: Path) -> None:
    items = load_datalist(cached(own))
    for use in (PreparedDataset, PreparedStream):
        with pytest.raises(ValueError, match=r"prepared by recipe small_mr .*1\.5.*asks for recipe small_mr"):
            use(items, recipes.load("small_mr"))
        with pytest.raises(ValueError, match="asks for a transform that is no recipe"):
            use(items, lambda item: item)


def test_a_damaged_source_is_named_and_left_out(own: Path) -> None:
    (own.parent / "images/case_6.nii.gz").write_bytes(b"")
    result = write_cache(own, recipe="small_mr", options=OPTIONS, processes=2, max_faults=0.2)
    assert [case for case, _ in result.left_out] == ["case_6"]
    left_out = manifest(result.folder)["cache"]["left_out"]
    assert left_out[0]["case"] == "case_6"
    assert "empty" in left_out[0]["reason"]
    assert str(own.parent) not in json.dumps(manifest(result.folder))
    assert len(load_datalist(result.folder, SECTIONS)) == 7


def test_no_path_of_a_source_is_in_the_cache_or_the_log(
    study: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    named = tmp_path / "PLANTED^NAME"
    named.mkdir()
    for number in (1, 2):
        (named / f"case_{number}.nii.gz").write_bytes((study / f"images/case_{number}.nii.gz").read_bytes())
    (named / "case_2.nii.gz").write_bytes(b"no volume")
    items = [{"image": f"case_{n}.nii.gz", "subject": f"s{n}"} for n in (1, 2)]
    (named / "study.json").write_text(json.dumps({"unlabelled": items}))
    result = write_cache(named / "study.json", tmp_path / "c", recipe="small_mr", processes=0, max_faults=0.5)
    assert [case for case, _ in result.left_out] == ["case_2"]
    text = "".join(str(p.relative_to(tmp_path)) for p in result.folder.rglob("*")) + caplog.text
    text += "".join(p.read_text() for p in result.folder.rglob("*.json"))
    assert "left out case_2" in text
    assert "PLANTED" not in text


def test_too_many_damaged_sources_stop_and_the_next_call_goes_on(own: Path) -> None:
    path = own.parent / "images/case_6.nii.gz"
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    with pytest.raises(TooManyFaultsError, match=r"at most 1 % of the volumes may fail(.|\n)*case_6"):
        cached(own)
    folder = own.with_name("datalist_cache")
    with pytest.raises(ValueError, match="is not complete; the `monai-cl cache` command"):
        load_datalist(folder)
    path.write_bytes(whole)
    result = write_cache(own, recipe="small_mr", options=OPTIONS, processes=0)
    assert len(result.kept) == 7 - 1  # case_6 stood before case_7
    assert len(load_datalist(folder, SECTIONS)) == 8


def test_values_that_are_not_finite_are_a_fault(own: Path) -> None:
    path = own.parent / "images/case_7.nii.gz"
    image = nib.load(path)
    data = np.asarray(image.dataobj).copy()
    data[3, 3, 3] = np.nan
    nib.save(nib.Nifti1Image(data, image.affine), path)
    result = write_cache(own, recipe="small_mr", processes=0, max_faults=0.2)
    assert re.search(r"prepared values are not finite", result.left_out[0][1])


KILLED = """
import os, sys, time
from monai_cl.data.cache import write_cache
from monai_cl.data.cache.job import Job
inner = Job.__getitem__
def slow(self, index):
    if index >= 3:
        os.write(1, b"halfway\\n")  # both workers come here: a print without a buffer is two writes, and mixes
        time.sleep(20)
    return inner(self, index)
Job.__getitem__ = slow
write_cache(sys.argv[1], sys.argv[2], recipe="small_mr", options={"spacing": 1.5}, processes=2)
"""


def test_a_cache_killed_halfway_finishes_with_the_bytes_of_one_that_was_not(own: Path, tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    with subprocess.Popen([sys.executable, "-c", KILLED, str(own), str(folder)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"halfway\n"
        with pytest.raises(RuntimeError, match=rf"process {process.pid} on .* is writing .*: wait .* another --out"):
            cached(own, out=folder)
        os.kill(process.pid, signal.SIGKILL)
    # its workers live on for a while, which must not keep the next call out
    # what a kill in the middle of a write leaves
    (folder / "volumes/.0123456789abcdef.case_3.npy").write_bytes(b"half")
    assert not (folder / "cache.json").exists()
    result = write_cache(own, folder, recipe="small_mr", options=OPTIONS, processes=0)
    assert len(result.kept) >= 2
    assert len(result.prepared) >= 4
    assert bytes_of(folder) == bytes_of(cached(own, out=tmp_path / "whole"))


@pytest.mark.parametrize("processes", [0, 2])
def test_a_full_disk_is_told_and_nothing_is_half_written(
    own: Path, monkeypatch: pytest.MonkeyPatch, processes: int
) -> None:
    write = arrays.NpyArray.write
    count = []

    def full(array: Any, path: Path) -> None:
        count.append(1)
        if "case_4" in path.name:
            with open(path.with_name("x"), "wb"):
                pass
            path.with_name("x").unlink()
            raise OSError(errno.ENOSPC, "No space left on device")
        write(array, path)

    monkeypatch.setattr(arrays.NpyArray, "write", staticmethod(full))
    with pytest.raises(OSError, match=r"full after 4 of 8 volumes .*MB more are needed, .*MB are free.*goes on"):
        write_cache(own, recipe="small_mr", options=OPTIONS, processes=processes)
    folder = own.with_name("datalist_cache")
    assert not (folder / "cache.json").exists()
    assert not list((folder / "volumes").glob(".*"))
    monkeypatch.undo()
    assert len(write_cache(own, recipe="small_mr", options=OPTIONS, processes=0).kept) >= 4


def test_a_real_full_device_leaves_no_file(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    target = tmp_path / "a.npy"
    real = open
    import builtins

    def opened(path: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if mode == "wb":
            Path(path).touch()
            return real("/dev/full", mode)
        return real(path, mode, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builtins, "open", opened)
        with pytest.raises(OSError, match="No space left") as caught:
            arrays.NpyArray.write(np.zeros((1, 64, 64, 64)), target)
    assert caught.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("values", "exact"),
    [
        (np.arange(-1000, 3000, dtype=np.float32), True),  # Hounsfield units
        (np.arange(0, 65000, dtype=np.float32), True),  # unsigned
        (np.full(9, 0.1, np.float32), True),
        (np.zeros(9, np.float32), True),
        (np.linspace(0, 1, 4099, dtype=np.float32) ** 2, False),
        (np.linspace(-3, 40, 4099, dtype=np.float32), False),
        (np.linspace(1e6, 2e6, 4099, dtype=np.float32) + 0.5, False),
        (np.linspace(-1e-8, 1e-7, 4099, dtype=np.float32), False),
    ],
)
def test_int16_errs_by_half_a_step_at_most_and_keeps_integers_and_zero(values: np.ndarray, exact: bool) -> None:
    volume = np.stack([values, -values])[:, :, None, None]
    one = encode(volume, "int16")
    scale, shift = np.float32(one.scale)[:, None, None, None], np.float32(one.shift)[:, None, None, None]
    restored = (one.stored.astype(np.float32) + shift) * scale
    error = np.abs(restored - volume).max()
    assert error == one.error
    rounding = np.abs(volume).max() * 2.0**-23
    assert error <= (0 if exact else max(one.scale) / 2 + rounding)
    assert np.array_equal(restored[volume == 0], volume[volume == 0])


def test_float16_refuses_what_it_cannot_hold() -> None:
    with pytest.raises(ValueError, match="within 65504 for float16"):
        encode(np.full((1, 2, 2, 2), 1e6, np.float32), "float16")


def test_unknown_types_and_storage_are_refused(own: Path) -> None:
    with pytest.raises(ValueError, match="dtype must be one of int16, float16, float32, got 'int8'"):
        cached(own, dtype="int8")
    with pytest.raises(ValueError, match="storage must be one of npy, blosc2, got 'zarr'"):
        cached(own, storage="zarr")


def test_blosc2_reads_the_same_boxes_or_names_the_extra(own: Path, tmp_path: Path) -> None:
    try:
        import blosc2  # noqa: F401
    except ModuleNotFoundError:
        with pytest.raises(ModuleNotFoundError, match=r"pip install 'monai-cl\[cache\]'"):
            cached(own, storage="blosc2")
        return
    packed = PreparedDataset(load_datalist(cached(own, storage="blosc2", out=tmp_path / "b")), None)
    mapped = PreparedDataset(load_datalist(cached(own)), None)
    for one, two in zip(packed, mapped, strict=True):
        assert torch.equal(torch.as_tensor(one["image"]), torch.as_tensor(two["image"]))
    box = [d.stored(0)["image"].read((1, 2, 3), (5, 9, 8)) for d in (packed, mapped)]
    assert torch.equal(*map(torch.as_tensor, box))


def test_a_file_cut_short_after_caching_is_a_fault(own: Path) -> None:
    folder = cached(own)
    path = folder / manifest(folder)["training"][2]["image"]
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(TooManyFaultsError, match=r"case_2: OSError: .* must have .* bytes as when it was written"):
        PreparedDataset(load_datalist(folder), None)
    dataset = PreparedDataset(load_datalist(folder), None, max_faults=0.5)
    assert len(dataset) == 3


def test_the_digest_of_a_cache_changes_with_what_it_holds(own: Path) -> None:
    folder = cached(own)
    first = digest(folder)
    assert first == digest(folder / "cache.json") != digest(own)
    time.sleep(0.01)
    path = own.parent / "images/case_1.nii.gz"
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj) * 2, image.affine), path)
    cached(own)
    assert digest(folder) != first


def test_reasons_name_neither_files_nor_folders_of_series() -> None:
    image = [HiddenPath(f"/scans/Mueller/{name}.dcm", "sub-0123456789ab/mr-0123456789abcdef") for name in "ab"]
    item = {"image": image, "case": "mr-0123456789abcdef"}
    reason = _without_paths("cannot read the DICOM series at /scans/Mueller: a.dcm lacks a place\nMueller", item)
    assert reason.startswith("cannot read the DICOM series at /scans/sub-0123456789ab/mr-0123456789abcdef: ")
    assert reason.endswith("mr-0123456789abcdef lacks a place")
    plain = {"image": HiddenPath("/scans/Mueller/la_003.nii", "la_003.nii"), "case": "la_003"}
    assert (
        _without_paths("/scans/Mueller/la_003.nii ends early, and /scans/Mueller/x", plain)
        == "la_003 ends early, and x"
    )
