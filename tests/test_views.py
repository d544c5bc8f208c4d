"""Views with the places of their voxels, on phantoms whose intensity says where a voxel lies."""

from typing import Any

import numpy as np
import pytest
import torch
from monai.data import DataLoader, MetaTensor, list_data_collate
from monai.transforms import (
    Compose,
    CropForeground,
    CropForegroundd,
    MapTransform,
    OneOf,
    Orientationd,
    Rand2DElastic,
    Rand2DElasticd,
    Rand3DElastic,
    Rand3DElasticd,
    RandAdjustContrastd,
    RandAffine,
    RandAffined,
    RandAxisFlip,
    RandCropByPosNegLabeld,
    RandFlip,
    RandFlipd,
    RandGaussianNoise,
    RandGaussianNoised,
    RandGridDistortion,
    Randomizable,
    RandRotate,
    RandRotate90,
    RandScaleIntensityd,
    RandSmoothDeform,
    RandSpatialCrop,
    RandSpatialCropd,
    RandSpatialCropSamples,
    RandZoom,
    Resize,
    Resized,
    ResizeWithPadOrCropd,
    ScaleIntensity,
    SelectItemsd,
    SomeOf,
    Spacingd,
    SpatialPad,
    Transform,
)

from monai_cl.data import ViewDataset, view_loader
from monai_cl.losses import DenseContrastiveLoss
from monai_cl.qmri import tissue
from monai_cl.transforms import RandMRContrastd, RandViews, RandViewsD, RandViewsd, RandViewsDict
from monai_cl.transforms.mr_contrast import MAPS

SHAPE = (30, 26, 20)
LINEAR = {2: "bilinear", 3: "trilinear"}


def smooth(places: torch.Tensor) -> torch.Tensor:
    """A function of place, (nd, ...) -> (...), whose slope is at least 1/4 a voxel in every direction."""
    return sum(((axis + 1.0) * place + 3 * torch.sin(place / 6 + axis)) for axis, place in enumerate(places))  # type: ignore[return-value]


def phantom(nd: int, affine: torch.Tensor | None = None) -> MetaTensor:
    """Channels: the indices of each voxel, and a smooth function of them; 0 is not an index, as padding has it."""
    indices = torch.stack(torch.meshgrid(*[torch.arange(float(n)) for n in SHAPE[:nd]], indexing="ij"))
    image = MetaTensor(torch.cat([indices, smooth(indices)[None]]))
    if affine is not None:
        image.affine = affine
    return image


def error(found: dict[Any, Any], nd: int, key: str = "views") -> tuple[float, float]:
    """Largest distance in voxels between where a valid voxel is said to be from and what it shows; share valid."""
    shown = found[key].as_tensor() if isinstance(found[key], MetaTensor) else found[key]
    distance = (shown[:, :nd] - found["coords"]).norm(dim=1)
    # the function at the place against the interpolated intensity: its curvature, 1/12 a squared voxel, adds little
    value = (smooth(found["coords"].movedim(1, 0)) - shown[:, nd]).abs()
    assert float(value[found["valid"]].max()) < 0.25
    return float(distance[found["valid"]].max()), float(found["valid"].float().mean())


def elastic(nd: int) -> Any:
    if nd == 2:
        return Rand2DElastic(spacing=(10, 10), magnitude_range=(1, 2), prob=1.0, rotate_range=0.2)
    return Rand3DElastic(sigma_range=(4, 5), magnitude_range=(40, 80), prob=1.0, rotate_range=0.2)


