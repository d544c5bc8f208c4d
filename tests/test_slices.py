"""Slices and slabs drawn by partition, on volumes whose intensity is the place of a voxel in mm."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, RandFlipd, RandSpatialCropd

from monai_cl import recipes
from monai_cl.data import (
    PartitionDraw,
    PreparedDataset,
    SliceDataset,
    TooManyFaultsError,
    cut_slab,
    fixed_slice_batches,
    items_of_rank,
    items_with_depth,
    partition_of,
    positioned_items,
    slice_loader,
)
from monai_cl.data.loading.faults import Faults
from monai_cl.transforms import RandViewsd, StoredVolume, slice_axis

DEPTHS = [9, 3, 12, 7, 10]
SUBJECTS = ["a", "a", "b", "c", "d"]


def volume(depth: int, *, axis: int = 2, size: int = 12) -> MetaTensor:
    """Channels: where each voxel lies in mm; thick slices along an axis, oblique."""
    shape = [size, size + 2]
    shape.insert(axis, depth)
    spacing = np.full(3, 1.5)
    spacing[axis] = 8
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn * spacing, (5, -60, 20)
    index = np.indices(shape).reshape(3, -1)
    places = (affine[:3, :3] @ index + affine[:3, 3:]).reshape(3, *shape)
    return MetaTensor(torch.as_tensor(places, dtype=torch.float32), affine=torch.as_tensor(affine))


def volumes(depths: list[int] = DEPTHS, **kwargs: Any) -> list[dict[str, Any]]:
    subjects = SUBJECTS[: len(depths)]
    return [
        {"image": volume(depth, **kwargs), "subject": s, "case": f"v{n}"}
        for n, (depth, s) in enumerate(zip(depths, subjects, strict=True))
    ]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slabs_lie_where_their_affine_says(axis: int) -> None:
    dataset = SliceDataset(volumes(axis=axis), slab=3)
    assert dataset.axis == axis
    assert dataset.depths == DEPTHS
    image = dataset[PartitionDraw(2, 4, 1, 0)]["image"]
    shape = [12, 14]
    shape.insert(axis, 3)
    assert list(image.shape) == [3, *shape]
    index = torch.stack(torch.meshgrid(*[torch.arange(n, dtype=torch.float64) for n in shape], indexing="ij"))
    expected = torch.einsum("ij,j...->i...", image.affine[:3, :3], index) + image.affine[:3, 3].reshape(3, 1, 1, 1)
    torch.testing.assert_close(image.as_tensor().double(), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_are_the_planes_of_the_volume_with_the_spacing_of_their_axes(axis: int) -> None:
    data = volumes(axis=axis)
    image = SliceDataset(data)[PartitionDraw(2, 4, 1, 0)]["image"]
    assert torch.equal(image.as_tensor(), data[2]["image"].as_tensor().select(axis + 1, 4))
    np.testing.assert_allclose(image.pixdim[:2], 1.5)
    np.testing.assert_allclose(image.affine[:3, 3], (0, 0, 32))


def test_labels_come_with_their_slices_and_volumes_are_left_as_they_are() -> None:
    data = volumes()
    for item in data:
        item["label"] = item["image"][:1]
    before = data[0]["image"].clone()
    item = SliceDataset(data, keys=["image", "label"])[PartitionDraw(0, 2, 0, 0)]
    assert torch.equal(item["label"], item["image"][:1])
    item["image"].zero_()
    assert torch.equal(data[0]["image"], before)


@pytest.mark.parametrize("slab", [1, 2])
def test_every_slice_is_reached_and_no_batch_has_a_patient_twice(slab: int) -> None:
    dataset = SliceDataset(volumes(), slab=slab)
    loader = slice_loader(dataset, 2, 4, steps=300)
    depth, seen = dict(enumerate(DEPTHS)), set()
    for batch in loader.batch_sampler:  # type: ignore[union-attr]
        drawn = sorted({draw.volume for draw in batch})
        assert len({SUBJECTS[v] for v in drawn}) == len(drawn) == 2
        for draw in batch:
            assert partition_of(draw.start, depth[draw.volume], 4, slab=slab) == draw.partition
            seen.add((draw.volume, draw.start))
    assert seen == {(v, i) for v, d in depth.items() for i in range(d - slab + 1)}


def test_a_batch_says_which_volume_and_partition_each_slice_is_of() -> None:
    batch = next(iter(slice_loader(SliceDataset(volumes()), 2, 3, steps=1)))
    assert batch["image"].shape == (6, 3, 12, 14)
    assert batch["partition"].tolist() == [0, 1, 2, 0, 1, 2]
    assert [len(set(batch["volume"].tolist()[part])) for part in (slice(0, 3), slice(3, 6))] == [1, 1]
    # the place is that of the image: 8 mm a slice
    data = volumes()
    for image, number, position in zip(batch["image"], batch["volume"], batch["position"], strict=True):
        whole = data[int(number)]["image"]
        start = (image[:, 0, 0] - whole[:, 0, 0, 0].as_tensor()).norm() / 8
        assert float(position) == pytest.approx((float(start) + 0.5) / whole.shape[-1], abs=1e-4)
    assert {"case", "volume", "partition", "position", "image"} == set(batch)


def views() -> RandViewsd:
    return RandViewsd(
        "image", Compose([RandFlipd("image", prob=0.5), RandSpatialCropd("image", (8, 8), random_size=False)])
    )


def test_views_do_not_depend_on_workers_nor_on_an_interruption() -> None:
    dataset = SliceDataset(volumes(), views(), keys=["image", "coords", "valid"])
    whole, worked = (list(slice_loader(dataset, 2, 3, steps=4, num_workers=n)) for n in (0, 2))
    rest = slice_loader(dataset, 2, 3, steps=4)
    rest.batch_sampler.start = 2  # type: ignore[union-attr]
    for expected, found in [*zip(whole, worked, strict=True), *zip(whole[2:], rest, strict=True)]:
        assert expected["image"].shape == (6, 2, 3, 8, 8)
        assert expected["case"] == found["case"]
        assert all(torch.equal(expected[k], found[k]) for k in ("image", "coords", "valid", "volume", "partition"))
    assert not torch.equal(whole[0]["coords"], whole[1]["coords"])


def test_processes_that_hold_the_same_volumes_share_the_patients() -> None:
    dataset = SliceDataset(volumes())
    loaders = [slice_loader(dataset, 2, 3, steps=9, rank=rank, num_replicas=2) for rank in range(2)]
    for batches in zip(*(loader.batch_sampler for loader in loaders), strict=True):
        drawn = [draw.volume for batch in batches for draw in batch if draw.partition == 0]
        assert len({SUBJECTS[v] for v in drawn}) == 4


def test_processes_with_volumes_of_their_own_have_patients_and_numbers_of_their_own() -> None:
    items = volumes()
    parts = [items_of_rank(items, rank=rank, world_size=2) for rank in range(2)]
    assert [[item["case"] for item in part] for part in parts] == [["v0", "v1", "v3"], ["v2", "v4"]]
    numbers = []
    for rank, part in enumerate(parts):
        dataset = SliceDataset(part, rank=rank, world_size=2)
        loader = slice_loader(dataset, 2, 3, steps=6, rank=rank)
        numbers.append({int(v) for batch in loader for v in batch["volume"]})
        first = next(iter(loader.batch_sampler))  # type: ignore[call-overload]
        assert (rank == 0) == (first == next(iter(slice_loader(dataset, 2, 3, steps=6).batch_sampler)))  # type: ignore[call-overload]
    assert not numbers[0] & numbers[1]
    with pytest.raises(ValueError, match=r"each of 5 processes needs a patient.*got 4 patients and rank 0"):
        items_of_rank(items, rank=0, world_size=5)


def test_a_probe_looks_at_the_same_slices_each_time() -> None:
    dataset = SliceDataset(volumes(), views(), keys=["image", "coords"])
    first, again = (fixed_slice_batches(dataset, 3, 3, seed=1) for _ in range(2))
    assert [len(set(batch["case"])) for batch in first] == [3]
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(first, again, strict=True))
    assert len(fixed_slice_batches(SliceDataset(volumes()), 100, 3)) == 1


class Array:
    """Voxels on disk, of which it is known what was read."""

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.shape, self.read_voxels = values, values.shape, 0

    def read(self, box: tuple[slice, ...]) -> np.ndarray:
        self.read_voxels += self.values[box].size
        return self.values[box].copy()


class Cached(list):
    def stored(self, index: int) -> dict[str, Any]:
        return self[index]


@pytest.mark.parametrize("slab", [1, 3])
def test_of_volumes_on_disk_a_draw_reads_its_own_slices_alone(slab: int) -> None:
    data = volumes()
    arrays = [Array(item["image"].numpy()) for item in data]
    cached = Cached(
        {**item, "image": StoredVolume(array, item["image"].affine)} for item, array in zip(data, arrays, strict=True)
    )
    dataset, expected = SliceDataset(cached, slab=slab), SliceDataset(data, slab=slab)  # type: ignore[arg-type]
    assert (dataset.axis, dataset.depths) == (expected.axis, expected.depths)
    found, plain = (one[PartitionDraw(2, 5, 1, 0)]["image"] for one in (dataset, expected))
    assert torch.equal(found, plain)
    torch.testing.assert_close(found.affine, plain.affine)
    assert [array.read_voxels for array in arrays] == [0, 0, 3 * 12 * 14 * slab, 0, 0]


class Failing(list):
    """Volumes of which some cannot be read any more."""

    def __init__(self, items: list[dict[str, Any]], *broken: int) -> None:
        super().__init__(items)
        self.broken = broken

    def stored(self, index: int) -> dict[str, Any]:
        if index not in self.broken:
            return self[index]
        values = self[index]["image"]
        return {**self[index], "image": StoredVolume(Unreadable(tuple(values.shape)), values.affine)}


class Unreadable:
    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def read(self, box: tuple[slice, ...]) -> np.ndarray:
        raise OSError("the file is damaged")


def test_a_volume_that_fails_in_mid_run_gives_its_place_to_another_patient_and_is_counted() -> None:
    data = [{**item, "subject": str(n)} for n, item in enumerate(volumes([9, 8, 12, 7, 10]))]
    dataset = SliceDataset(Failing(data, 2), transform=None, subjects=list("abcde"), axis=2, depths=[9, 8, 12, 7, 10])  # type: ignore[arg-type]
    loader = slice_loader(dataset, 3, 4, steps=20)
    loader.faults = Faults(5, 0.5)
    whole = SliceDataset(data)
    for batch, draws in zip(loader, loader.batch_sampler, strict=True):  # type: ignore[call-overload]
        numbers = batch["volume"].tolist()
        assert len(set(numbers)) == 3
        assert 2 not in numbers
        assert batch["partition"].tolist() == [draw.partition for draw in draws]
        for image, number, part, position in zip(
            batch["image"], numbers, batch["partition"], batch["position"], strict=True
        ):
            start = round(float(position) * whole.depths[number] - 0.5)
            assert partition_of(start, whole.depths[number], 4) == part
            assert torch.equal(image, whole[PartitionDraw(number, start, int(part), 0)]["image"])
    assert loader.faults.found == [("v2", "OSError: the file is damaged")]


def test_a_run_stops_when_too_many_volumes_fail() -> None:
    dataset = SliceDataset(Failing(volumes([9, 8, 12, 7, 10]), 2, 3))  # type: ignore[arg-type]
    dataset.subjects = list("abcde")
    with pytest.raises(TooManyFaultsError, match=r"at most 1 %|a batch needs"):
        list(slice_loader(dataset, 3, 4, steps=20))


def test_volumes_thinner_than_a_slab_are_named_and_left_out(caplog: pytest.LogCaptureFixture) -> None:
    dataset = SliceDataset(volumes(), slab=4, max_faults=0.2)
    assert dataset.depths == [9, 12, 7, 10]
    assert dataset.subjects == ["a", "b", "c", "d"]
    assert "left out volume 1: 3 slices, a slab has 4" in caplog.text
    assert dataset[PartitionDraw(1, 0, 0, 0)]["volume"] == 2
    with pytest.raises(
        TooManyFaultsError, match=r"at most 1 % .*slab of 4 slices.*got 1 of 5; use thinner slabs .*at most 3 slices"
    ):
        SliceDataset(volumes(), slab=4)


def write(folder: Path, name: str, shape: tuple[int, ...], affine: np.ndarray) -> dict[str, str]:
    data = np.random.default_rng(0).integers(0, 1000, shape).astype(np.int16)
    nib.save(nib.Nifti1Image(data, affine), folder / f"{name}.nii.gz")
    return {"image": str(folder / f"{name}.nii.gz"), "case": name, "subject": name}


SAGITTAL = np.array([[0, 0, 6.0, 0], [-1.2, 0, 0, 0], [0, -1.2, 0, 0], [0, 0, 0, 1]])  # stored slices last, R-L


@pytest.fixture
def files(tmp_path: Path) -> list[dict[str, str]]:
    return [
        write(tmp_path, "thick", (20, 22, 7), np.diag([-1.4, -1.4, 8.0, 1.0])),
        write(tmp_path, "no_spacing", (24, 22, 9), np.eye(4)),
        write(
            tmp_path, "turned", (20, 22, 8), np.array([[0, 1.4, 0, 0], [1.4, 0, 0, 0], [0, 0, -9.0, 0], [0, 0, 0, 1]])
        ),
    ]


def test_depths_come_from_headers_and_agree_with_the_prepared_volumes(files: list[dict[str, str]]) -> None:
    items = items_with_depth(files)
    assert [(item["slice_axis"], item["depth"]) for item in items] == [(2, 7), (2, 9), (2, 8)]
    prepared = PreparedDataset(files, recipes.load("small_mr"))
    counted = SliceDataset(prepared)
    assert (counted.axis, counted.depths, counted.subjects) == (2, [7, 9, 8], ["thick", "no_spacing", "turned"])
    known = SliceDataset(
        prepared, axis=2, depths=[item["depth"] for item in items], subjects=[item["subject"] for item in items]
    )
    draw = PartitionDraw(2, 5, 2, 0)
    assert torch.equal(known[draw]["image"], counted[draw]["image"])
    assert len(positioned_items(items, [item["depth"] for item in items], 4)) == 24


def test_no_voxel_is_read_for_a_depth(files: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("voxels were read")

    monkeypatch.setattr(nib.arrayproxy.ArrayProxy, "__array__", refuse)
    monkeypatch.setattr(nib.arrayproxy.ArrayProxy, "__getitem__", refuse)
    assert len(items_with_depth(files)) == 3
    unread: Callable[..., Any] = type("Unread", (list,), {"__getitem__": refuse, "__len__": lambda _: 2})
    SliceDataset(unread(), axis=2, depths=[4, 5], subjects=["a", "b"])


def test_slices_are_counted_along_the_axis_that_they_have_after_orientation(tmp_path: Path) -> None:
    item = write(tmp_path, "sagittal", (30, 28, 9), SAGITTAL)
    assert items_with_depth([item])[0]["slice_axis"] == 0  # R-L is the first axis of RAS
    assert items_with_depth([item])[0]["depth"] == 9
    assert items_with_depth([item], orientation=None)[0]["slice_axis"] == 2
    assert items_with_depth([item], axis=2)[0]["depth"] == 28


def test_headers_that_cannot_be_read_are_named_and_counted(
    files: list[dict[str, str]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cut.nii.gz").write_bytes(b"")
    broken = [*files, {"image": str(tmp_path / "cut.nii.gz"), "case": "cut"}]
    assert [item["case"] for item in items_with_depth(broken, max_faults=0.3)] == ["thick", "no_spacing", "turned"]
    assert "left out cut" in caplog.text
    with pytest.raises(TooManyFaultsError, match=r"got 1 of 4(.|\n)*cut: UnusableImageError: zero bytes"):
        items_with_depth(broken)
    with pytest.raises(TooManyFaultsError, match="only headers of NIfTI files state the depth"):
        items_with_depth([{"image": str(tmp_path), "case": "series"}])
    with pytest.raises(ValueError, match="at least one item"):
        items_with_depth([])


@pytest.mark.parametrize(
    ("shape", "spacing", "axis"),
    [
        ((200, 200, 200), (1, 1, 1), 2),
        ((40, 50, 36), (1, 1, 1), 2),
        ((10, 200, 200), (1, 1, 1), 0),
        ((200, 30, 200), (1.0, 3.0, 1.0), 1),
        ((300, 20, 300), (1.0, 1.05, 1.0), 1),
    ],
)
def test_the_axis_of_slices(shape: tuple[int, ...], spacing: tuple[float, ...], axis: int) -> None:
    assert slice_axis(shape, spacing) == axis


def test_what_cannot_be_is_refused() -> None:
    mixed = [*volumes([9, 8]), *volumes([7], axis=0)]
    with pytest.raises(ValueError, match="along one axis, got axis 2: 2 volumes, axis 0: 1 volumes; give axis"):
        SliceDataset(mixed)
    assert SliceDataset(mixed, axis=2).depths == [9, 8, 14]
    with pytest.raises(ValueError, match="axis must be between 0 and 2, got 3"):
        SliceDataset(mixed, axis=3)
    with pytest.raises(ValueError, match="slab must be at least 1, got 0"):
        SliceDataset(mixed, slab=0)
    with pytest.raises(ValueError, match="axis and subjects must be given with depths"):
        SliceDataset(mixed, depths=[9, 8, 7])
    wrong = SliceDataset(volumes([9]), axis=2, depths=[8], subjects=["a"])
    with pytest.raises(ValueError, match="v0 has 9 slices along axis 2, but depths states 8; leave depths out"):
        wrong[PartitionDraw(0, 1, 0, 0)]


def test_plain_tensors_give_plain_slices() -> None:
    image = torch.arange(24.0).reshape(1, 2, 3, 4)
    assert torch.equal(cut_slab(image, 1, 2), image[:, :, 2])
    assert torch.equal(cut_slab(image, 2, 1, 2), image[..., 1:3])
