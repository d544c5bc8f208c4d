"""Pairs of the same anatomy in two patients: what is found, what is rejected, and what goes into a batch."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from monai.networks.nets import SegResNet
from monai.transforms import Compose, RandScaleIntensityd, RandSpatialCropd
from numpy.typing import NDArray
from torch import Tensor

from monai_cl.data import (
    AffineRegistration,
    AnatomicalPairs,
    BodyBoxes,
    EmbeddingMatches,
    Matches,
    NoMatchError,
    match_points,
    pair_batches,
)
from monai_cl.data.loading.faults import TooManyFaultsError
from monai_cl.data.pairs.anatomy import anatomy_of, crop_around
from monai_cl.transforms import StoredVolume

SIZE = 32
BRIGHTER = Compose([RandScaleIntensityd("image", prob=1.0, factors=0.2)])
CROP = {"size": (8, 8, 8)}


def noise(seed: int, size: int = SIZE) -> Tensor:
    coarse = torch.rand(1, 1, 7, 7, 7, generator=torch.Generator().manual_seed(seed))
    return 0.3 * F.interpolate(coarse, size=(size,) * 3, mode="trilinear")[0]


def distances(place: Sequence[float]) -> Tensor:
    axes = torch.stack(torch.meshgrid(*[torch.arange(SIZE).float()] * 3, indexing="ij"))
    return (axes - torch.tensor(place).reshape(3, 1, 1, 1)).norm(dim=0)


def planted(seed: int, place: Sequence[float], scale: float) -> dict[str, Any]:
    """A bright ball with a dark core in a background of its own."""
    image = noise(seed)
    away = distances(place)
    image[0, away < 6 * scale] = 1.0
    image[0, away < 3 * scale] = 0.0
    return {"image": image, "subject": f"s{seed}", "case": f"case_{seed}"}


def ellipsoid(
    center: Sequence[float], radii: Sequence[float], *, spacing: Sequence[float] = (1.0, 1.0, 1.0), seed: int = 0
) -> dict[str, Any]:
    axes = torch.stack(torch.meshgrid(*[torch.arange(SIZE).float()] * 3, indexing="ij"))
    column = (3, 1, 1, 1)
    inner = (axes - torch.tensor(center).reshape(column)) / torch.tensor(radii).reshape(column)
    depth = inner.norm(dim=0)
    image = (depth < 1).float() + (depth < 0.5).float() + (inner[0] > 0.2) * (depth < 0.8)
    affine = torch.diag(torch.tensor([*spacing, 1.0]))
    return {"image": MetaTensor(image[None], affine=affine), "subject": f"p{seed}", "case": f"ball_{seed}"}


def bodies(volumes: Sequence[dict[str, Any]]) -> list[Any]:
    return [anatomy_of(volume) for volume in volumes]


# --- places


def test_boxes_map_the_corners_and_the_middle_of_one_body_to_those_of_the_other() -> None:
    a, b = (torch.zeros(1, 20, 20, 20) for _ in range(2))
    a[0, 2:12, 4:10, 0:20] = 1
    b[0, 5:10, 4:16, 3:13] = 1
    found = BodyBoxes(bodies([{"image": a}, {"image": b}]))(0, 1, torch.tensor([[2, 4, 0], [11, 9, 19], [6, 6, 9]]))
    expected = [
        [5 + (p - 2) * 4 / 9, 4 + (q - 4) * 11 / 5, 3 + r * 9 / 19] for p, q, r in ((2, 4, 0), (11, 9, 19), (6, 6, 9))
    ]
    torch.testing.assert_close(found.places, torch.tensor(expected))
    assert found.accepted.all()


def test_a_speck_does_not_move_a_box_and_an_image_of_one_value_is_its_own_body() -> None:
    image = torch.zeros(1, 20, 20, 20)
    image[0, 5:15, 5:15, 5:15] = 1
    image[0, 0, 0, 0] = image[0, 19, 19, 19] = 1
    found = anatomy_of({"image": image})
    assert (found.low.tolist(), found.high.tolist()) == ([5.0] * 3, [14.0] * 3)
    assert anatomy_of({"image": torch.full((1, 4, 4), 3.0)}).high.tolist() == [3.0, 3.0]


def test_registration_finds_a_known_affine_map_and_rejects_another_body() -> None:
    first = ellipsoid((15, 15, 15), (10, 8, 12), seed=0)
    second = ellipsoid((18, 14, 13), (8, 9.6, 9.6), spacing=(1.0, 1.0, 1.25), seed=1)
    other = {"image": noise(3), "subject": "q", "case": "noise"}
    volumes = [first, second, other]
    registration = AffineRegistration(volumes, bodies(volumes), grid_mm=2.0, threshold=0.6)
    points = torch.tensor([[15, 15, 15], [20, 15, 15], [15, 11, 18]])
    found = registration(0, 1, points)
    expected = torch.tensor([18.0, 14, 13]) + (points - 15) * torch.tensor([0.8, 1.2, 0.8])
    assert found.accepted.all()
    assert ((found.places - expected) * torch.tensor([1, 1, 1.25])).norm(dim=1).max() < 1.5  # mm, on a grid of 2
    assert not registration(0, 2, points).accepted.any()
    again = AffineRegistration(volumes, bodies(volumes), grid_mm=2.0, threshold=0.6)(0, 1, points)
    assert torch.equal(again.places, found.places)


@pytest.fixture(scope="module")
def matcher() -> EmbeddingMatches:
    """An encoder that was never trained, for blobs that differ from all around them."""
    first, second, third = planted(0, (13, 14, 17), 1.0), planted(1, (18, 14, 15), 1.15), planted(4, (12, 19, 18), 0.9)
    volumes = [first, second, {"image": noise(2)}, third]
    torch.manual_seed(2)
    network = SegResNet(init_filters=8, blocks_down=(1, 1, 1), blocks_up=(1, 1))
    return EmbeddingMatches(volumes, bodies(volumes), network, levels=(0, 1), step=4)


@pytest.mark.parametrize(("target", "place"), [(1, (18.0, 14.0, 15.0)), (3, (12.0, 19.0, 18.0))])
def test_a_planted_point_is_found_within_a_stride_in_a_shifted_and_scaled_phantom(
    matcher: EmbeddingMatches, target: int, place: tuple[float, ...]
) -> None:
    found = matcher(0, target, torch.tensor([[13, 14, 17]]))
    assert found.accepted.all()
    assert (found.places - torch.tensor(place)).norm() <= 4  # the stride of the encoder


def test_a_phantom_without_it_is_rejected(matcher: EmbeddingMatches) -> None:
    found = matcher(0, 2, torch.tensor([[13, 14, 17]]))
    assert float(found.likeness) < matcher.threshold
    assert not found.accepted.any()


def test_points_find_themselves_and_the_way_back_rejects_what_does_not_return(matcher: EmbeddingMatches) -> None:
    points = torch.randint(SIZE, (40, 3), generator=torch.Generator().manual_seed(0))
    own = matcher(0, 0, points)
    torch.testing.assert_close(own.places, points.float())
    torch.testing.assert_close(own.likeness, torch.ones(40))
    plain = matcher(0, 1, points)
    try:
        matcher.back, matcher.threshold = 6.0, -1.0
        back = matcher(0, 1, points)
    finally:
        matcher.back, matcher.threshold = None, 0.7
    assert torch.equal(back.places, plain.places)
    for place, accepted in zip(back.places, back.accepted, strict=True):
        returned = matcher(1, 0, place[None].round().long()).places
        near = (returned - points[(plain.places == place).all(1)]).norm(dim=1).min() <= 6 + 8  # and cells of 4
        assert near or not accepted
    assert 0 < int(back.accepted.sum()) < 40


def test_a_search_around_the_guess_of_body_boxes_stays_there(matcher: EmbeddingMatches) -> None:
    points = torch.randint(4, SIZE - 4, (20, 3), generator=torch.Generator().manual_seed(1))
    guess = BodyBoxes(matcher._anatomies)(0, 1, points).places
    try:
        matcher.within = 6.0
        near = matcher(0, 1, points)
        matcher.within = 1e-3  # between the centres of cells
        none = matcher(0, 1, points)
    finally:
        matcher.within = None
    assert ((near.places - guess).norm(dim=1) <= 6 + 12**0.5 + 1e-3).all()  # and the place within the cell
    assert bool((matcher(0, 1, points).likeness >= near.likeness).all())
    assert not none.accepted[none.likeness == -torch.inf].any()
    assert bool((none.likeness == -torch.inf).any())


def test_the_product_matches_as_a_loop_over_all_cells() -> None:
    g = torch.Generator().manual_seed(0)
    queries, keys = (F.normalize(torch.randn(n, 6, generator=g), dim=1) for n in (5, 60))
    index, likeness = match_points(queries, keys)
    for i, query in enumerate(queries):
        cosines = [float(torch.dot(query, key)) for key in keys]
        assert int(index[i]) == max(range(60), key=cosines.__getitem__)
        assert float(likeness[i]) == pytest.approx(max(cosines), abs=1e-6)


def test_a_volume_larger_than_the_window_is_embedded_in_parts() -> None:
    volumes = [{"image": noise(0, 22)}, {"image": noise(1, 22)}]
    network = SegResNet(init_filters=8, blocks_down=(1, 1), blocks_up=(1,))
    parts = EmbeddingMatches(volumes, bodies(volumes), network, levels=(0, -1), step=4, window=16)
    points = torch.tensor([[0, 0, 0], [21, 21, 21], [9, 3, 15]])
    torch.testing.assert_close(parts(1, 1, points).places, points.float())


def test_an_embedding_does_not_change_the_network() -> None:
    network = SegResNet(init_filters=8, blocks_down=(1, 1), blocks_up=(1,)).train()
    EmbeddingMatches([{"image": noise(0, 8)}], bodies([{"image": noise(0, 8)}]), network)
    assert network.training


# --- views


@pytest.mark.parametrize("centre", [(4, 5, 6), (0, 0, 0), (9, 11, 12), (-2, 5, 14)])
def test_a_crop_has_its_point_in_the_middle_and_the_fill_beyond_the_volume(centre: tuple[int, ...]) -> None:
    size = (5, 4, 6)
    image = torch.rand(2, 10, 12, 13, generator=torch.Generator().manual_seed(0))
    crop, valid = crop_around(image, torch.tensor(centre), size, fill=-1.0)
    for place in np.ndindex(*size):
        source = tuple(c + p - n // 2 for c, p, n in zip(centre, place, size, strict=True))
        known = all(0 <= s < n for s, n in zip(source, image.shape[1:], strict=True))
        assert bool(valid[place]) == known
        expected = image[(slice(None), *source)] if known else torch.full((2,), -1.0)
        assert torch.equal(crop[(slice(None), *place)], expected)


def test_a_crop_wholly_beyond_the_volume_is_all_fill() -> None:
    crop, valid = crop_around(torch.rand(1, 8, 8), torch.tensor([30, 4]), (4, 4), fill=-1.0)
    assert not valid.any()
    assert bool((crop == -1).all())


def two() -> list[dict[str, Any]]:
    return [planted(0, (13, 14, 17), 1.0), planted(1, (18, 14, 15), 1.15)]


class Always:
    """Finds one place, in the volumes it is told."""

    def __init__(self, accepted_in: set[int], place: Sequence[float] = (18.0, 14.0, 15.0)) -> None:
        self.accepted_in = accepted_in
        self.place = place
        self.asked: list[int] = []

    def __call__(self, source: int, target: int, points: Tensor) -> Matches:
        self.asked.append(target)
        places = torch.tensor(self.place).expand(len(points), 3)
        accepted = torch.full((len(points),), target in self.accepted_in)
        return Matches(places, torch.full((len(points),), 0.4), accepted)


def test_both_views_show_the_places_that_match() -> None:
    volumes = two()
    pairs = AnatomicalPairs(
        volumes, Compose([]), correspondence=Always({1}), **CROP, keys=("image", "coords", "valid", "partner")
    )
    found = pairs[0, 7]
    assert (found["case"], found["partner"]) == ("case_0", "case_1")
    assert found["image"].shape == (2, 1, 8, 8, 8)
    assert found["coords"].shape == (2, 3, 8, 8, 8)
    middle = (4, 4, 4)
    assert found["image"][1, 0][middle] == volumes[1]["image"][0, 18, 14, 15]
    assert found["coords"][:, :, 4, 4, 4].abs().max() == 0
    assert found["coords"][1, :, 5, 4, 3].tolist() == [1.0, 0.0, -1.0]
    assert found["valid"][1].all()


def test_places_are_in_mm_from_the_match_and_beyond_a_volume_not_valid() -> None:
    volumes = [ellipsoid((15, 15, 15), (9, 9, 9), spacing=(1, 2, 3), seed=n) for n in range(2)]
    pairs = AnatomicalPairs(volumes, Compose([]), correspondence=Always({1}, (1.25, 15.0, 15.0)), **CROP)
    found = pairs[0, 0]
    assert found["coords"][1, :, 4, 4, 4].tolist() == pytest.approx([-0.25, 0.0, 0.0])
    assert found["coords"][1, :, 5, 5, 5].tolist() == pytest.approx([0.75, 2.0, 3.0])
    assert not found["valid"][1, :3].any()
    assert found["valid"][1, 3:].all()


def test_the_same_index_gives_the_same_pair_and_views_are_drawn_apart() -> None:
    pairs = AnatomicalPairs(
        [*two(), planted(2, (10, 10, 10), 1.0)], BRIGHTER, **CROP, keys=("image", "likeness", "partner")
    )
    first, again, other = pairs[0, 3], pairs[0, 3], pairs[0, 4]
    assert torch.equal(first["image"], again["image"])
    assert not torch.equal(first["image"], other["image"])
    assert {pairs[0, seed]["partner"] for seed in range(12)} == {"case_1", "case_2"}
    plain = AnatomicalPairs(two(), Compose([]), **CROP)[0, 3]["image"]
    bright = AnatomicalPairs(two(), BRIGHTER, **CROP)[0, 3]["image"]
    factors = (bright / plain.clamp(min=1e-3)).flatten(1).median(1).values
    assert factors[0] != factors[1]


def test_volumes_of_one_patient_or_of_another_group_are_no_pair() -> None:
    volumes = [{**volume, "subject": "one", "region": "a"} for volume in two()]
    with pytest.raises(ValueError, match="pairs need volumes of at least two patients, got 2 volumes"):
        AnatomicalPairs(volumes, BRIGHTER, **CROP)
    mixed = [{**volume, "region": region} for volume, region in zip(two(), "ab", strict=True)]
    with pytest.raises(ValueError, match="two patients of one group"):
        AnatomicalPairs(mixed, BRIGHTER, **CROP, group_key="region")


def test_rejected_matches_are_counted_named_and_never_used(caplog: pytest.LogCaptureFixture) -> None:
    volumes = [*two(), planted(2, (10, 10, 10), 1.0)]
    matching = Always({2})
    pairs = AnatomicalPairs(volumes, BRIGHTER, **CROP, correspondence=matching, points=5, keys=("rejected", "partner"))
    with caplog.at_level(logging.WARNING):
        found = [pairs[0, seed] for seed in range(10)]
    assert {each["partner"] for each in found} == {"case_2"}
    assert {int(each["rejected"]) for each in found} == {0, 5}
    assert pairs.rejected[("case_0", "case_1")] == sum(int(each["rejected"]) for each in found)
    assert caplog.text.count("left out 5 matches of case_0 in case_1") == 1


def test_without_any_match_another_volume_takes_the_place_and_the_last_bad_match_is_never_used() -> None:
    pairs = AnatomicalPairs([*two(), planted(2, (10, 10, 10), 1.0)], BRIGHTER, **CROP, correspondence=Always({0}))
    with pytest.raises(NoMatchError, match=r"case_0: 32 matches in 2 other volumes .* best had a likeness of 0\.40"):
        pairs[0, 1]
    batch = pairs.__getitems__([(0, 1)])
    assert batch[0]["case"] in ("case_1", "case_2")
    nothing = AnatomicalPairs(two(), BRIGHTER, **CROP, correspondence=Always(set()))
    with pytest.raises(NoMatchError, match=r"a batch needs 2 volumes with a match .*lower the threshold") as caught:
        nothing.__getitems__([(0, 1), (1, 2)])
    assert "case_0: 16 matches" in str(caught.value)


def test_a_transform_that_moves_voxels_to_another_shape_is_refused() -> None:
    chain = Compose([RandSpatialCropd("image", (4, 4, 4), random_size=False)])
    with pytest.raises(ValueError, match=r"must leave voxels where they are, it made \(4, 4, 4\) of \(8, 8, 8\)"):
        AnatomicalPairs(two(), chain, **CROP)[0, 0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"correspondence": "atlas"}, "correspondence must be one of"),
        ({"correspondence": "embedding"}, r"needs a pretrained encoder: give a network and .*--match_weights"),
        ({"options": {"threshold": 0.5}}, r"body boxes have no options, got \['threshold'\]"),
        ({"points": 0}, "points and attempts must be at least 1, got 0 and 4"),
        ({"correspondence": "registration", "options": {"threshold": 2.0}}, "threshold must be a correlation"),
        ({"correspondence": "registration", "options": {"grid_mm": 0.0}}, "grid_mm and iterations must be positive"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AnatomicalPairs(two(), BRIGHTER, **CROP, **options)


def test_options_of_an_embedding_out_of_range_are_refused() -> None:
    network = SegResNet(init_filters=8, blocks_down=(1, 1), blocks_up=(1,))
    for options, message in (
        ({"step": 0}, "step and window"),
        ({"threshold": 1.2}, "cosine"),
        ({"back": 0.0}, "back"),
        ({"within": -1.0}, "within"),
    ):
        with pytest.raises(ValueError, match=message):
            EmbeddingMatches([], [], network, **options)  # type: ignore[arg-type]


class Disk:
    """An array that is read box by box, until its file breaks."""

    def __init__(self, values: Tensor) -> None:
        self.values: NDArray[Any] = values.numpy()
        self.broken = False
        self.read_voxels = 0

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    def read(self, box: tuple[slice, ...]) -> NDArray[Any]:
        if self.broken:
            raise OSError("damaged")
        self.read_voxels += self.values[box].size
        return self.values[box].copy()


class Kept:
    """A dataset whose volumes stay on disk."""

    def __init__(self, volumes: Sequence[dict[str, Any]]) -> None:
        self.disks = [Disk(torch.as_tensor(volume["image"])) for volume in volumes]
        self.items = [
            {**volume, "image": StoredVolume(disk, torch.eye(4))}
            for volume, disk in zip(volumes, self.disks, strict=True)
        ]

    def __len__(self) -> int:
        return len(self.items)

    def stored(self, index: int) -> dict[str, Any]:
        return dict(self.items[index])

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self.items[index], "image": self.items[index]["image"].read()}


def test_of_volumes_on_disk_only_the_crops_are_read() -> None:
    kept = Kept(two())
    pairs = AnatomicalPairs(kept, Compose([]), **CROP)
    before = [disk.read_voxels for disk in kept.disks]
    found = pairs[0, 3]
    assert all(disk.read_voxels - old <= 8**3 for disk, old in zip(kept.disks, before, strict=True))
    assert torch.equal(found["image"], AnatomicalPairs(two(), Compose([]), **CROP)[0, 3]["image"])


def test_a_volume_that_breaks_is_counted_by_its_own_name_and_left_out() -> None:
    kept = Kept([*two(), planted(2, (10, 10, 10), 1.0), planted(3, (10, 10, 10), 1.0)])
    pairs = AnatomicalPairs(kept, BRIGHTER, **CROP, keys=("image", "partner"))
    kept.disks[1].broken = True
    batch = [pairs.__getitems__([(0, seed), (1, seed)]) for seed in range(6)]
    for views in (view for one in batch for view in one):
        assert "case_1" not in (views["case"], views["partner"])
        assert {case for case, _ in views["faults"]} == {"case_1"}
    for disk in kept.disks:
        disk.broken = True
    with pytest.raises((TooManyFaultsError, NoMatchError), match="case_"):
        pairs.__getitems__([(0, 1)])


def test_a_volume_that_cannot_be_read_at_the_start_is_no_partner_and_a_fault_of_its_own() -> None:
    kept = Kept([*two(), planted(2, (10, 10, 10), 1.0)])
    kept.disks[2].broken = True
    pairs = AnatomicalPairs(kept, BRIGHTER, **CROP, keys=("partner",))
    assert {pairs[0, seed]["partner"] for seed in range(6)} == {"case_1"}
    batch = pairs.__getitems__([(2, 0)])
    assert set(batch[0]["faults"]) == {("case_2", "OSError: damaged")}


def test_probes_are_drawn_once_and_leave_out_what_has_no_match(caplog: pytest.LogCaptureFixture) -> None:
    items = [*two(), planted(2, (10, 10, 10), 1.0)]
    found = pair_batches(items, None, BRIGHTER, batch_size=2, **CROP)
    assert [len(batch["case"]) for batch in found] == [2, 1]
    assert found[0]["image"].shape == (2, 2, 1, 8, 8, 8)
    assert pair_batches(items[:1], None, BRIGHTER, batch_size=2, **CROP) == []
    apart = [{**item, "region": str(number)} for number, item in enumerate(items)]
    assert pair_batches(apart, None, BRIGHTER, batch_size=2, **CROP, group_key="region") == []
    with caplog.at_level(logging.WARNING):
        some = pair_batches(items, None, BRIGHTER, batch_size=2, **CROP, correspondence=Always({0}))
    assert [batch["case"] for batch in some] == [["case_1", "case_2"]]
    assert "left out of the probe: case_0" in caplog.text