CHAINS = {
    "crop": lambda nd: RandSpatialCrop((14,) * nd, random_size=False),
    "flip": lambda nd: RandFlip(prob=1.0, spatial_axis=nd - 1),
    "axis flip": lambda nd: RandAxisFlip(prob=1.0),
    "rot90": lambda nd: Compose([RandSpatialCrop((14,) * nd, random_size=False), RandRotate90(prob=1.0)]),
    "rotate": lambda nd: RandRotate(0.5, prob=1.0),
    "affine": lambda nd: RandAffine(prob=1.0, rotate_range=0.4, scale_range=[0.15] * nd, translate_range=[3] * nd),
    "affine, border": lambda nd: RandAffine(prob=1.0, rotate_range=0.4, shear_range=0.2, padding_mode="border"),
    "zoom": lambda nd: RandZoom(prob=1.0, min_zoom=0.7, max_zoom=1.4),
    "elastic": elastic,
    "grid distortion": lambda nd: RandGridDistortion(prob=1.0, distort_limit=0.2),
    "resize": lambda nd: Compose([RandSpatialCrop((12,) * nd, random_size=False), Resize((19,) * nd, mode=LINEAR[nd])]),
    "one of": lambda nd: OneOf([RandFlip(prob=1.0, spatial_axis=0), elastic(nd), RandRotate(0.5, prob=1.0)]),
    "some of": lambda nd: SomeOf([RandFlip(prob=0.5), RandGaussianNoise(prob=1.0, std=0.0), RandRotate(0.5, prob=1.0)]),
    "all": lambda nd: Compose([
        RandSpatialCrop((18,) * nd, random_size=False), RandFlip(prob=0.5, spatial_axis=0), RandRotate90(prob=0.5),
        RandAffine(prob=1.0, rotate_range=0.3, scale_range=[0.1] * nd), elastic(nd),
        Resize((16,) * nd, mode=LINEAR[nd]),
    ]),
}  # fmt: skip
EXACT = {"crop", "flip", "axis flip", "rot90"}


@pytest.mark.parametrize("nd", [2, 3])
@pytest.mark.parametrize("name", CHAINS)
def test_places_are_those_that_voxels_show(name: str, nd: int) -> None:
    views = RandViews(CHAINS[name](nd)).set_random_state(seed=2)
    for _ in range(2):
        found = views(phantom(nd))
        distance, share = error(found, nd)
        assert distance == 0 if name in EXACT else distance < 0.05
        assert share == 1 if name in EXACT else share > 0.3


def test_a_lazy_chain_is_followed_and_interpolated_once() -> None:
    steps = [RandFlip(prob=0.5, spatial_axis=0), RandRotate(0.5, prob=1.0), RandZoom(prob=1.0, mode="trilinear")]
    found = RandViews(Compose(steps, lazy=True)).set_random_state(seed=1)(phantom(3))
    distance, share = error(found, 3)
    assert distance < 0.05
    assert 0.3 < share < 1


OBLIQUE = torch.tensor(
    [[0.0, -1.2, 0.1, 5.0], [1.4, 0.0, 0.0, -7.0], [0.1, 0.0, -4.0, 60.0], [0.0, 0.0, 0.0, 1.0]], dtype=torch.float64
)


def test_orientation_and_spacing_within_the_chain_are_followed() -> None:
    chain = Compose([
        Orientationd("image", "RAS", labels=None), Spacingd("image", (1.0, 1.5, 3.0)),
        RandAffined("image", prob=1.0, rotate_range=0.2, padding_mode="zeros"),
    ])  # fmt: skip
    found = RandViewsd("image", chain).set_random_state(seed=0)({"image": phantom(3, OBLIQUE)})
    distance, share = error(found, 3, "image")
    assert distance < 0.05
    assert share > 0.4
    for view, coords, valid in zip(found["image"], found["coords"], found["valid"], strict=True):
        # MONAI's own account of the same: the affine of each view, from its voxel to mm and back into the source
        there = torch.linalg.inv(OBLIQUE) @ view.affine
        u = torch.stack(torch.meshgrid(*[torch.arange(n, dtype=torch.float64) for n in valid.shape], indexing="ij"))
        expected = torch.einsum("ij,j...->i...", there[:3, :3], u) + there[:3, 3].reshape(3, 1, 1, 1)
        torch.testing.assert_close(coords.double()[:, valid], expected[:, valid], atol=0.05, rtol=0)
        # where nothing is known, places go on as the affine says
        torch.testing.assert_close(coords.double(), expected, atol=0.05, rtol=0)


