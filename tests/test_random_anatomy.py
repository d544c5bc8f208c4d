"""Random anatomies: correspondence to the voxel, draws by seed, every option, values, the picture."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from monai_cl.data import ViewDataset, view_loader
from monai_cl.phantoms import (
    Anatomies,
    AnatomyAppearance,
    AnatomyGeometry,
    AnatomyShapes,
    RandomAnatomy,
    draw_anatomies,
)
from monai_cl.phantoms.anatomy_appearance import _averaging, _interpolating, image_of
from monai_cl.phantoms.anatomy_geometry import source_places
from monai_cl.phantoms.anatomy_picture import corresponding
from monai_cl.phantoms.anatomy_tissues import SEQUENCES, draw_tissues, simulated_signals
from monai_cl.phantoms.smooth_fields import draw_coefficients, smooth_fields
from monai_cl.transforms import RandViews

SIZES = [(20, 24, 16), (32, 28)]
STILL = AnatomyGeometry(rotation=0.0, scale=(0.0, 0.0), shift=0.0, elastic=0.0)
PLAIN = AnatomyAppearance(
    simulated=0.0, texture=0.0, blur=0.0, bias=0.0, thick=0.0, noise=0.0, gamma=0.0, percentiles=(0.0, 100.0)
)


def views(size: tuple[int, ...], seed: int = 0, **options: Any) -> dict[str, Any]:
    return RandomAnatomy(size, **options).set_random_state(seed=seed)({})


@pytest.mark.parametrize("size", SIZES)
def test_views_have_the_form_of_views_of_a_volume(size: tuple[int, ...]) -> None:
    ours = views(size)
    theirs = RandViews(lambda image: image)(torch.rand(1, *size))
    for key in ("coords", "valid"):
        assert ours[key].shape == theirs[key].shape
        assert ours[key].dtype == theirs[key].dtype
    assert ours["image"].shape == (2, 1, *size)
    assert ours["label"].shape == (2, *size)
    assert ours["label"].dtype == torch.int64


@pytest.mark.parametrize("size", SIZES)
def test_a_voxel_has_the_label_that_its_coordinates_point_at(size: tuple[int, ...]) -> None:
    anatomy = RandomAnatomy(size).set_random_state(seed=3)
    draw = anatomy.randomize()
    found, whole = anatomy.apply(draw), anatomy.label_map(draw)
    for coords, valid, label in zip(found["coords"], found["valid"], found["label"], strict=True):
        inside = torch.stack([(c >= 0) & (c <= n - 1) for c, n in zip(coords, whole.shape, strict=True)]).all(0)
        assert torch.equal(inside, valid)
        assert torch.equal(label[valid], whole[tuple(coords[:, valid].round().long())].long())
        assert not label[~valid].any()


@pytest.mark.parametrize("size", SIZES)
def test_labels_agree_at_corresponding_places(size: tuple[int, ...]) -> None:
    found = views(size, seed=1, shapes=AnatomyShapes(noise=0.0, solids=(4, 8), radius=(0.3, 0.5)))
    first, second = found["coords"]
    distance = torch.cdist(first[:, found["valid"][0]].T, second.flatten(1).T)
    distance[:, ~found["valid"][1].flatten()] = torch.inf
    nearest = distance.min(1)
    near = nearest.values < 0.3
    same = found["label"][0][found["valid"][0]][near] == found["label"][1].flatten()[nearest.indices[near]]
    assert near.sum() > 20
    assert same.float().mean() > 0.9  # the others lie on surfaces


def test_a_view_without_geometry_is_the_middle_of_the_label_map() -> None:
    anatomy = RandomAnatomy((16, 16, 16), margin=0.25, geometry=STILL).set_random_state(seed=0)
    draw = anatomy.randomize()
    found = anatomy.apply(draw)
    assert found["valid"].all()
    assert torch.equal(found["label"][0], anatomy.label_map(draw)[2:18, 2:18, 2:18].long())
    assert torch.equal(found["coords"][0], found["coords"][1])
    assert found["coords"][0, :, 0, 0, 0].tolist() == [2.0, 2.0, 2.0]


def test_places_are_matrix_shift_and_bend_of_those_of_the_view() -> None:
    size, box, unit = (6, 8, 5), (8, 10, 7), 4.0
    geometry = AnatomyGeometry().draw(np.random.default_rng(0), 3)
    found = source_places(geometry, size, box, unit)
    bend = smooth_fields(geometry.bend, size)
    for index in np.ndindex(*size):
        x = (np.array(index) - (np.array(size) - 1) / 2) / unit
        y = geometry.matrix @ x + geometry.shift + bend[(slice(None), *index)].numpy()
        expected = y * unit + (np.array(box) - 1) / 2
        np.testing.assert_allclose(found[(slice(None), *index)], expected, atol=1e-4)


@pytest.mark.parametrize("size", SIZES)
def test_equal_seeds_give_equal_views_and_others_others(size: tuple[int, ...]) -> None:
    one, again, other = views(size), views(size), views(size, seed=1)
    assert all(torch.equal(one[key], again[key]) for key in one)
    assert not torch.equal(one["image"], other["image"])
    assert not torch.equal(one["image"][0], one["image"][1])


def test_what_was_drawn_says_all() -> None:
    anatomy = RandomAnatomy((16, 16)).set_random_state(seed=0)
    draw = anatomy.randomize()
    np.random.seed(5)  # noqa: NPY002 - what must have no effect
    first = anatomy.apply(draw)
    torch.manual_seed(7)
    assert all(torch.equal(first[key], anatomy.apply(draw)[key]) for key in first)


def test_batches_follow_from_seed_and_step_on_any_number_of_workers() -> None:
    def loader(workers: int, start: int = 0) -> Any:
        dataset = ViewDataset(Anatomies(2), RandomAnatomy((8, 8)), keys=["image", "label", "coords", "valid"])
        made = view_loader(dataset, 2, batch_size=2, steps=4, seed=3, num_workers=workers)
        made.batch_sampler.start = start
        return list(made)

    every, late = loader(0), loader(1, start=2)
    assert len({float(batch["image"].sum()) for batch in every}) == 4
    for one, other in zip(every[2:], late, strict=True):
        assert all(torch.equal(one[key], other[key]) for key in ("image", "label", "coords", "valid"))


OPTIONS: dict[str, tuple[type, dict[str, Any]]] = {
    "no noise": (AnatomyShapes, {"noise": 0.0}),
    "noise alone": (AnatomyShapes, {"noise": 1.0, "solids": (0, 0), "envelope": 0.0}),
    "nothing at all": (AnatomyShapes, {"noise": 0.0, "solids": (0, 0), "envelope": 0.0}),
    "tubes": (AnatomyShapes, {"tubes": 1.0, "shells": 1.0}),
    "shells": (AnatomyShapes, {"shells": 1.0, "mirrored": 1.0}),
    "envelope with a rim": (AnatomyShapes, {"envelope": 1.0, "rim": 1.0}),
    "no warp": (AnatomyShapes, {"warp": (0.0, 0.0)}),
    "stretched": (AnatomyShapes, {"stretched": 1.0, "stretch": (3.0, 3.0)}),
    "lists": (AnatomyShapes, {"solids": [4, 5], "radius": [0.1, 0.2]}),
    "far away": (AnatomyGeometry, {"shift": 5.0, "scale": (1.0, 1.0)}),
    "simulated": (AnatomyAppearance, {"simulated": 1.0}),
    "one sequence": (AnatomyAppearance, {"simulated": 1.0, "sequences": ["flair"]}),
    "not simulated": (AnatomyAppearance, {"simulated": 0.0, "dark": 1.0}),
    "thick": (AnatomyAppearance, {"thick": 1.0, "thickness": (3, 4)}),
    "noisy": (AnatomyAppearance, {"noise": 2.0, "blur": 3.0, "bias": 1.0, "gamma": 2.0}),
    "plain": (AnatomyAppearance, dataclasses.asdict(PLAIN)),
}
NAME = {AnatomyShapes: "shapes", AnatomyGeometry: "geometry", AnatomyAppearance: "appearance"}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("size", [(12, 10, 8), (16, 12)])
def test_views_are_finite_and_in_range_whatever_is_drawn(name: str, size: tuple[int, ...]) -> None:
    kind, values = OPTIONS[name]
    for seed in range(2):
        found = views(size, seed, **{NAME[kind]: kind(**values)})
        assert found["image"].isfinite().all()
        assert found["coords"].isfinite().all()
        low, high = found["image"].aminmax()
        assert low >= 0
        assert high <= 1
        assert found["label"].max() < 256


def labels(seed: int = 0, **options: Any) -> torch.Tensor:
    anatomy = RandomAnatomy((32, 32), shapes=AnatomyShapes(**options)).set_random_state(seed=seed)
    return anatomy.label_map(anatomy.randomize())


def test_noise_alone_gives_its_regions_and_no_outside() -> None:
    found = labels(noise=1.0, regions=(5, 5), solids=(0, 0), envelope=0.0)
    assert set(found.unique().tolist()) <= set(range(1, 6))
    assert len(found.unique()) > 2


def test_an_envelope_leaves_the_outside_dark_and_a_rim_lies_next_to_it() -> None:
    without = labels(noise=0.0, solids=(0, 0), envelope=1.0, rim=0.0)
    assert set(without.unique().tolist()) == {0, 1}
    with_rim = labels(noise=0.0, solids=(0, 0), envelope=1.0, rim=1.0)
    assert set(with_rim.unique().tolist()) == {0, 1, 2}
    assert torch.equal(with_rim == 0, without == 0)
    inner = torch.nn.functional.max_pool2d((with_rim == 0).float()[None], 3, 1, 1)[0] > 0
    assert not ((with_rim == 1) & inner).any()


def test_solids_within_reach_of_a_displacement_are_painted_whole() -> None:
    anatomy = RandomAnatomy((40, 40), shapes=AnatomyShapes(noise=0.0, envelope=0.0, solids=(6, 6), warp=(0.2, 0.2)))
    for seed in range(3):
        draw = anatomy.set_random_state(seed=seed).randomize()
        found = anatomy.label_map(draw)
        shapes = draw.shapes
        shift = smooth_fields(shapes.warp, anatomy.box)
        expected = torch.ones(anatomy.box, dtype=torch.uint8)
        for index in np.ndindex(*anatomy.box):
            x = (np.array(index) - (np.array(anatomy.box) - 1) / 2) / anatomy.unit * shapes.stretch
            x = x + shift[(slice(None), *index)].numpy()
            for solid in shapes.solids:
                q = solid.axes @ (x - solid.centre) / solid.radii
                q[1] += solid.bend * (q[0] ** 2 - 0.5) * solid.radii[0] / solid.radii[1]
                distance = (np.abs(q) ** solid.exponent).sum()
                for label, radius in zip(solid.labels, (1.0, *solid.inner), strict=True):
                    if distance < radius**solid.exponent:
                        expected[index] = label
        assert (found != expected).float().mean() < 2e-3  # rounding on surfaces


@pytest.mark.parametrize("exponent", [0.8, 1.0, 1.3, 2.0, 4.0, 60.0])
def test_a_solid_is_painted_as_far_as_it_reaches_whatever_its_exponent_and_bend(exponent: float) -> None:
    ranges = AnatomyShapes(
        noise=0.0,
        envelope=0.0,
        solids=(3, 3),
        exponent=(exponent, exponent),
        radius=(0.4, 0.5),
        tubes=0.7,
        stretched=0.0,
    )
    anatomy = RandomAnatomy((26, 26, 26), shapes=ranges)
    for seed in range(2):
        draw = anatomy.set_random_state(seed=seed).randomize()
        steps = (np.arange(anatomy.box[0]) - (anatomy.box[0] - 1) / 2) / anatomy.unit
        places = (
            np.stack(np.meshgrid(steps, steps, steps, indexing="ij"))
            + smooth_fields(draw.shapes.warp, anatomy.box).numpy()
        )
        expected = np.ones(anatomy.box, dtype=np.uint8)
        for solid in draw.shapes.solids:  # at all places of the map
            q = np.einsum("ij,jxyz->ixyz", solid.axes, places - solid.centre[:, None, None, None])
            q /= solid.radii[:, None, None, None]
            q[1] += solid.bend * (q[0] ** 2 - 0.5) * solid.radii[0] / solid.radii[1]
            distance = (np.abs(q) ** exponent).sum(0)
            for label, radius in zip(solid.labels, (1.0, *solid.inner), strict=True):
                expected[distance < radius**exponent] = label
        assert (expected > 1).sum() > 50
        assert (anatomy.label_map(draw).numpy() != expected).mean() < 2e-4  # rounding on surfaces


def test_an_image_without_changes_is_the_intensity_of_its_labels() -> None:
    look = PLAIN.draw(np.random.default_rng(0), draw_tissues(np.random.default_rng(0), 4), 2)
    label = torch.tensor([[0, 1], [2, 3]])
    means = torch.from_numpy(look.means)
    expected = (means[label] - means.min()) / (means.max() - means.min())
    torch.testing.assert_close(image_of(label, look), expected)


def test_an_image_without_contrast_is_zero() -> None:
    look = PLAIN.draw(np.random.default_rng(0), draw_tissues(np.random.default_rng(0), 2), 2)
    assert not image_of(torch.ones(5, 5, dtype=torch.long), look).any()


def test_thick_slices_average_and_are_interpolated_between_their_centres() -> None:
    ramp = np.arange(8, dtype=np.float32)
    assert (_averaging(8, 3) @ ramp).tolist() == [1.0, 4.0, 6.5]
    assert (_interpolating(8, 2) @ (_averaging(8, 2) @ ramp)).tolist() == [0.5, 1, 2, 3, 4, 5, 6, 6.5]


def test_tissues_keep_to_the_order_of_relaxation_times() -> None:
    pd, t1, t2, t2_star, mtsat = draw_tissues(np.random.default_rng(0), 200).T
    assert pd[0] == 0
    assert (t2_star <= t2).all()
    assert (t2 <= t1).all()
    assert ((mtsat >= 0) & (mtsat < 0.2)).all()


@pytest.mark.parametrize("sequence", SEQUENCES)
def test_every_sequence_gives_finite_signals_that_differ(sequence: str) -> None:
    rng = np.random.default_rng(0)
    found = simulated_signals(rng, draw_tissues(rng, 40), (sequence,))
    assert np.isfinite(found).all()
    assert found.min() == 0
    assert found.std() > 0.05


def test_smooth_fields_have_a_variance_of_one_and_are_sums_of_splines() -> None:
    fields = smooth_fields(draw_coefficients(np.random.default_rng(0), (6, 5), fields=400), (30, 20))
    assert float(fields.var()) == pytest.approx(1, abs=0.05)
    assert float(fields.diff(dim=1).std()) < 0.4
    ones = smooth_fields(np.ones((1, 7, 6), dtype=np.float32), (9, 8))  # splines add up to one
    torch.testing.assert_close(ones, torch.full((1, 9, 8), 315 / 151))


@pytest.mark.parametrize(
    ("kind", "options", "match"),
    [
        (AnatomyShapes, {"noise": 1.5}, "noise must be a probability from 0 to 1, got 1.5"),
        (AnatomyShapes, {"solids": (5, 2)}, r"solids must be two whole numbers of at least 0 in order, got \(5, 2\)"),
        (AnatomyShapes, {"radius": 0.3}, r"radius must be a pair, the least and the greatest, got 0\.3"),
        (AnatomyShapes, {"radius": (0.0, 0.3)}, "radius must be two finite numbers above 0 in order"),
        (AnatomyShapes, {"solids": (4, 90)}, "at most 255 labels, three of each solid, got up to 293"),
        (AnatomyGeometry, {"shift": -1.0}, r"shift must be at least 0 and finite, got -1\.0"),
        (AnatomyAppearance, {"sequences": ["t3w"]}, r"sequences must be some of .*, got \['t3w'\]"),
        (AnatomyAppearance, {"percentiles": (5.0, 5.0)}, "percentiles must be two different numbers up to 100"),
        (AnatomyAppearance, {"noise": float("nan")}, "noise must be at least 0 and finite, got nan"),
        (RandomAnatomy, {"size": (16,)}, r"size must be two or three numbers of voxels of at least 4, got \(16,\)"),
        (RandomAnatomy, {"size": (16, 16), "num_views": 0}, "num_views must be at least 1, got 0"),
        (RandomAnatomy, {"size": (16, 16), "margin": -0.1}, r"margin must be a share of at least 0, got -0\.1"),
        (Anatomies, {"number": 0}, "number must be at least 1, got 0"),
    ],
)
def test_options_out_of_range_are_refused(kind: type, options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        kind(**options)


@pytest.mark.parametrize("size", SIZES)
def test_a_picture_marks_voxels_that_show_the_same_place(size: tuple[int, ...], tmp_path: Path) -> None:
    anatomy = RandomAnatomy(size).set_random_state(seed=0)
    found = anatomy({})
    pairs = corresponding(found)
    assert len(pairs) > 2
    for here, there in pairs:
        apart = found["coords"][(0, slice(None), *here)] - found["coords"][(1, slice(None), *there)]
        assert float(apart.norm()) < 0.9
    draw_anatomies(anatomy, tmp_path / "anatomies.png", rows=1)
    assert (tmp_path / "anatomies.png").stat().st_size > 1000


def test_a_picture_needs_a_png_and_two_views(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a name that ends in \.png and two views, got 'a\.jpg' and 2"):
        draw_anatomies(RandomAnatomy((8, 8)), tmp_path / "a.jpg")
