import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, MapTransform, Randomizable

from monai_cl.transforms import (
    CropPlan,
    VolumeContrastCrops,
    VolumeContrastCropsD,
    VolumeContrastCropsd,
    VolumeContrastCropsDict,
    overlap_fractions,
)

PLAIN = {"flip_prob": 0.0, "intensity_prob": 0.0}


def coordinates(shape: tuple[int, ...]) -> torch.Tensor:
    """A volume whose channels hold each voxel's own index."""
    return torch.stack(torch.meshgrid(*[torch.arange(float(n)) for n in shape], indexing="ij"))


@pytest.mark.parametrize(
    ("grid", "size", "shape"),
    [((3, 3, 2), (4, 5, 6), (14, 18, 15)), ((4, 4, 1), (4, 4, 8), (16, 16, 8)), ((2, 3), (6, 4), (13, 20))],
)
def test_views_are_windows_of_the_volume_at_the_recorded_places(
    grid: tuple[int, ...], size: tuple[int, ...], shape: tuple[int, ...]
) -> None:
    transform = VolumeContrastCrops(grid, size, 5, **PLAIN).set_random_state(seed=3)
    views = transform(coordinates(shape))
    for name in ("crops", "bases"):
        centers = views[name].flatten(2).mean(-1)  # a view of coordinates averages to its own centre
        torch.testing.assert_close(centers, views[f"{name[:-1]}_centers"])
        assert views[name].shape[2:] == size


def views_one_at_a_time(
    transform: VolumeContrastCrops, image: torch.Tensor, plan: CropPlan
) -> tuple[torch.Tensor, torch.Tensor]:
    """The crops and bases that a plan describes, plainly: pad all, then slice, mirror, scale and shift each view."""
    data = image.float()
    value = float(data.min()) if transform.background is None else transform.background
    data = torch.nn.functional.pad(data, [int(p) for p in plan.padding[::-1].ravel()], value=value)
    corners = [np.multiply(cell, transform.base_size) for cell in np.ndindex(*transform.grid)]
    wanted = [(start, transform.crop_size) for start in plan.crop_starts]
    wanted += [(start, transform.base_size) for start in corners]
    views = []
    for n, (start, size) in enumerate(wanted):
        window = [slice(int(c + a), int(c + a) + r) for c, a, r in zip(plan.canvas_start, start, size, strict=True)]
        view = data[(slice(None), *window)]
        for axis in range(len(size)):
            view = view.flip(axis + 1) if plan.flips[n, axis] else view
        views.append(view * float(np.float32(plan.scales[n])) + float(np.float32(plan.shifts[n])))
    return torch.stack(views[: transform.num_crops]), torch.stack(views[transform.num_crops :])


GRIDS = [
    ((3, 3, 2), (4, 5, 6), None, (14, 18, 15)),
    ((4, 4, 1), (4, 4, 8), None, (16, 16, 8)),
    ((4, 4, 1), (4, 4, 8), None, (10, 20, 8)),  # shorter than the canvas along one axis
    ((2, 3), (6, 4), None, (13, 20)),
    ((2, 3), (6, 4), (5, 5), (8, 9)),  # shorter along both, bases of another size
    ((3,), (5,), None, (13,)),
]


@pytest.mark.parametrize(("grid", "size", "base_size", "shape"), GRIDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int16, torch.uint8])
@pytest.mark.parametrize("background", [None, -3.0])
def test_views_equal_those_cut_one_at_a_time(
    grid: tuple, size: tuple, base_size: tuple | None, shape: tuple, dtype: torch.dtype, background: float | None
) -> None:
    transform = VolumeContrastCrops(grid, size, 5, base_size=base_size, flip_prob=0.5, background=background)
    transform.set_random_state(seed=1)
    image = (torch.rand(2, *shape, generator=torch.Generator().manual_seed(0)) * 100).to(dtype)
    plan = transform.randomize(shape)
    crops, bases = views_one_at_a_time(transform, image, plan)
    views = transform.apply(image, plan)
    assert torch.equal(views["crops"], crops)
    assert torch.equal(views["bases"], bases)