def test_millimetres_are_indices_times_the_spacing_of_the_source() -> None:
    chain = RandSpatialCropd("image", (8, 8, 8), random_size=False)
    one, other = (
        RandViewsd("image", chain, unit=unit).set_random_state(seed=0)({"image": phantom(3, OBLIQUE)})
        for unit in ("voxel", "mm")
    )
    spacing = OBLIQUE[:3, :3].norm(dim=0).float().reshape(1, 3, 1, 1, 1)
    torch.testing.assert_close(other["coords"], one["coords"] * spacing)


def test_places_may_start_at_the_centre_of_the_volume() -> None:
    chain = RandSpatialCropd("image", (8, 8, 8), random_size=False)
    item = {"image": phantom(3, OBLIQUE)}
    one, other = (
        RandViewsd("image", chain, unit="mm", origin=origin).set_random_state(seed=0)(item)
        for origin in ("first", "centre")
    )
    spacing = OBLIQUE[:3, :3].norm(dim=0).float()
    centre = (torch.tensor(item["image"].shape[1:]) - 1) / 2 * spacing
    torch.testing.assert_close(other["coords"], one["coords"] - centre.reshape(1, 3, 1, 1, 1))


@pytest.mark.parametrize("mode", ["zeros", "border", "reflection"])
def test_padding_of_any_mode_is_not_valid(mode: str) -> None:
    chain = RandAffine(prob=1.0, translate_range=[(6, 6), (0, 0)], padding_mode=mode)
    found = RandViews(chain, 1)(phantom(2))
    indices = torch.arange(float(SHAPE[0]))
    inside = (indices + 6 < SHAPE[0]) if bool(found["valid"][0, 0, 0]) else (indices - 6 >= 0)
    assert torch.equal(found["valid"][0], inside[:, None].expand(SHAPE[:2]))
    assert not bool(inside.all())


@pytest.mark.parametrize("value", [0.0, 1.0, -5.0])
def test_padding_to_a_size_is_not_valid_whatever_the_value(value: float) -> None:
    found = RandViews(SpatialPad((SHAPE[0] + 6, SHAPE[1]), value=value), 1)(phantom(2))
    rows = torch.arange(float(SHAPE[0] + 6)) - 3
    assert torch.equal(found["valid"][0], ((rows >= 0) & (rows < SHAPE[0]))[:, None].expand(-1, SHAPE[1]))
    torch.testing.assert_close(found["coords"][0, 0], rows[:, None].expand(-1, SHAPE[1]))


@pytest.mark.parametrize("seed", range(3))
def test_places_go_on_smoothly_at_the_rim_of_the_source_where_the_field_is_bent(seed: int) -> None:
    chain = Rand2DElastic(spacing=(10, 10), magnitude_range=(2, 3), prob=1.0, scale_range=[(0.5, 0.6)] * 2)
    found = RandViews(chain, 1).set_random_state(seed=seed)(phantom(2))
    coords, valid = found["coords"][0], found["valid"][0]
    inside, rim = [], []
    for axis in range(2):
        step = torch.diff(coords, dim=axis + 1).norm(dim=0)
        one, next_one = (valid.narrow(axis, start, valid.shape[axis] - 1) for start in (0, 1))
        inside.append(step[one & next_one].max())
        rim.append(step[one ^ next_one].max())
    assert float(max(rim)) < 1.3 * float(max(inside))


def test_nothing_of_the_source_in_a_view_gives_no_valid_voxel_and_finite_places() -> None:
    found = RandViews(RandAffine(prob=1.0, translate_range=[(500, 500), (0, 0)], padding_mode="zeros"))(phantom(2))
    assert not found["valid"].any()
    assert found["coords"].isfinite().all()


def test_nearest_voxels_are_named_as_whole_indices() -> None:
    found = RandViews(RandRotate(0.5, prob=1.0, mode="nearest")).set_random_state(seed=1)(phantom(2))
    distance, _ = error(found, 2)
    assert distance == 0


