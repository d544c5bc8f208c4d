"""Pairs of simulated views: what they show, that they replay, what the arms draw."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, RandCoarseDropout, RandFlip
from torch import Tensor
from torch.utils.data import default_collate

from monai_cl import recipes
from monai_cl.losses import DenseContrastiveLoss
from monai_cl.qmri import draw_protocol, from_weighted_rates, to_weighted_rates
from monai_cl.qmri.protocols import Mprage
from monai_cl.transforms import RandMRContrast, RandSequenceViews, RandSequenceViewsd, WeightedRatesd, usual_geometry
from monai_cl.transforms.intensity_change import IntensityChange

MAPS = ("pd", "t1", "t2", "t2_star", "mtsat")
TISSUES = torch.tensor([[69, 0.86, 0.07, 0.05, 0.0175], [82, 1.45, 0.08, 0.062, 0.009], [100, 4.3, 2.0, 1.0, 5e-4]])
FIXED = Mprage(tr=2.3, ti=0.9, echo_spacing=0.007, te=0.003, flip_angle=9.0, num_pulses=176)
NOTHING = Compose([RandFlip(prob=0.0)])  # leaves the pose as it is


def maps(size: int = 24, dims: int = 3, spacing: float = 1.0) -> MetaTensor:
    """Blocks of tissues in air."""
    generator = torch.Generator().manual_seed(0)
    blocks = torch.randint(0, 3, (size // 4,) * dims, generator=generator)
    for axis in range(dims):
        blocks = blocks.repeat_interleave(4, axis)
    values = TISSUES[blocks].movedim(-1, 0).clone()
    values[(slice(None), *[slice(0, 3)] * dims)] = 0
    return MetaTensor(values, affine=torch.diag(torch.tensor([spacing] * 3 + [1.0])))


def pair(**options: Any) -> RandSequenceViews:
    contrast = options.pop("contrast", RandMRContrast())
    return RandSequenceViews(options.pop("crop_size", (12, 12, 12)), contrast, **options)


def test_shapes_and_types() -> None:
    found = pair().set_random_state(seed=0)(maps())
    assert {name: tuple(value.shape) for name, value in found.items()} == {
        "views": (2, 1, 12, 12, 12),
        "coords": (2, 3, 12, 12, 12),
        "valid": (2, 12, 12, 12),
        "target": (2, 1, 12, 12, 12),
    }
    assert found["valid"].dtype == torch.bool
    assert all(type(value) is Tensor for value in found.values())
    assert bool(found["views"].isfinite().all())


def test_without_pose_and_artefacts_views_are_the_simulated_crop() -> None:
    source = maps()
    views = pair(geometry=NOTHING, margin=1.0, contrast=RandMRContrast([FIXED])).set_random_state(seed=1)
    record = views.randomize(source)
    found = views.apply(source, record)
    window = (slice(None), *(slice(a, a + 12) for a in record["start"]))
    expected = views.contrast.apply(source[window], record["contrasts"][0])
    for number in range(2):
        assert torch.allclose(found["views"][number], expected.as_tensor(), rtol=1e-4, atol=1e-4)
        assert torch.equal(found["views"][number], found["target"][number])
    grid = torch.stack(torch.meshgrid(*[torch.arange(12.0)] * 3, indexing="ij"))
    assert torch.allclose(found["coords"], grid.expand(2, 3, 12, 12, 12))
    assert torch.equal(found["valid"][0], source[window].as_tensor()[0] > 0)


def test_the_same_place_shows_the_same_tissue_in_both_poses() -> None:
    source = maps(48)
    smooth = torch.nn.functional.avg_pool3d(source.as_tensor()[None], 5, 1, 2)[0]  # interpolation tells nothing apart
    found = pair(contrast=RandMRContrast([FIXED]), crop_size=(24, 24, 24)).set_random_state(seed=3)(MetaTensor(smooth))
    (one, two), (here, there) = found["views"][:, 0], found["coords"].flatten(2).movedim(1, 2)
    ok = found["valid"][0].flatten().nonzero()[::5, 0]
    distance, match = torch.cdist(here[ok], there).min(1)
    near = (distance < 0.5) & found["valid"][1].flatten()[match]
    assert int(near.sum()) > 50
    difference = (one.flatten()[ok][near] - two.flatten()[match][near]).abs()
    assert float(difference.median()) < 0.1 * float(one.std())


def test_coordinates_are_in_mm() -> None:
    found = pair(geometry=NOTHING, margin=1.0).set_random_state(seed=0)(maps(spacing=2.0))
    assert float(found["coords"].amax()) == 22.0  # eleven voxels of two mm


def test_the_loss_of_identical_poses_is_small_and_of_wrong_coordinates_large() -> None:
    found = pair(geometry=NOTHING, margin=1.0).set_random_state(seed=0)(maps())
    features = torch.randn(1, 8, 12, 12, 12)
    loss = DenseContrastiveLoss(3, num_anchors=None)
    coords, valid = found["coords"][None], found["valid"][None]
    right = loss(features, features, coords[:, 0], coords[:, 1], valid)
    wrong = loss(features, features, coords[:, 0], coords[:, 1].flip(2), valid)
    assert right.item() < 0.5 * wrong.item()


@pytest.mark.parametrize(
    "options", [{}, {"sharing": "protocol"}, {"targets": [FIXED, draw_protocol("t2w_fse", np.random.RandomState(0))]}]
)
def test_the_same_seed_gives_the_same_views_and_records_replay(options: dict[str, Any]) -> None:
    artefacts = {"noise_prob": 1.0, "receive_prob": 1.0, "resolution_prob": 0.5}
    corruption = RandCoarseDropout(holes=2, spatial_size=3, prob=1.0)
    views = pair(contrast=RandMRContrast(**artefacts), corruption=corruption, **options)
    first = views.set_random_state(seed=7)(maps())
    other = views(maps())
    again = views.set_random_state(seed=7)(maps())
    replayed = views.apply(maps(), views.set_random_state(seed=7).randomize(maps()))
    for name, value in first.items():
        assert torch.equal(value, again[name])
        assert torch.equal(value, replayed[name])
    assert not torch.equal(first["views"], other["views"])


def protocols(views: RandSequenceViews, count: int = 12) -> list[tuple[Any, Any]]:
    views.set_random_state(seed=0)
    records = [views.randomize(maps())["contrasts"] for _ in range(count)]
    return [(one["protocol"], two["protocol"]) for one, two in records]


def test_two_contrasts_have_a_protocol_each() -> None:
    found = protocols(pair())
    assert all(one != two for one, two in found)
    assert len({one["family"] for one, _ in found}) > 3


def test_a_shared_contrast_is_drawn_for_each_crop_and_is_that_of_both_views() -> None:
    views = pair(sharing="protocol", contrast=RandMRContrast(noise_prob=1.0, maps=("pd", "t1", "t2_star")))
    found = protocols(views)
    assert all(one == two for one, two in found)
    assert len({one["family"] for one, _ in found}) > 3
    contrasts = views.randomize(maps())["contrasts"]
    assert contrasts[0]["artefacts"] != contrasts[1]["artefacts"]
    t2 = [record.get("t2") for record in contrasts]
    assert t2[0] == t2[1]


def test_one_contrast_is_the_same_throughout() -> None:
    found = protocols(pair(contrast=RandMRContrast([FIXED])))
    assert all(one == two == FIXED.to_dict() for one, two in found)


def test_targets_are_clean_and_views_are_not() -> None:
    views = pair(geometry=NOTHING, margin=1.0, contrast=RandMRContrast([FIXED], noise_prob=1.0, noise=0.2))
    found = views.set_random_state(seed=0)(maps())
    assert torch.equal(found["target"][0], found["target"][1])
    assert not torch.equal(found["views"][0], found["views"][1])
    assert not torch.equal(found["views"][0], found["target"][0])


@pytest.mark.parametrize(("size", "tolerance"), [(16, 1e-3), (64, 0.05)])
@pytest.mark.parametrize("recipe", ["small_mr", "brain_mr"])
def test_intensities_are_those_that_the_whole_volume_would_be_given(recipe: str, size: int, tolerance: float) -> None:
    chain = recipes.intensities(recipe)
    views = pair(geometry=NOTHING, margin=1.0, contrast=RandMRContrast([FIXED]), intensities=chain)
    source = maps(size)
    record = views.set_random_state(seed=2).randomize(source)
    found = views.apply(source, record)
    window = (slice(None), *(slice(a, a + 12) for a in record["start"]))
    whole = views.contrast.apply(source, {**record["contrasts"][0], "artefacts": {}})
    expected = torch.as_tensor(chain(whole).as_tensor()[window])
    for name in ("views", "target"):
        torch.testing.assert_close(found[name][0], expected, atol=tolerance, rtol=0)


def test_intensities_of_a_target_are_changed_as_those_of_its_view() -> None:
    noise = {"noise_prob": 1.0, "noise": 0.05, "receive_prob": 1.0}
    views = pair(geometry=NOTHING, margin=1.0, contrast=RandMRContrast([FIXED], **noise))
    changed = pair(geometry=NOTHING, margin=1.0, contrast=RandMRContrast([FIXED], **noise), intensities=halved)
    record = views.set_random_state(seed=2).randomize(maps())
    plain, found = views.apply(maps(), record), changed.apply(maps(), record)
    seen = plain["target"] > 0
    for name in ("views", "target"):
        # a coarse image without artefacts knows intensities up to its own largest one
        inside = seen & (plain[name] <= plain["target"].max()) & (plain[name] >= plain["target"][seen].min())
        torch.testing.assert_close(found[name][inside], plain[name][inside] / 2, atol=1e-3, rtol=1e-3)


def halved(image: Tensor) -> Tensor:
    return image / 2


def test_exact_zeros_may_change_otherwise_than_what_lies_next_to_them() -> None:
    before = torch.cat([torch.zeros(100), torch.linspace(1, 2, 100)])
    after = torch.where(before == 0, 7.0, before - 1.5)  # as a z-score of what is not zero, but for the 7
    image = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0])
    expected = torch.tensor([7.0, -0.5, -0.5, 0.0, 0.5, 0.5])
    torch.testing.assert_close(IntensityChange.between(before, after)(image), expected)
    assert torch.equal(IntensityChange.between(before[:100], after[:100])(image[:1]), torch.tensor([7.0]))


def test_a_change_of_intensities_gives_back_a_linear_change_and_stays_at_its_ends() -> None:
    before = torch.rand(1, 40, 40, 40, generator=torch.Generator().manual_seed(0))
    after = (3 * before - 1).clamp(-0.5, 1.0)
    image = torch.linspace(-1, 2, 64).reshape(1, 4, 4, 4)
    expected = (3 * image.clamp(before.min(), before.max()) - 1).clamp(-0.5, 1.0)
    torch.testing.assert_close(IntensityChange.between(before, after)(image), expected, atol=1e-3, rtol=0)


def test_the_same_place_lies_at_different_voxels_of_the_two_views() -> None:
    shifts = []
    for seed in range(20):
        found = pair(crop_size=(24, 24, 24)).set_random_state(seed=seed)(maps(64))
        shifts.append((found["coords"][0] - found["coords"][1]).flatten(1).mean(1))
    spread = torch.stack(shifts).std(0)
    assert bool((spread > 7).all())  # two uniform shifts of up to half of 24 voxels: 9.8
    assert bool((spread < 13).all())
    assert bool(found["valid"].float().mean() > 0.3)


def test_targets_of_other_sequences_do_not_depend_on_that_of_the_view() -> None:
    views = pair(geometry=NOTHING, margin=1.0, targets=[FIXED])
    found = views.set_random_state(seed=0)(maps())
    assert views.target_channels == 1
    assert torch.allclose(found["target"][0], found["target"][1])
    assert "target" not in pair(targets=None)(maps())


def test_intensities_stay_in_the_range_of_the_recipe() -> None:
    found = pair(intensities=recipes.intensities("small_mr")).set_random_state(seed=0)(maps())
    for name in ("views", "target"):
        assert float(found[name].amin()) == 0.0
        assert 0.5 < float(found[name].amax()) <= 1.0


@pytest.mark.parametrize(("recipe", "steps"), [("small_mr", 2), ("brain_mr", 2), ("ct_abdomen", 1)])
def test_what_acts_on_the_image_alone_is_about_intensities(recipe: str, steps: int) -> None:
    chain = recipes.intensities(recipe)
    assert len(chain.transforms) == steps
    image = torch.rand(1, 9, 10, 11)
    assert chain(image).shape == image.shape


def test_crops_lie_in_tissue() -> None:
    source = torch.zeros(5, 40, 40, 40)
    source[:, 30:38, 30:38, 30:38] = TISSUES[0].reshape(5, 1, 1, 1)
    views = pair(crop_size=(8, 8, 8)).set_random_state(seed=0)
    starts = torch.tensor([views.randomize(MetaTensor(source))["start"] for _ in range(20)])
    assert float((starts > 16).all(1).float().mean()) > 0.3  # drawn places are few; a volume of air would give none


@pytest.mark.parametrize("fields", [(), ("b1",)])
def test_all_tissues_are_valid_where_their_properties_are_drawn(fields: tuple[str, ...]) -> None:
    layers = torch.zeros(3, 24, 24, 24)
    for tissue in range(3):
        layers[tissue, 6 * tissue : 6 * tissue + 6] = 1  # the last quarter is air
    contrast = RandMRContrast(maps=fields, fractions=("white_matter", "grey_matter", "csf"))
    found = pair(contrast=contrast, geometry=NOTHING, crop_size=(24, 24, 24), margin=1.0)
    channels = torch.cat([torch.ones(len(fields), 24, 24, 24), layers])
    assert torch.equal(found.set_random_state(seed=0)(channels)["valid"][0], layers.sum(0) > 0)


def test_crops_lie_in_tissue_whichever_channel_is_the_density() -> None:
    volume = torch.ones(5, 40, 40, 40)
    volume[4] = 0
    volume[4, 24:, 24:, 24:] = 70
    contrast = RandMRContrast(maps=("t1", "t2", "t2_star", "mtsat", "pd"))
    views = pair(contrast=contrast, margin=1.6).set_random_state(seed=0)
    starts = [views.randomize(MetaTensor(volume))["start"] for _ in range(200)]  # t1 is 1 s in air too
    # a middle in tissue, less half of the 20 voxels that are posed
    assert sum(min(start) >= 14 for start in starts) > 185


def test_small_volumes_are_padded_with_air() -> None:
    found = pair(crop_size=(16, 16, 16)).set_random_state(seed=0)(maps(8))
    assert found["views"].shape == (2, 1, 16, 16, 16)
    assert not bool(found["valid"].all())
    assert float(found["target"][~found["valid"].unsqueeze(1)].abs().median()) == 0


def test_two_dimensions() -> None:
    found = pair(crop_size=(12, 12)).set_random_state(seed=0)(maps(24, 2))
    assert found["coords"].shape == (2, 2, 12, 12)


def test_the_dictionary_form_gives_the_same_and_batches() -> None:
    array = pair().set_random_state(seed=5)(maps())
    dictionary = RandSequenceViewsd("image", (12, 12, 12), RandMRContrast()).set_random_state(seed=5)
    found = dictionary({"image": maps(), "case": "a"})
    assert all(torch.equal(value, found["image"][name]) for name, value in array.items())
    batch = default_collate([found, dictionary({"image": maps(), "case": "b"})])
    assert batch["image"]["views"].shape == (2, 2, 1, 12, 12, 12)
    with pytest.raises(KeyError, match="maps"):
        RandSequenceViewsd("maps", (12, 12, 12), RandMRContrast())({"image": maps()})


REFUSED = {
    "sharing": ({"sharing": "all"}, "sharing must be 'none' or 'protocol', got 'all'"),
    "margin": ({"margin": 0.5}, "margin must be at least 1, got 0.5"),
    "targets": ({"targets": "noisy"}, "targets must be 'clean', protocols or None, got 'noisy'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_options_out_of_range_are_refused(name: str) -> None:
    options, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        pair(**options)


def test_a_pose_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"geometry must end with views of crop_size \(12, 12, 12\), got \(8, 8, 8\)"):
        pair(geometry=usual_geometry((8, 8, 8)))(maps())


def test_maps_of_other_axes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"maps must have 3 spatial axes as crop_size, got \(5, 24, 24\)"):
        pair()(maps(24, 2))


def test_weighted_rates_go_back_to_the_maps() -> None:
    source = maps().as_tensor()
    assert torch.allclose(from_weighted_rates(to_weighted_rates(source, MAPS), MAPS), source, rtol=1e-5)
    without = source[1:3]
    names = ("t1", "t2")
    assert torch.allclose(from_weighted_rates(to_weighted_rates(without, names), names), without, rtol=1e-5)


def test_short_times_survive_half_precision() -> None:
    maps = torch.tensor([[100.0, 80.0], [1e-3, 0.05]], dtype=torch.float16)
    found = from_weighted_rates(to_weighted_rates(maps, ("pd", "t2")), ("pd", "t2"))
    torch.testing.assert_close(found, maps.float())


def test_half_a_voxel_of_air_halves_the_density_and_keeps_the_times() -> None:
    both = torch.stack([TISSUES[0], torch.zeros(5)], dim=1)
    middle = from_weighted_rates(to_weighted_rates(both, MAPS).mean(1, keepdim=True), MAPS)[:, 0]
    assert torch.allclose(middle, TISSUES[0] * torch.tensor([0.5, 1, 1, 1, 1]))


@pytest.mark.parametrize("missing", [0.0, math.nan, math.inf])
def test_half_a_voxel_without_t1_is_dark_whatever_its_density(missing: float) -> None:
    beside = torch.tensor([40.0, missing, 0.1, 0.05, 0.01])
    both = torch.stack([TISSUES[0], beside], dim=1)
    middle = from_weighted_rates(to_weighted_rates(both, MAPS).mean(1, keepdim=True), MAPS)[:, 0]
    torch.testing.assert_close(middle, TISSUES[0] * torch.tensor([0.5, 1, 1, 1, 1]))


@pytest.mark.parametrize("name", ["pd", "t2", "mtsat"])
def test_missing_values_stay_where_they_are(name: str) -> None:
    both = torch.stack([TISSUES[0], TISSUES[1]], dim=1)
    both[MAPS.index(name), 1] = math.nan
    middle = from_weighted_rates(to_weighted_rates(both, MAPS).mean(1, keepdim=True), MAPS)
    assert middle.isfinite().all()


def test_views_of_maps_whose_background_is_missing_show_tissue() -> None:
    source = maps()
    source[:, :4] = math.nan
    views = pair().set_random_state(seed=0)(source)
    assert views["views"].isfinite().all()
    assert views["valid"].flatten(1).any(1).all()


def test_two_tissues_mix_by_density_as_in_a_loop() -> None:
    both = TISSUES[:2].mT.contiguous()
    middle = from_weighted_rates(to_weighted_rates(both, MAPS).mean(1, keepdim=True), MAPS)[:, 0]
    density = sum(float(t[0]) for t in TISSUES[:2])
    rates = [sum(float(t[0]) / float(t[n]) for t in TISSUES[:2]) / density for n in (1, 2, 3)]
    saturation = sum(float(t[0]) * float(t[4]) for t in TISSUES[:2]) / density
    assert middle.tolist() == pytest.approx([density / 2, *(1 / r for r in rates), saturation], rel=1e-5)


def test_weighted_rates_keep_the_metadata() -> None:
    item = WeightedRatesd("image", MAPS)({"image": maps(spacing=2.0)})
    assert item["image"].pixdim.tolist() == [2.0, 2.0, 2.0]
    back = WeightedRatesd("image", MAPS, back=True)(item)["image"]
    assert torch.allclose(back.as_tensor(), maps().as_tensor(), rtol=1e-5)
