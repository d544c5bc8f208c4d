"""Volumes on disk: the boxes read of them are those of the whole."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor, set_track_meta
from monai.transforms import (
    CenterSpatialCrop,
    Compose,
    RandCropByLabelClassesd,
    RandFlip,
    RandSpatialCrop,
    RandSpatialCropd,
    RandSpatialCropSamples,
    RandSpatialCropSamplesd,
    SpatialCrop,
    SpatialPadd,
)

from monai_cl import transforms
from monai_cl.data.cache.arrays import NpyArray
from monai_cl.transforms import ReadCrop, ReadCropd, ReadVolume, ReadVolumed, StoredVolume, VolumeContrastCropsd
from monai_cl.transforms.stored import UnreadableVolumeError, takes_stored, whole

SHAPE = (2, 14, 17, 11)
AFFINE = torch.tensor([[0.0, -2, 0, 5], [1.5, 0, 0, -3], [0, 0, 3, 7], [0, 0, 0, 1]], dtype=torch.float64)


@pytest.fixture
def volume(tmp_path: Path) -> StoredVolume:
    stored = np.random.default_rng(0).integers(-30000, 30000, SHAPE).astype(np.int16)
    NpyArray.write(stored, tmp_path / "v.npy")
    return StoredVolume(
        NpyArray(tmp_path / "v.npy", SHAPE, "int16"),
        affine=AFFINE,
        scale=(0.5, 0.25),
        shift=(10.0, -3.0),
        minimum=-14995.0,
        meta={"filename_or_obj": "v"},
    )


def test_values_are_scaled_channel_by_channel(volume: StoredVolume) -> None:
    stored = np.load(volume.array.path)  # type: ignore[attr-defined]
    expected = np.stack([(stored[0] + 10.0) * 0.5, (stored[1] - 3.0) * 0.25])
    np.testing.assert_array_equal(volume.read().numpy(), expected.astype(np.float32))


def test_a_box_is_that_of_the_whole_at_its_place_in_mm(volume: StoredVolume) -> None:
    start, stop = (3, 0, 5), (9, 17, 6)
    box, all_of_it = volume.read(start, stop), volume.read()
    assert torch.equal(box.as_tensor(), all_of_it.as_tensor()[:, 3:9, :, 5:6])
    expected = SpatialCrop(roi_start=start, roi_end=stop)(all_of_it)
    torch.testing.assert_close(box.affine, expected.affine)


def test_a_box_outside_the_volume_is_refused(volume: StoredVolume) -> None:
    with pytest.raises(ValueError, match=r"inside the volume of \(14, 17, 11\) voxels, got \[10, 0, 0\] to \[15"):
        volume.read((10, 0, 0), (15, 3, 3))


def test_a_file_cut_short_is_an_error_and_not_the_end_of_the_process(volume: StoredVolume) -> None:
    path = volume.array.path  # type: ignore[attr-defined]
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(UnreadableVolumeError, match="mmap length is greater than file size"):
        volume.read((0, 0, 0), (1, 1, 1))


def test_another_array_in_its_place_is_an_error(volume: StoredVolume) -> None:
    NpyArray.write(np.zeros((2, 14, 17, 12), np.int16), volume.array.path)  # type: ignore[attr-defined]
    with pytest.raises(UnreadableVolumeError, match=r"must hold \(2, 14, 17, 11\) int16 .* got \(2, 14, 17, 12\)"):
        volume.read()


@pytest.mark.parametrize(
    "crop",
    [
        RandSpatialCrop((5, 6, 4), random_size=False),
        RandSpatialCrop((5, 6, 4), max_roi_size=(9, 9, 9), random_size=True),
        RandSpatialCrop((20, 6, 4), random_size=False),  # longer than the volume
        CenterSpatialCrop((7, 7, 7)),
        RandSpatialCropSamples((4, 4, 4), 3, random_size=False),
    ],
    ids=lambda crop: type(crop).__name__,
)
def test_a_crop_of_monai_reads_what_it_would_have_cut(volume: StoredVolume, crop: Any) -> None:
    read = ReadCrop(crop)
    from_disk = read.set_random_state(seed=3)(volume)
    in_memory = read.set_random_state(seed=3)(volume.read())
    for one, two in zip(_list(from_disk), _list(in_memory), strict=True):
        assert torch.equal(one.as_tensor(), two.as_tensor())
        torch.testing.assert_close(one.affine, two.affine)
        assert len(one.applied_operations) == len(two.applied_operations)
        assert one.dtype == two.dtype


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def test_a_crop_reads_no_more_than_its_box(volume: StoredVolume, monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = []
    read = NpyArray.read
    monkeypatch.setattr(NpyArray, "read", lambda self, box: boxes.append(box) or read(self, box))
    ReadCrop(RandSpatialCrop((5, 6, 4), random_size=False))(volume)
    assert [tuple(s.stop - s.start for s in box[1:]) for box in boxes] == [(5, 6, 4)]


def test_a_crop_can_be_inverted(volume: StoredVolume) -> None:
    read = ReadCrop(SpatialCrop(roi_start=(2, 3, 4), roi_end=(8, 9, 9)))
    back = read.inverse(read(volume))
    expected = torch.zeros(SHAPE)
    expected[:, 2:8, 3:9, 4:9] = volume.read((2, 3, 4), (8, 9, 9)).as_tensor()
    assert torch.equal(torch.as_tensor(back), expected)
    torch.testing.assert_close(back.affine, AFFINE)


def test_what_is_no_crop_is_refused(volume: StoredVolume) -> None:
    with pytest.raises(ValueError, match="read by transforms that crop alone; read it whole"):
        ReadCrop(RandFlip(prob=1.0, spatial_axis=0))(volume)


def test_dictionary_crops_cut_all_keys_at_one_place(volume: StoredVolume) -> None:
    chain = ReadCropd(["image", "label"], RandSpatialCropd(["image", "label"], (5, 6, 4), random_size=False))
    item = chain({"image": volume, "label": volume, "case": "v"})
    assert torch.equal(item["image"].as_tensor(), item["label"].as_tensor())
    assert item["case"] == "v"
    samples = ReadCropd("image", RandSpatialCropSamplesd("image", (5, 6, 4), 3, random_size=False))({"image": volume})
    assert [tuple(s["image"].shape) for s in samples] == [(2, 5, 6, 4)] * 3


def test_a_crop_by_labels_looks_at_the_label_and_reads_the_image(volume: StoredVolume) -> None:
    label = MetaTensor((torch.arange(14 * 17 * 11).reshape(1, 14, 17, 11) % 7 == 0).float(), affine=AFFINE)
    crop = RandCropByLabelClassesd(["image", "label"], "label", (5, 5, 5), num_classes=2, num_samples=2, warn=False)
    chain = Compose([ReadVolumed("label"), ReadCropd("image", crop)])
    from_disk = chain.set_random_state(seed=1)({"image": volume, "label": label})
    in_memory = chain.set_random_state(seed=1)({"image": volume.read(), "label": label})
    for one, two in zip(from_disk, in_memory, strict=True):
        assert torch.equal(one["image"].as_tensor(), two["image"].as_tensor())
        assert torch.equal(one["label"].as_tensor(), two["label"].as_tensor())


def test_what_is_in_memory_passes_through() -> None:
    image = torch.rand(1, 4, 4, 4)
    assert ReadVolume()(image) is image
    assert ReadVolumed("image")({"image": image})["image"] is image
    assert whole({"image": image, "case": "a"}) == {"image": image, "case": "a"}


def test_chains_say_whether_they_read_boxes() -> None:
    crop = RandSpatialCropd("image", (4, 4, 4))
    assert takes_stored(VolumeContrastCropsd("image", (2, 2, 2), (4, 4, 4)))
    assert takes_stored(Compose([ReadCropd("image", crop), SpatialPadd("image", (4, 4, 4))]))
    assert not takes_stored(Compose([SpatialPadd("image", (4, 4, 4)), crop]))
    assert not takes_stored(crop)


def test_without_metadata_plain_tensors_are_read(volume: StoredVolume) -> None:
    set_track_meta(False)
    try:
        read = ReadVolume()(volume)
        crop = ReadCrop(RandSpatialCrop((5, 6, 4), random_size=False))
        assert not isinstance(read, MetaTensor)
        with pytest.raises(ValueError, match="needs MONAI's metadata"):
            crop(volume)
    finally:
        set_track_meta(True)


@pytest.mark.parametrize("crop_size", [(4, 4, 3), (6, 8, 6)])  # the second canvas is longer than the volume
def test_volume_contrast_crops_are_those_of_the_volume_in_memory(
    volume: StoredVolume, crop_size: tuple[int, ...]
) -> None:
    crops = transforms.VolumeContrastCrops((2, 2, 2), crop_size, 3)
    plan = crops.set_random_state(seed=2).randomize(SHAPE[1:])
    in_memory = volume.read()
    from_memory = crops.apply(in_memory, plan)
    # the least value is the manifest's, not searched for
    stored = StoredVolume(
        volume.array, affine=AFFINE, scale=volume.scale, shift=volume.shift, minimum=float(in_memory.min())
    )
    for name, value in crops.apply(stored, plan).items():
        assert torch.equal(value, from_memory[name]), name