def dictionary_chain(nd: int = 3) -> Compose:
    elastic = (
        Rand2DElasticd(["image", "label"], (10, 10), (1, 2), prob=1.0, mode=["bilinear", "nearest"])
        if nd == 2
        else Rand3DElasticd(["image", "label"], (4, 5), (40, 80), prob=1.0, mode=["bilinear", "nearest"])
    )
    return Compose([
        RandCropByPosNegLabeld(["image", "label"], "label", (16,) * nd, num_samples=1, allow_smaller=False),
        RandFlipd(["image", "label"], prob=0.5, spatial_axis=0),
        RandAffined(["image", "label"], prob=1.0, rotate_range=0.3, mode=["bilinear", "nearest"]),
        elastic,
        Resized(["image", "label"], (14,) * nd, mode=[LINEAR[nd], "nearest"]),
    ])  # fmt: skip


@pytest.mark.parametrize("nd", [2, 3])
def test_dictionary_chains_are_followed_with_labels_and_crops_around_them(nd: int) -> None:
    label = MetaTensor(torch.zeros(1, *SHAPE[:nd]))
    label[(slice(None), *[slice(8, 13)] * nd)] = 1
    item = {"image": phantom(nd), "label": label, "case": "a"}
    found = RandViewsd(["image", "label"], dictionary_chain(nd)).set_random_state(seed=0)(item)
    distance, share = error(found, nd, "image")
    assert distance < 0.05
    assert share > 0.5
    assert found["case"] == "a"
    assert found["label"].shape == (2, 1, *(14,) * nd)
    # the label of a view is the label at its places, but for the voxels at its rim
    index = found["coords"].round().long().movedim(1, 0).unbind(0)
    there = label.as_tensor()[0][tuple(i.clamp(0, n - 1) for i, n in zip(index, SHAPE[:nd], strict=True))]
    agreement = (there == found["label"].as_tensor()[:, 0])[found["valid"]].float().mean()
    assert float(agreement) > 0.85  # a box of five voxels has many at its rim; of other places: 0.5 to 0.7


def test_a_crop_to_the_foreground_is_followed_in_a_dictionary_chain() -> None:
    image = phantom(2)
    image[:, :10] = 0
    chain = Compose([CropForegroundd("image", source_key="image"), ResizeWithPadOrCropd("image", (28, 28))])
    found = RandViewsd("image", chain)({"image": image})
    assert error(found, 2, "image")[0] == 0
    assert float(found["coords"][0, 0][found["valid"][0]].min()) == 10


def test_intensity_steps_change_views_and_no_places() -> None:
    spatial = [RandSpatialCropd("image", (14, 14), random_size=False), RandFlipd("image", prob=0.5)]
    intensity = [RandGaussianNoised("image", prob=1.0), RandAdjustContrastd("image", prob=1.0),
                 RandScaleIntensityd("image", factors=0.5, prob=1.0)]  # fmt: skip
    item = {"image": phantom(2)[:1]}
    found = RandViewsd("image", Compose([*spatial, *intensity])).set_random_state(seed=4)(item)
    plain = RandViewsd("image", Compose([*spatial, *intensity[:0]])).set_random_state(seed=4)(item)
    assert torch.equal(found["coords"], plain["coords"])
    assert not torch.equal(found["image"], plain["image"])
    assert found["valid"].all()


def test_each_view_may_have_a_contrast_of_its_own() -> None:
    values = tissue("white_matter").typical()
    maps = torch.stack([torch.full((16, 16, 10), getattr(values, name)) for name in MAPS])
    chain = Compose([
        RandFlipd("image", prob=0.5), RandMRContrastd("image", ["t1w_se", "t2w_fse", "t1w_mprage"]),
        RandSpatialCropd("image", (10, 10, 8), random_size=False),
    ])  # fmt: skip
    found = RandViewsd("image", chain, 3).set_random_state(seed=3)({"image": MetaTensor(maps)})
    assert found["image"].shape == (3, 1, 10, 10, 8)
    assert found["coords"].shape == (3, 3, 10, 10, 8)
    assert len(found["image"].flatten(1).mean(1).unique()) == 3


