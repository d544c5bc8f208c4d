"""The random changes of labelled patches: what each strength has in it, and where turned crops come from."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose

from monai_cl.transforms import unlabelled_augmentation, usual_augmentation
from monai_cl.transforms.augmentation import _UnlessFlat

RARE = ["nonlinear", "bias_field", "histogram", "blur", "low_resolution"]


def names(transform: Compose) -> list[str]:
    nested = [names(one) if isinstance(one, Compose) else [type(one).__name__] for one in transform.transforms]
    return [name for some in nested for name in some]


def places(size: tuple[int, int, int] = (56, 52, 48)) -> dict[str, MetaTensor]:
    """Image whose channels are the coordinates of its voxels, and a label by the first of them."""
    axes = np.stack(np.meshgrid(*[np.arange(side, dtype=np.float32) for side in size], indexing="ij"))
    return {"image": MetaTensor(axes), "label": MetaTensor((axes[:1] >= size[0] / 2).astype(np.float32))}


def first(result: object) -> dict[str, torch.Tensor]:
    item = result[0] if isinstance(result, list) else result
    assert isinstance(item, dict)
    return item


@pytest.mark.parametrize("sides", [2, 3])
def test_strong_changes_are_those_of_the_table(sides: int) -> None:
    roi, axis = (8,) * sides, 2 if sides == 2 else None
    mild, strong = (names(usual_augmentation(roi, 2, slice_axis=axis, strength=s)) for s in ("mild", "strong"))
    added = {"RandBiasFieldd", "_UnlessFlat", "RandGaussianSmoothd", "RandSimulateLowResolutiond"}
    assert added == set(strong) - set(mild)
    assert set(mild) < set(strong)
    item = {"image": MetaTensor(torch.rand(1, 12, 12, 12)), "label": MetaTensor(torch.ones(1, 12, 12, 12))}
    transform = usual_augmentation(roi, 2, slice_axis=axis, strength="strong", nonlinear=0.5).set_random_state(seed=0)
    for _ in range(20):
        changed = first(transform(item))
        assert changed["image"].shape == changed["label"].shape == (1, *roi)
        assert bool(changed["image"].isfinite().all())


@pytest.mark.parametrize("strength", ["mild", "strong"])
@pytest.mark.parametrize(("roi", "axis"), [((12, 12, 12), None), ((12, 12), 2), ((12, 12, 8), 2)])
def test_labels_of_turned_patches_are_those_of_the_volume(
    roi: tuple[int, ...], axis: int | None, strength: str
) -> None:
    label = torch.zeros(1, 20, 20, 20)
    label[:, 5:15, 5:15, 5:15], label[:, :, :, 17:] = 3, 255  # a mean of two would be a class that the volume lacks
    chain = usual_augmentation(roi, 4, strength=strength, slice_axis=axis, affine_prob=1.0, ignore_index=255)
    for seed in range(3):
        item = {"image": MetaTensor(torch.rand(1, 20, 20, 20)), "label": MetaTensor(label)}
        assert set(first(chain.set_random_state(seed=seed)(item))["label"].unique().tolist()) <= {0, 3, 255}


@pytest.mark.parametrize("name", RARE)
def test_each_rare_change_is_left_out_at_zero_and_seen_at_one(name: str) -> None:
    still = dict.fromkeys(RARE, 0.0) | {"intensity_prob": 0.0}
    item = {"image": MetaTensor(torch.rand(1, 9, 9, 9)), "label": MetaTensor(torch.ones(1, 9, 9, 9))}
    kept, changed = (
        [
            first(usual_augmentation((9, 9, 9), 2, affine_prob=0.0, **options).set_random_state(seed=seed)(item))
            for seed in range(4)  # of nine voxels a draw of low_resolution may leave nine
        ]
        for options in ({**still, name: share} for share in (0.0, 1.0))
    )
    assert all(torch.equal(one["image"], item["image"]) for one in kept)
    assert not all(torch.equal(one["image"], item["image"]) for one in changed)
    assert all(torch.equal(one["label"], item["label"]) for one in changed)


@pytest.mark.parametrize("axis", [None, 2])
def test_a_turned_crop_shows_the_volume_around_it(axis: int | None) -> None:
    item = places()
    transform = usual_augmentation(
        (10, 10, 10), 2, slice_axis=axis, affine_prob=1.0, rotation=30, scale=0.2, intensity_prob=0.0
    ).set_random_state(seed=2)
    inside = 0
    for _ in range(16):
        changed = first(transform(item))
        image = changed["image"].as_tensor() if isinstance(changed["image"], MetaTensor) else changed["image"]
        # away from the faces of the volume an affine map of the places is linear: its second differences vanish
        last = torch.tensor(item["image"].shape[1:]).reshape(3, 1, 1, 1) - 1
        if bool(((image > 0.01) & (image < last - 0.01)).all()):
            inside += 1
            for dim in (1, 2, 3):
                assert float(image.diff(n=2, dim=dim).abs().max()) < 1e-3
        beyond = image[:1] - (item["image"].shape[1] - 1) / 2  # labels turn with the image
        clear = beyond.abs() > 0.75  # a voxel: the label of the nearest one
        assert torch.equal((beyond > 0)[clear], changed["label"].as_subclass(torch.Tensor).bool()[clear])
    assert inside >= 3


def test_a_flat_image_is_passed_by_without_a_warning() -> None:
    item = {"image": torch.full((1, 6, 6), 2.0), "label": torch.ones(1, 6, 6)}
    change = _UnlessFlat("image", num_control_points=3, prob=1.0, allow_missing_keys=True).set_random_state(seed=0)
    assert torch.equal(change(item)["image"], item["image"])
    other = {**item, "image": torch.linspace(0, 1, 36).reshape(1, 6, 6)}
    assert not torch.equal(change(other)["image"], other["image"])


def test_other_words_are_refused() -> None:
    with pytest.raises(ValueError, match=r"strength must be one of \('mild', 'strong'\), got 'wild'"):
        usual_augmentation((8, 8), 2, strength="wild")
    with pytest.raises(TypeError, match=r"options must be of rotation, .*, got rotations"):
        usual_augmentation((8, 8), 2, rotations=3)


@pytest.mark.parametrize(("roi", "axis"), [((8, 8, 8), None), ((8, 8), 2), ((8, 8, 8), 2)])
def test_the_student_sees_the_places_of_the_teacher_at_other_intensities(
    roi: tuple[int, ...], axis: int | None
) -> None:
    easy, both = (
        unlabelled_augmentation(roi, 2, slice_axis=axis, student_changes=changes) for changes in ("none", "strong")
    )
    # smooth: fewer voxels or a blur leave nothing of noise
    waves = [2 + torch.linspace(0, period, side).sin() for period, side in zip((5, 7, 6), (12, 11, 10), strict=True)]
    item = {"image": MetaTensor(torch.einsum("i,j,k->ijk", *waves)[None])}
    assert set(easy(dict(item))) == {"image"}
    for seed in range(8):
        pair = both.set_random_state(seed=seed)(dict(item))
        seen, changed = (pair[key].as_subclass(torch.Tensor).flatten() for key in ("image", "changed"))
        assert pair["changed"].shape == pair["image"].shape == (1, *roi)
        assert not torch.equal(seen, changed)
        assert torch.corrcoef(torch.stack([seen, changed]))[0, 1] > 0.4  # of other places: 0


def test_the_teacher_of_a_changing_student_sees_the_intensities_of_the_scan() -> None:
    image = MetaTensor(torch.rand(1, 8, 8, 8, generator=torch.Generator().manual_seed(0)))
    both = unlabelled_augmentation((8, 8, 8), 2, student_changes="strong", affine_prob=0.0)
    for seed in range(8):
        assert torch.equal(both.set_random_state(seed=seed)({"image": image})["image"], image)


def test_another_strength_for_the_student_is_refused() -> None:
    with pytest.raises(ValueError, match=r"student_changes must be one of .*'none'.*, got 'wild'"):
        unlabelled_augmentation((8, 8), 2, student_changes="wild")
