"""Patches without metadata equal those with it, and nothing else in the process loses any."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor, get_track_meta
from monai.transforms import (
    CenterSpatialCropd,
    Compose,
    Flipd,
    Lambdad,
    OneOf,
    RandAffined,
    RandCropByLabelClassesd,
    RandFlipd,
    RandGaussianNoised,
    RandGaussianSmoothd,
)

from monai_cl.transforms import usual_augmentation
from monai_cl.transforms.seeding import reseed
from monai_cl.transforms.without_metadata import WithoutMetadata


def item() -> dict[str, Any]:
    image = torch.rand(1, 24, 20, generator=torch.Generator().manual_seed(1))
    affine = torch.diag(torch.tensor([2.0, 3.0, 1.0, 1.0]))
    return {
        "image": MetaTensor(image, affine=affine),
        "label": MetaTensor((image > 0.5).long(), affine=affine),
        "case": "a",
    }


def steps() -> list[Any]:
    both = ("image", "label")
    return [
        RandAffined(both, prob=1.0, rotate_range=0.5, mode=["bilinear", "nearest"], padding_mode="border"),
        RandCropByLabelClassesd(both, "label", (16, 16), num_classes=2, num_samples=1, warn=False),
        RandFlipd(both, prob=0.5),
        OneOf([RandGaussianNoised("image", prob=1.0), RandGaussianSmoothd("image", prob=1.0)]),
    ]


@contextmanager
def another_thread() -> Iterator[None]:
    ended = threading.Event()
    other = threading.Thread(target=ended.wait)
    other.start()
    try:
        yield
    finally:
        ended.set()
        other.join()


@pytest.mark.parametrize("others", [False, True])
def test_patches_equal_those_of_compose_and_are_plain(others: bool) -> None:
    chains = [kind(steps()).set_random_state(seed=3) for kind in (Compose, WithoutMetadata)]
    for _ in range(4):
        (expected,) = chains[0](item())
        if others:
            with another_thread():
                (patch,) = chains[1](item())
        else:
            (patch,) = chains[1](item())
        for key in ("image", "label"):
            assert type(patch[key]) is torch.Tensor
            assert torch.equal(patch[key], expected[key].as_tensor())
        assert patch["case"] == "a"


def flag_within(chain: type[Compose] = WithoutMetadata) -> bool:
    seen: list[bool] = []
    chain([Lambdad("image", lambda image: seen.append(get_track_meta()) or image)])(item())
    return seen[0]


def test_metadata_is_left_out_where_nobody_else_reads_images_and_only_then() -> None:
    if threading.active_count() == 1:
        assert not flag_within()
    with another_thread():
        assert flag_within()
    assert get_track_meta()


def test_the_switch_is_turned_back_after_an_error() -> None:
    def fail(image: Any) -> Any:
        raise ValueError("broken on purpose")

    with pytest.raises(RuntimeError, match="applying transform"):
        WithoutMetadata([Lambdad("image", fail)])(item())
    assert get_track_meta()


class Flag(Dataset):
    """Items that say how metadata stood while they were made, and after."""

    def __getitem__(self, index: int) -> tuple[bool, bool]:
        with another_thread():
            return flag_within(), get_track_meta()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_worker_processes_leave_metadata_out_whatever_their_threads() -> None:
    (batch,) = DataLoader(Flag([0]), num_workers=1, collate_fn=list)
    assert batch == [(False, True)]


def test_pending_operations_of_a_lazy_chain_are_carried_out_before_and_none_within() -> None:
    image = MetaTensor(torch.arange(216.0).reshape(1, 6, 6, 6))
    results = [
        Compose([Flipd("image", 0), WithoutMetadata([CenterSpatialCropd("image", [4, 4, 2])])], lazy=lazy)(
            {"image": image}
        )["image"]
        for lazy in (False, True)
    ]
    assert torch.equal(results[0], image.flip(1)[:, 1:5, 1:5, 2:4].as_tensor())
    assert torch.equal(results[0], results[1])
    assert type(results[1]) is torch.Tensor


def test_one_generator_serves_a_chain_and_all_within_it() -> None:
    chain = reseed(Compose(steps()), 5)
    within = [chain, *chain.transforms[:3], *chain.transforms[3].transforms]
    assert len({id(one.R) for one in within}) == 1
    assert chain.transforms[0].rand_affine.R is chain.R
    expected = np.random.RandomState(5).rand(4)
    np.testing.assert_array_equal(chain.R.rand(4), expected)


def test_a_seed_fixes_the_patch_and_another_gives_another() -> None:
    chain = usual_augmentation((16, 16), 2, strength="strong", slice_axis=2)
    volume = {key: value[..., None].repeat(1, 1, 1, 4) for key, value in item().items() if key != "case"}
    first, again, other = (reseed(chain, seed)(dict(volume))[0] for seed in (1, 1, 2))
    assert torch.equal(first["image"], again["image"])
    assert torch.equal(first["label"], again["label"])
    assert not torch.equal(first["image"], other["image"])
    assert type(first["image"]) is torch.Tensor