def test_the_same_state_gives_the_same_views_and_seeds_replay_them() -> None:
    views = RandViews(CHAINS["all"](2))
    first, again = (views.set_random_state(seed=7)(phantom(2)) for _ in range(2))
    other = views(phantom(2))
    replayed = views.apply(phantom(2), views.set_random_state(seed=7).randomize())
    assert all(torch.equal(first[key], again[key]) and torch.equal(first[key], replayed[key]) for key in first)
    assert not torch.equal(first["coords"], other["coords"])
    assert not torch.equal(first["coords"][0], first["coords"][1])


def test_the_chain_of_the_caller_is_left_as_it_was() -> None:
    chain = dictionary_chain(2)
    RandViewsd("image", chain)
    assert all(step.keys == ("image", "label") for step in chain.transforms)
    state = chain.transforms[1].R.get_state()[1].copy()
    label = torch.zeros(1, *SHAPE[:2])
    label[:, 10:20, 10:20] = 1
    RandViewsd("image", chain)({"image": phantom(2), "label": label})
    assert np.array_equal(chain.transforms[1].R.get_state()[1], state)


@pytest.mark.parametrize("dictionary", [False, True])
def test_the_source_is_left_as_it_was_by_a_lazy_chain(dictionary: bool) -> None:
    image = phantom(3)
    if dictionary:
        views: Any = RandViewsd("image", Compose([RandFlipd("image", 0.5, 0), RandFlipd("image", 0.5, 1)], lazy=True))
    else:
        views = RandViews(Compose([RandFlip(0.5, 0), RandFlip(0.5, 1)], lazy=True))
    views.set_random_state(seed=0)
    for _ in range(4):
        views({"image": image} if dictionary else image)
    assert not image.pending_operations
    assert not image.applied_operations


def test_lazy_views_of_a_plane_are_stacked_whether_or_not_they_were_moved() -> None:
    views = RandViews(Compose([RandFlip(0.5, 0)], lazy=True), 8).set_random_state(seed=0)
    found = views(phantom(2))
    moved = found["coords"][:, 0, 0, 0] > 0
    assert moved.any()
    assert not moved.all()
    assert found["views"].affine.shape == (8, 4, 4)
    assert error(found, 2) == (0.0, 1.0)


def test_every_view_has_its_own_affine() -> None:
    chain = RandSpatialCropd("image", (8, 8, 8), random_size=False)
    found = RandViewsd("image", chain, 3).set_random_state(seed=0)({"image": phantom(3, OBLIQUE)})
    for view, coords in zip(found["image"], found["coords"], strict=True):
        expected = OBLIQUE[:3, :3] @ coords[:, 0, 0, 0].double() + OBLIQUE[:3, 3]
        torch.testing.assert_close(view.affine[:3, 3], expected)


def test_views_pass_through_loaders_of_any_number_of_workers() -> None:
    data = [{"image": phantom(2), "case": str(i)} for i in range(4)]
    chain = Compose([RandSpatialCropd("image", (14, 14), random_size=False), RandFlipd("image", prob=0.5)])
    dataset = ViewDataset(data, RandViewsd("image", chain), keys=["image", "coords", "valid"])  # type: ignore[arg-type]
    loaders = [view_loader(dataset, 4, batch_size=2, steps=3, num_workers=n) for n in (0, 2)]
    for alone, worked in zip(*loaders, strict=True):
        assert alone["image"].shape == (2, 2, 3, 14, 14)
        assert all(torch.equal(alone[key], worked[key]) for key in ("image", "coords", "valid"))
        assert len({tuple(place) for place in alone["coords"][..., 0, 0].flatten(0, 1).tolist()}) > 1


def test_views_pass_through_the_loader_of_monai() -> None:
    from monai.data import Dataset

    chain = Compose([RandSpatialCropd("image", (14, 14), random_size=False)])
    dataset = Dataset([{"image": phantom(2)} for _ in range(4)], Compose([RandViewsd("image", chain)]))
    batch = next(iter(DataLoader(dataset, batch_size=4, collate_fn=list_data_collate)))
    assert batch["image"].shape == (4, 2, 3, 14, 14)
    assert batch["image"].affine.shape == (4, 2, 4, 4)
    assert batch["coords"].shape == (4, 2, 2, 14, 14)


