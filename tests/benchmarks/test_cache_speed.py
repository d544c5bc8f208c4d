"""Reading boxes of a cache against reading files, as ratios within one run: ``pytest -m benchmark -s``."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import PersistentDataset
from monai.transforms import (
    Compose,
    CopyItemsd,
    EnsureChannelFirstd,
    EnsureTyped,
    LoadImaged,
    Orientationd,
    RandFlipd,
    RandGaussianNoised,
    RandScaleIntensityd,
    RandShiftIntensityd,
    RandSpatialCropd,
    RandSpatialCropSamplesd,
    ScaleIntensityRanged,
)
from scipy.ndimage import zoom
from stopwatch import best_of

from monai_cl import recipes
from monai_cl.data import PreparedDataset, load_datalist, write_cache
from monai_cl.transforms import LoadVolume, RandViewsd, ReadCropd, VolumeContrastCropsd

pytestmark = pytest.mark.benchmark

SIZE, CROP = 256, (96, 96, 96)
RECIPE = """
purpose: Hounsfield units as they are
preprocessing:
  _target_: Compose
  transforms:
    - _target_: monai_cl.transforms.load.LoadVolumed
      keys: image
"""


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of one CT of 256^3: texture at several scales and noise, which gzip brings to about two thirds."""
    root = tmp_path_factory.mktemp("speed")
    rng = np.random.default_rng(0)
    volume = sum(zoom(rng.normal(0, 200, (SIZE // f,) * 3), f, order=1) for f in (64, 16, 8)) + rng.normal(
        0, 10, (SIZE,) * 3
    )
    nib.save(nib.Nifti1Image(volume.astype(np.int16), np.diag([1.0, 1.0, 1.0, 1.0])), root / "ct.nii.gz")
    (root / "study.json").write_text('{"unlabelled": [{"image": "ct.nii.gz"}]}')
    (root / "plain.yaml").write_text(RECIPE)
    return root


def test_a_crop_from_the_cache_against_a_crop_from_a_file(folder: Path, benchmark: Any) -> None:
    cache = write_cache(folder / "study.json", recipe=folder / "plain.yaml", processes=0)
    dataset = PreparedDataset(load_datalist(cache.folder, "unlabelled"), recipes.load(folder / "plain.yaml"))
    crop = RandSpatialCropd("image", CROP, random_size=False)
    read = ReadCropd("image", crop)
    path = folder / "ct.nii.gz"
    load = LoadVolume()
    fast = read.set_random_state(seed=1)(dataset.stored(0))["image"]
    slow = read.set_random_state(seed=1)({"image": load(path)})["image"]
    assert torch.equal(fast.as_tensor(), slow.as_tensor())  # Hounsfield units are exact in int16

    def from_cache() -> Any:
        return read(dataset.stored(0))

    ratio = best_of(lambda: crop({"image": load(path)}), 3) / best_of(from_cache, 30)
    benchmark.extra_info["times as fast"] = round(ratio)
    benchmark(from_cache)
    assert ratio >= 100


WINDOW = {"a_min": -500.0, "a_max": 500.0, "b_min": 0.0, "b_max": 1.0, "clip": True}
FLIPS = [lambda keys, axis=axis: RandFlipd(keys, 0.5, axis) for axis in range(3)]
INTENSITY = [
    lambda keys: RandScaleIntensityd(keys, 0.1, prob=0.5),
    lambda keys: RandShiftIntensityd(keys, 0.1, prob=0.5),
]


def prepared(folder: Path) -> PreparedDataset:
    """The study in a cache, in a window of Hounsfield units."""
    (folder / "window.yaml").write_text(
        RECIPE
        + "    - {_target_: Orientationd, keys: image, axcodes: RAS, labels: null}\n"
        + "    - {_target_: ScaleIntensityRanged, keys: image, a_min: -500.0, a_max: 500.0, b_min: 0.0, b_max: 1.0, "
        "clip: true}\n"
    )
    cache = write_cache(folder / "study.json", folder / "window", recipe=folder / "window.yaml", processes=0)
    return PreparedDataset(load_datalist(cache.folder, "unlabelled"), None)


def preparation() -> list[Any]:
    """The same in MONAI."""
    return [
        LoadImaged("image"),
        EnsureChannelFirstd("image"),
        Orientationd("image", "RAS", labels=None),
        ScaleIntensityRanged("image", **WINDOW),
        EnsureTyped("image"),
    ]


def test_two_views_with_their_coordinates_against_two_views_of_a_plain_chain_of_monai(
    folder: Path, benchmark: Any
) -> None:
    dataset = prepared(folder)
    crop = RandSpatialCropd("image", CROP, random_size=False)
    steps = [*FLIPS, *INTENSITY, lambda keys: RandGaussianNoised(keys, prob=1.0, std=0.05)]
    ours = Compose([ReadCropd("image", crop), RandViewsd("image", Compose([make("image") for make in steps]), 2)])
    # MONAI draws once for all keys of a transform: a second view is a second set of transforms
    views = [make(key) for key in ("image", "image_1") for make in steps]
    chain = Compose([*preparation(), crop, CopyItemsd("image", 1, ["image_1"]), *views])
    item = {"image": str(folder / "ct.nii.gz")}
    assert ours(dataset.stored(0))["image"].shape == (2, 1, *CROP)
    assert chain(item)["image_1"].shape == (1, *CROP)
    ratio = best_of(lambda: chain(item), 4) / best_of(lambda: ours(dataset.stored(0)), 6)
    benchmark.extra_info["times as fast"] = round(ratio, 1)
    benchmark(lambda: ours(dataset.stored(0)))
    assert ratio >= 2


def test_views_of_volume_contrast_against_a_persistent_dataset_of_monai(folder: Path, benchmark: Any) -> None:
    dataset = prepared(folder)
    size = (64, 64, 64)
    ours = VolumeContrastCropsd("image", (2, 2, 1), size, 2)
    crops = RandSpatialCropSamplesd("image", size, 6, random_size=False)
    chain = Compose([*preparation(), crops, *(make("image") for make in (*FLIPS, *INTENSITY))])
    plain = PersistentDataset([{"image": str(folder / "ct.nii.gz")}], chain, folder / "persistent")
    found = ours(dataset.stored(0))["image"]
    assert found["bases"].shape[0] + found["crops"].shape[0] == 6
    assert plain[0][5]["image"].shape == (1, *size)
    ratio = best_of(lambda: plain[0], 4) / best_of(lambda: ours(dataset.stored(0)), 6)
    benchmark.extra_info["times as fast"] = round(ratio, 1)
    benchmark(lambda: ours(dataset.stored(0)))
    assert ratio >= 2