@pytest.mark.parametrize(("grid", "size", "base_size", "shape"), GRIDS)
def test_every_voxel_of_a_view_is_traced_to_its_place_in_mm(
    grid: tuple, size: tuple, base_size: tuple | None, shape: tuple
) -> None:
    nd = len(shape)
    turn, _ = torch.linalg.qr(torch.randn(nd, nd, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    affine = torch.eye(nd + 1, dtype=torch.float64)
    affine[:nd, :nd] = turn * torch.tensor([0.8, 1.5, 5.0])[:nd]  # rotated, with other voxel sizes an axis
    affine[:nd, -1] = torch.tensor([-100.0, 40.0, 7.0])[:nd]
    # a volume of which each voxel holds where it lies
    index = coordinates(shape).flatten(1).T.double()
    millimetres = (index @ affine[:nd, :nd].T + affine[:nd, -1]).T.reshape(nd, *shape).float()
    # MONAI's affines are of three axes; the first nd of them are what a volume of nd axes uses
    full = torch.eye(4, dtype=torch.float64)
    full[:nd, :nd], full[:nd, -1] = affine[:nd, :nd], affine[:nd, -1]
    image = MetaTensor(millimetres, affine=affine if nd == 3 else full)
    transform = VolumeContrastCrops(
        grid, size, 6, base_size=base_size, flip_prob=0.5, intensity_prob=0.0, background=float("nan")
    ).set_random_state(seed=2)
    views = transform(image)
    for name in ("crop", "base"):
        for n, view in enumerate(views[f"{name}s"]):
            own = coordinates(tuple(view.shape[1:]))
            for axis in range(nd):
                if views[f"{name}_flips"][n, axis]:
                    own[axis] = view.shape[axis + 1] - 1 - own[axis]
            where = own.flatten(1).T.double() + views[f"{name}_starts"][n]
            expected = (where @ affine[:nd, :nd].T + affine[:nd, -1]).T.reshape(view.shape).float()
            padded = view.isnan()
            outside = ((where < 0) | (where >= torch.tensor(shape))).any(1).reshape(view.shape[1:])
            assert torch.equal(padded, outside.expand_as(padded))
            torch.testing.assert_close(view[~padded], expected[~padded], atol=1e-3, rtol=1e-5)
            torch.testing.assert_close(views[f"{name}_centers"][n], expected.flatten(1).mean(1), atol=1e-3, rtol=1e-5)


def test_views_own_their_memory() -> None:
    image = torch.rand(1, 8, 8)
    before = image.clone()
    views = VolumeContrastCrops((1, 1), (8, 8), 1, intensity_prob=1.0)(image)
    views["bases"].zero_()
    assert torch.equal(image, before)


def test_views_lie_where_the_volume_lies() -> None:
    views = VolumeContrastCrops((2, 2), (4, 4), 3, flip_prob=0.5, background=0.0)(torch.rand(1, 6, 9, device="meta"))
    assert {value.device.type for value in views.values()} == {"meta"}


def test_bases_tile_the_canvas_with_the_last_axis_fastest() -> None:
    views = VolumeContrastCrops((2, 2, 3), (4, 4, 4), 1, **PLAIN)(coordinates((8, 8, 12)))
    expected = [[4 * i, 4 * j, 4 * k] for i in range(2) for j in range(2) for k in range(3)]
    assert views["bases"][:, :, 0, 0, 0].tolist() == expected


def test_overlap_agrees_with_the_centres() -> None:
    views = VolumeContrastCrops((3, 2, 2), (5, 4, 6), 7, **PLAIN)(torch.rand(1, 15, 8, 12))
    torch.testing.assert_close(
        views["overlap"], overlap_fractions(views["crop_centers"] + 0.5, (3, 2, 2), (5, 4, 6)), atol=1e-5, rtol=0
    )


def test_both_ends_of_the_range_are_drawn() -> None:
    transform = VolumeContrastCrops((2, 1), (4, 4), 400, **PLAIN).set_random_state(seed=0)
    starts = transform.randomize((8, 4)).crop_starts[:, 0]
    assert set(starts) == set(range(5))


def test_the_canvas_reaches_both_ends_of_a_larger_volume() -> None:
    transform = VolumeContrastCrops((2,), (4,), 1, **PLAIN).set_random_state(seed=0)
    assert {int(transform.randomize((10,)).canvas_start[0]) for _ in range(100)} == {0, 1, 2}


def test_a_plan_replays_exactly() -> None:
    transform = VolumeContrastCrops((2, 2, 2), (6, 6, 6), 3).set_random_state(seed=5)
    image = torch.rand(2, 10, 16, 14)
    plan = transform.randomize(image.shape[1:])
    first, second = transform.apply(image, plan), transform.apply(image, plan)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_same_seed_gives_the_same_views_and_another_seed_others() -> None:
    image = torch.rand(1, 20, 20, 20)
    make = lambda seed: VolumeContrastCrops((2, 2, 2), (8, 8, 8), 4).set_random_state(seed=seed)(image)  # noqa: E731
    assert torch.equal(make(1)["crops"], make(1)["crops"])
    assert not torch.equal(make(1)["crops"], make(2)["crops"])


def test_augmentation_equals_flipping_and_scaling_one_view_at_a_time() -> None:
    transform = VolumeContrastCrops((2, 2, 1), (5, 5, 4), 6, flip_prob=0.5, intensity_prob=1.0).set_random_state(0)
    image = torch.rand(1, 10, 10, 4)
    plan = transform.randomize(image.shape[1:])
    views = transform.apply(image, plan)
    for n in range(6):
        window = tuple(slice(int(a), int(a) + r) for a, r in zip(plan.crop_starts[n], transform.crop_size, strict=True))
        expected = image[(slice(None), *window)]
        for axis in range(3):
            if plan.flips[n, axis]:
                expected = expected.flip(axis + 1)
        torch.testing.assert_close(views["crops"][n], expected * float(plan.scales[n]) + float(plan.shifts[n]))


def test_a_short_volume_is_padded_with_the_background_and_never_resized() -> None:
    image = torch.full((1, 5, 12), 3.0)
    image[0, 0, 0] = -2.0
    views = VolumeContrastCrops((2, 2), (4, 6), 30, min_foreground=0.5, **PLAIN).set_random_state(seed=1)(image)
    assert set(views["bases"].unique().tolist()) == {-2.0, 3.0}
    inside = (views["crops"] == 3.0).flatten(1).float().mean(1)
    assert float(inside.min()) >= 0.5 - 1 / 24


def test_world_centres_go_through_the_affine() -> None:
    affine = torch.tensor([[0.0, 2.0, 0.0, 5.0], [1.5, 0.0, 0.0, -7.0], [0.0, 0.0, 3.0, 1.0], [0.0, 0.0, 0.0, 1.0]])
    transform = VolumeContrastCrops((2, 2, 2), (4, 4, 4), 3, **PLAIN).set_random_state(seed=2)
    image = MetaTensor(coordinates((10, 9, 8)), affine=affine)
    views = transform(image)
    index = views["crops"].flatten(2).mean(-1)
    torch.testing.assert_close(views["crop_centers"], index @ affine[:3, :3].T + affine[:3, 3])


SLICES = {
    "axial": [[0.0, 2.0, 0.0, 5.0], [1.5, 0.0, 0.0, -7.0], [0.0, 0.0, 3.0, 1.0]],
    "sagittal": [[0.0, 0.0, 2.0, 0.0], [1.5, 0.0, 0.0, 4.0], [0.0, 3.0, 0.0, 0.0]],
    "oblique": [[1.2, 0.0, 1.0, 3.0], [0.0, 3.0, 0.0, 1.0], [0.9, 0.0, -1.0, 0.0]],
}


@pytest.mark.parametrize("name", SLICES)
def test_distances_in_a_slice_are_true_however_it_lies(name: str) -> None:
    affine = torch.tensor([*SLICES[name], [0.0, 0.0, 0.0, 1.0]])
    image = MetaTensor(torch.rand(1, 32, 32), affine=affine)
    views = VolumeContrastCrops((4, 4), (8, 8), 2, **PLAIN).set_random_state(seed=0)(image)
    centres, corners = views["base_centers"], views["base_starts"].float() + 3.5
    world = corners @ affine[:3, :2].T + affine[:3, 3]
    assert centres.shape == (16, 2)
    torch.testing.assert_close(torch.cdist(centres, centres), torch.cdist(world, world), atol=1e-3, rtol=1e-4)
    if name == "axial":
        torch.testing.assert_close(centres, world[:, :2])
        for tilt in (1e-12, 1e-3):  # changes little
            image.affine = affine + tilt * torch.eye(4)[[3, 3, 0, 3]] * torch.tensor([[0.0], [0.0], [1.0], [0.0]])
            tilted = VolumeContrastCrops((4, 4), (8, 8), 2, **PLAIN).set_random_state(seed=0)(image)
            torch.testing.assert_close(tilted["base_centers"], centres, atol=0.1, rtol=0)


def test_numpy_tensor_and_metatensor_give_the_same_plain_tensors() -> None:
    image = torch.rand(1, 12, 12, 12)
    results = []
    for form in (image, image.numpy(), MetaTensor(image)):
        results.append(VolumeContrastCrops((2, 2, 2), (6, 6, 6), 2).set_random_state(seed=0)(form))
    for result in results[1:]:
        assert all(torch.equal(results[0][name], result[name]) for name in result)
    assert not isinstance(results[2]["crops"], MetaTensor)


def test_crops_and_bases_may_differ_in_size() -> None:
    views = VolumeContrastCrops((2, 2), (6, 6), 2, base_size=(8, 8), **PLAIN)(torch.rand(1, 16, 16))
    assert views["crops"].shape == (2, 1, 6, 6)
    assert views["bases"].shape == (4, 1, 8, 8)
    torch.testing.assert_close(views["overlap"].sum(1), torch.ones(2))


def test_dictionary_form_follows_the_contract() -> None:
    assert VolumeContrastCropsD is VolumeContrastCropsDict is VolumeContrastCropsd
    assert issubclass(VolumeContrastCropsd, MapTransform)
    assert issubclass(VolumeContrastCropsd, Randomizable)
    transform = VolumeContrastCropsd(["image", "other"], (2, 2), (4, 4), 3, allow_missing_keys=True, **PLAIN)
    data = {"image": torch.rand(1, 8, 8), "case": "a"}
    result = transform.set_random_state(seed=0)(data)
    assert result["case"] == "a"
    assert result["image"]["crops"].shape == (3, 1, 4, 4)
    assert data["image"].shape == (1, 8, 8)
    with pytest.raises(KeyError, match="other"):
        VolumeContrastCropsd(["image", "other"], (2, 2), (4, 4))(data)


def test_all_keys_share_one_plan() -> None:
    image = torch.rand(1, 12, 12)
    result = VolumeContrastCropsd(["a", "b"], (2, 2), (4, 4), 3)({"a": image, "b": image})
    assert torch.equal(result["a"]["crops"], result["b"]["crops"])
    with pytest.raises(ValueError, match="all keys must have one spatial shape"):
        VolumeContrastCropsd(["a", "b"], (2, 2), (4, 4), 3)({"a": image, "b": image[:, :-1]})


def test_a_seeded_compose_seeds_it() -> None:
    chain = Compose([VolumeContrastCropsd("image", (2, 2), (4, 4), 3)])
    image = torch.rand(1, 12, 12)
    first = chain.set_random_state(seed=4)({"image": image})["image"]["crops"]
    assert torch.equal(first, chain.set_random_state(seed=4)({"image": image})["image"]["crops"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((2, 2), (4, 4, 4)), "must have the same 1 to 3 axes"),
        (((2, 0), (4, 4)), "must be at least 1"),
        (((2, 2), (4, 4), 0), "must be at least 1"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VolumeContrastCrops(*arguments)


def test_a_crop_larger_than_the_canvas_is_refused() -> None:
    with pytest.raises(ValueError, match=r"crop_size must be at most the canvas \(8, 8\).*choose a smaller crop"):
        VolumeContrastCrops((2, 2), (9, 4), base_size=(4, 4))


def test_a_volume_of_another_dimension_is_refused() -> None:
    with pytest.raises(ValueError, match="channel-first with 3 spatial axes"):
        VolumeContrastCrops((2, 2, 2), (4, 4, 4))(torch.rand(8, 8, 8))


def test_probabilities_are_checked() -> None:
    with pytest.raises(ValueError, match=r"flip_prob must be between 0 and 1, got 1.5"):
        VolumeContrastCrops((2, 2), (4, 4), flip_prob=1.5)


def test_arrays_of_the_plan_are_plain_numpy() -> None:
    plan = VolumeContrastCrops((2, 2), (4, 4)).randomize((9, 9))
    arrays = [value for name, value in vars(plan).items() if name != "changes"]
    assert all(isinstance(value, np.ndarray) for value in arrays)