def test_the_dense_loss_finds_partners_by_the_places() -> None:
    # features that are functions of place alone: partners agree, wherever both views show a place
    image = phantom(2)
    frequencies = torch.randn(16, 2, generator=torch.Generator().manual_seed(0)) / 4
    waves = torch.cos(torch.einsum("cd,dhw->chw", frequencies, image.as_tensor()[:2]))
    chain = CHAINS["all"](2)
    found = RandViews(chain).set_random_state(seed=0)(MetaTensor(torch.cat([image.as_tensor(), waves])))
    f, places = found["views"].as_tensor()[:, 3:], found["coords"]
    loss = DenseContrastiveLoss(2, num_anchors=None, temperature=0.05, exclusion_radius=2.0)
    right = loss(f[None, 0], f[None, 1], places[None, 0], places[None, 1], found["valid"][None])
    wrong = loss(f[None, 0], f[None, 1], places[None, 0], places[None, 1].flip(-1), found["valid"][None])
    assert float(right) < 0.25 * float(wrong)


@pytest.mark.parametrize("form", [torch.Tensor.clone, lambda t: t.as_tensor(), lambda t: t.numpy()])
def test_numpy_tensor_and_metatensor_give_the_same(form: Any) -> None:
    chain = Compose([RandAffine(prob=1.0, rotate_range=0.3), RandSpatialCrop((16, 16), random_size=False)])
    found = RandViews(chain).set_random_state(seed=0)(form(phantom(2)))
    expected = RandViews(chain).set_random_state(seed=0)(phantom(2))
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert isinstance(found["views"], MetaTensor)
    assert not isinstance(found["coords"], MetaTensor)


def test_they_follow_the_contract() -> None:
    assert RandViewsD is RandViewsDict is RandViewsd
    assert issubclass(RandViewsd, MapTransform)
    assert issubclass(RandViewsd, Randomizable)
    chain = RandSpatialCropd(["image", "label"], (8, 8), random_size=False, allow_missing_keys=True)
    views = RandViewsd(["image", "label"], chain, 1, coords_key="xy", valid_key="known", allow_missing_keys=True)
    assert set(views({"image": phantom(2)})) == {"image", "xy", "known"}
    assert views({"case": "b"}) == {"case": "b"}
    with pytest.raises(KeyError, match="label"):
        RandViewsd(["image", "label"], chain)({"image": phantom(2)})
    with pytest.raises(KeyError, match="whose voxels are followed"):
        views({"label": phantom(2)})


def test_items_selected_in_the_chain_keep_the_places() -> None:
    chain = Compose([SelectItemsd("image"), RandSpatialCropd("image", (8, 8), random_size=False)])
    assert RandViewsd("image", chain)({"image": phantom(2), "other": 1})["valid"].all()


class Halved(Transform):
    """What the package cannot know to move voxels."""

    def __call__(self, data: Any) -> Any:
        return data[:, ::2]


@pytest.mark.parametrize(
    ("chain", "message"),
    [
        (RandSpatialCrop((8, 8), max_roi_size=(14, 14), random_size=True), "must have one shape.*Resize"),
        (RandSpatialCropSamples((8, 8), 3, random_size=False), "each view must be one sample, got 3"),
        (Halved(), "moves voxels in a step that cannot be followed"),
    ],
)
def test_chains_whose_views_cannot_be_stacked_or_followed_are_refused(chain: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RandViews(chain, 4).set_random_state(seed=0)(phantom(2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((ScaleIntensity(), 0), "num_views must be at least 1, got 0"),
        ((CropForeground(),), "use CropForegroundd in RandViewsd"),
        ((RandSmoothDeform((8, 8), (4, 4)),), "RandSmoothDeform cannot be followed: use Rand2DElastic"),
    ],
)
def test_what_cannot_be_is_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RandViews(*arguments)
    with pytest.raises(ValueError, match="origin must be 'first' or 'centre', got 'corner'"):
        RandViews(ScaleIntensity(), origin="corner")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unit must be 'voxel' or 'mm', got 'cm'"):
        RandViews(ScaleIntensity(), unit="cm")  # type: ignore[arg-type]
