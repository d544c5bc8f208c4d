"""Short-axis stacks: one orientation of all files of a heart, and back."""

import itertools

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Flip, MapTransform
from nibabel.orientations import apply_orientation, inv_ornt_aff

from monai_cl.data import SliceDataset
from monai_cl.phantoms import cardiac_mr_phantom
from monai_cl.transforms import (
    ShortAxisOrientation,
    ShortAxisOrientationD,
    ShortAxisOrientationd,
    ShortAxisOrientationDict,
    slice_axis,
)

# Every way to store a volume: three axes in any order, each in either direction.
STORED = [
    np.column_stack([order, signs])
    for order in itertools.permutations(range(3))
    for signs in itertools.product([1, -1], repeat=3)
]


def oblique(angle: float = 0.0) -> np.ndarray:
    """A short-axis affine: rows to the left and back, columns to the feet and back, slices to the apex; then turned."""
    through = np.array([-1.0, 0.9, -0.8]) / np.linalg.norm([-1.0, 0.9, -0.8])
    across = np.array([-1.0, 0, 0]) - (np.array([-1.0, 0, 0]) @ through) * through
    across /= np.linalg.norm(across)
    down = np.cross(across, through)
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    affine = np.eye(4)
    affine[:3, :3] = np.column_stack([c * across + s * down, c * down - s * across, through]) * (1.4, 1.5, 8.0)
    affine[:3, 3] = (40, -20, 90)
    return affine


def heart(affine: np.ndarray) -> MetaTensor:
    values = np.random.default_rng(0).random((12, 14, 6)).astype(np.float32)
    return MetaTensor(torch.as_tensor(values)[None], affine=torch.as_tensor(affine))


def stored_as(image: MetaTensor, turn: np.ndarray) -> MetaTensor:
    values = apply_orientation(image[0].numpy(), turn)
    affine = image.affine.numpy() @ inv_ornt_aff(turn, image.shape[1:])
    return MetaTensor(torch.as_tensor(np.ascontiguousarray(values))[None], affine=torch.as_tensor(affine))


@pytest.mark.parametrize("angle", [-40, 0, 30])
def test_all_ways_to_store_a_heart_become_one(angle: float) -> None:
    image = heart(oblique(angle))
    for turn in STORED:
        found = ShortAxisOrientation()(stored_as(image, turn))
        assert torch.equal(found, image)
        torch.testing.assert_close(found.affine, image.affine)


@pytest.mark.parametrize("turn", STORED[::5])
def test_it_is_undone_exactly(turn: np.ndarray) -> None:
    image = stored_as(heart(oblique(20)), turn)
    chain = Compose([ShortAxisOrientationd(["image", "label"], allow_missing_keys=True)])
    back = chain.inverse(chain({"image": image}))["image"]
    assert torch.equal(back, image)
    torch.testing.assert_close(back.affine, image.affine)
    assert not back.applied_operations


def test_the_phantom_comes_base_first_with_the_right_ventricle_at_the_left() -> None:
    phantom = cardiac_mr_phantom(0)
    label = ShortAxisOrientation()(MetaTensor(phantom.label, affine=torch.as_tensor(phantom.affine)))[0]
    right, left = ((label == k).nonzero().float().mean(0) for k in (1, 3))
    assert right[0] < left[0]
    areas = (label == 3).sum((0, 1))
    assert areas[0] > areas[5] > areas[-1]


def test_slices_are_last_where_ras_would_put_them_elsewhere() -> None:
    from monai.transforms import Orientation

    steep, flat = oblique(), oblique()
    flat[:3, :3] = oblique()[:3, [2, 0, 1]] @ np.diag([1.4 / 8, 1.5 / 1.4, 8 / 1.5])  # slices from head to feet
    images = [heart(affine) for affine in (steep, flat)]
    by_body = {slice_axis(o.shape[1:], o.pixdim.tolist()) for o in map(Orientation("RAS", labels=None), images)}
    assert len(by_body) == 2
    assert SliceDataset([{"image": ShortAxisOrientation()(image)} for image in images]).axis == 2


def test_numpy_and_plain_tensors_pass() -> None:
    values = np.zeros((1, 20, 22, 5), np.float32)
    assert ShortAxisOrientation()(values).shape == (1, 20, 22, 5)
    assert ShortAxisOrientation()(torch.zeros(1, 5, 20, 22)).shape == (1, 20, 22, 5)


def test_it_sees_the_volume_that_a_lazy_chain_has_made_before_it() -> None:
    image = stored_as(heart(oblique()), STORED[7])
    results = [Compose([Flip(0), Flip(2), ShortAxisOrientation()], lazy=lazy)(image.clone()) for lazy in (False, True)]
    assert torch.equal(results[0], results[1])
    assert torch.allclose(results[0].affine, results[1].affine)
    assert not results[1].pending_operations


def test_it_follows_the_contract() -> None:
    assert ShortAxisOrientationD is ShortAxisOrientationDict is ShortAxisOrientationd
    assert issubclass(ShortAxisOrientationd, MapTransform)
    with pytest.raises(KeyError, match="label"):
        ShortAxisOrientationd(["image", "label"])({"image": heart(oblique())})
    with pytest.raises(ValueError, match=r"3 spatial axes, got shape \(1, 4, 4\)"):
        ShortAxisOrientation()(torch.zeros(1, 4, 4))
