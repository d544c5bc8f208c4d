"""Series of a study as they are drawn, and the views that are made of them."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform, Randomizable

from monai_cl.transforms import (
    RandMRContrast,
    RandStudyViews,
    RandStudyViewsD,
    RandStudyViewsd,
    RandStudyViewsDict,
    SampleSeriesD,
    SampleSeriesd,
    SampleSeriesDict,
)

NAMES = ["T1w", "T2w", "FLAIR"]


def drawn(names: list[str], k: int, seed: int = 0) -> list[str]:
    item = {"image": [name.lower() for name in names], "sequences": names}
    found = SampleSeriesd("image", k).set_random_state(seed=seed)(item)
    assert found["image"] == [name.lower() for name in found["sequences"]]
    chosen: list[str] = found["sequences"]
    return chosen


def test_of_more_series_k_are_drawn_without_replacement_each_as_often() -> None:
    names = list("abcdef")
    often: Counter[str] = Counter()
    for seed in range(600):
        found = drawn(names, 4, seed)
        assert len(found) == len(set(found)) == 4
        often.update(found)
    assert all(abs(often[name] - 400) < 50 for name in names)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_of_fewer_all_are_kept_and_topped_up(count: int) -> None:
    names = list("abcd")[:count]
    for seed in range(20):
        found = drawn(names, 4, seed)
        assert len(found) == 4
        assert set(found) == set(names)
    assert len({tuple(drawn(names, 4, seed)) for seed in range(40)}) > 1 or count == 1


def test_the_top_up_is_drawn_with_replacement() -> None:
    most = max(max(Counter(drawn(["a", "b"], 4, seed)).values()) for seed in range(40))
    assert most == 3  # both of the two that are missing are the same series at times


def test_seeds_of_monai_repeat_the_draw() -> None:
    assert drawn(list("abcdefgh"), 4, 5) == drawn(list("abcdefgh"), 4, 5)


@pytest.mark.parametrize("kind", ["mapping", "list", "tensor", "MetaTensor", "numpy"])
def test_mappings_lists_and_tensors_give_the_same_series(kind: str) -> None:
    stack = torch.arange(3.0)[:, None, None, None].expand(3, 2, 2, 2).clone()
    forms: dict[str, Any] = {
        "mapping": dict(zip(NAMES, stack, strict=True)), "list": list(stack), "tensor": stack,
        "MetaTensor": MetaTensor(stack, affine=2 * torch.eye(4)), "numpy": stack.numpy(),
    }  # fmt: skip
    item = {"image": forms[kind]} | ({} if kind == "mapping" else {"sequences": NAMES})
    found = SampleSeriesd("image", 4).set_random_state(seed=0)(item)
    assert [float(one.mean()) for one in found["image"]] == [float(NAMES.index(n)) for n in found["sequences"]]
    if kind == "MetaTensor":
        assert torch.equal(found["image"].affine, item["image"].affine)
    assert item.get("sequences", NAMES) == NAMES


def test_the_contract_of_the_draw() -> None:
    assert SampleSeriesD is SampleSeriesDict is SampleSeriesd
    assert issubclass(SampleSeriesd, MapTransform)
    assert issubclass(SampleSeriesd, Randomizable)
    both = {"image": list("abc"), "mask": list("ABC"), "sequences": NAMES}
    found = SampleSeriesd(["image", "mask"], 2).set_random_state(seed=0)(both)
    assert [name.upper() for name in found["image"]] == found["mask"]
    assert SampleSeriesd("image", allow_missing_keys=True)({"other": 1}) == {"other": 1}
    with pytest.raises(KeyError, match="image"):
        SampleSeriesd("image")({"other": 1})


def test_studies_that_cannot_be_drawn_from_are_refused() -> None:
    with pytest.raises(ValueError, match="k must be at least 1 series, got 0"):
        SampleSeriesd("image", 0)
    with pytest.raises(ValueError, match="at least one series, got none; leave it out"):
        SampleSeriesd("image")({"image": []})
    with pytest.raises(ValueError, match=r"one number of series and a name for each, got 2 .* and 3 names"):
        SampleSeriesd("image")({"image": ["a", "b"], "sequences": NAMES})


# --- views


def study(names: list[str], size: tuple[int, ...] = (12, 10, 9)) -> torch.Tensor:
    """Series whose voxels tell the series and the place."""
    places = torch.arange(float(np.prod(size))).reshape(1, *size)
    return torch.cat([1000.0 * (number + 1) * 10 + places for number in range(len(names))])


def make(crop: tuple[int, ...] = (4, 4, 4), template: tuple[int, ...] = (16, 16, 16), **options: Any) -> RandStudyViews:
    return RandStudyViews(NAMES, crop, template, **options)


def test_target_and_donor_are_one_place_of_differently_named_series() -> None:
    names = ["T1w", "T2w", "T1w", "FLAIR"]
    image, size = study(names), (12, 10, 9)
    seen: Counter[tuple[str, str]] = Counter()
    for seed in range(200):
        found = make().set_random_state(seed=seed)(image, names)
        first = [int(found[key][0, 0, 0, 0]) for key in ("target", "donor")]
        series = [names[value // 10000 - 1] for value in first]
        assert series[0] != series[1]
        assert NAMES.index(series[0]) == found["sequence"]
        start = np.unravel_index(first[0] % 10000, size)
        assert first[1] % 10000 == first[0] % 10000
        window = tuple(slice(s, s + 4) for s in start)
        assert torch.equal(found["target"][0], image[(first[0] // 10000 - 1, *window)])
        assert found["place"].tolist() == [s + (16 - n) // 2 for s, n in zip(start, size, strict=True)]
        assert found["has_donor"]
        seen[series[0], series[1]] += 1
    assert len(seen) == 6


def test_a_study_with_one_sequence_or_the_same_twice_has_no_donor_and_says_so() -> None:
    for names in (["T2w"], ["T2w", "T2w"]):
        found = make().set_random_state(seed=0)(study(names), names)
        assert not found["has_donor"]
        assert not found["donor"].any()
        assert found["sequence"] == 1


def test_a_volume_smaller_than_the_crop_lies_in_its_middle_in_zeros() -> None:
    image = study(["FLAIR"], (3, 10, 2)) + 1
    found = make((8, 4, 5)).set_random_state(seed=0)(image, ["FLAIR"])
    assert found["target"].shape == (1, 8, 4, 5)
    assert found["target"].bool().sum() == 3 * 4 * 2
    assert torch.equal(found["target"][0, 2:5, :, 1:3].bool(), torch.ones(3, 4, 2, dtype=torch.bool))
    assert found["place"].tolist()[0] == -2 + (16 - 3) // 2
    assert found["place"].tolist()[2] == -1 + (16 - 2) // 2


def test_a_record_replays() -> None:
    views, image = make().set_random_state(seed=2), study(NAMES)
    record = views.draw(image, NAMES)
    first = views.apply(image, NAMES, record)
    assert all(torch.equal(value, views.apply(image, NAMES, record)[key]) for key, value in first.items())
    again = make().set_random_state(seed=2)(image, NAMES)
    assert all(torch.equal(value, again[key]) for key, value in first.items())


def test_a_simulated_sequence_takes_the_donors_place_where_a_study_has_maps() -> None:
    size = (12, 10, 9)
    maps = torch.tensor([70.0, 0.9, 0.07, 0.05, 0.02])[:, None, None, None].expand(5, *size).clone()
    maps[:, :6] = torch.tensor([100.0, 4.0, 2.0, 1.0, 0.0])[:, None, None, None]
    views = make(simulate=RandMRContrast(), simulated=1.0, intensities=lambda image: image / image.max())
    found = views.set_random_state(seed=0)(study(["T1w"]), ["T1w"], maps)
    assert found["has_donor"]
    assert 0 < found["donor"].max() <= 1
    assert found["donor"].unique().numel() <= 2  # two tissues
    assert not views(study(["T1w"]), ["T1w"])["has_donor"]


def test_the_dictionary_class_of_the_views_follows_the_contract() -> None:
    assert RandStudyViewsD is RandStudyViewsDict is RandStudyViewsd
    assert issubclass(RandStudyViewsd, MapTransform)
    assert issubclass(RandStudyViewsd, Randomizable)
    item = {"image": study(NAMES), "sequences": NAMES, "case": "a"}
    views = RandStudyViewsd("image", NAMES, (4, 4, 4), (16, 16, 16), k=2).set_random_state(seed=0)
    found = views(item)
    assert found["image"].keys() == {"target", "donor", "has_donor", "sequence", "place"}
    again = make(k=2).set_random_state(seed=0)(item["image"], NAMES)
    assert all(torch.equal(value, again[key]) for key, value in found["image"].items())
    with pytest.raises(ValueError, match=r"must hold the names of its series as 'sequences', got \['image'\]"):
        views({"image": item["image"]})
    with pytest.raises(KeyError, match="image"):
        views({"sequences": NAMES})


def test_what_does_not_fit_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"sequence 'T2' has no template; did you mean 'T2w'\? those that have are"):
        make()(study(["T2"]), ["T2"])
    with pytest.raises(ValueError, match="each once, got"):
        RandStudyViews(["a", "a"], (4,), (4,))
    with pytest.raises(ValueError, match="same axes, each of at least 1 voxel, got"):
        RandStudyViews(["a"], (4, 4), (4,))
    with pytest.raises(ValueError, match="simulated must be a probability"):
        make(simulated=2.0)
    with pytest.raises(ValueError, match="crop_size must have the 2 axes of the volumes"):
        make()(torch.zeros(1, 4, 4), ["T1w"])
    with pytest.raises(ValueError, match="got 2 series and 1 names"):
        make()(torch.zeros(2, 4, 4, 4), ["T1w"])
