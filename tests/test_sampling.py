from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from monai_cl.data.loading.drawing import source_weights
from monai_cl.data.loading.faults import TooManyFaultsError
from monai_cl.data.loading.prepared import PreparedDataset, PreparedStream
from monai_cl.data.loading.sampling import StepSampler, ViewDataset, view_loader
from monai_cl.transforms import VolumeContrastCropsd


def items(sampler: StepSampler) -> list[list[int]]:
    return [[item for item, _ in batch] for batch in sampler]


def test_each_pass_shows_every_item_once_in_a_new_order() -> None:
    batches = items(StepSampler(6, 2, 9, seed=1))
    passes = [[item for batch in batches[i : i + 3] for item in batch] for i in (0, 3, 6)]
    assert all(sorted(p) == list(range(6)) for p in passes)
    assert len({tuple(p) for p in passes}) == 3


def test_no_batch_repeats_an_item_even_when_the_data_do_not_divide() -> None:
    assert all(len(set(batch)) == 3 for batch in items(StepSampler(7, 3, 50)))


def test_starting_late_continues_the_very_sequence() -> None:
    whole = list(StepSampler(7, 3, 20, seed=4))
    late = StepSampler(7, 3, 20, seed=4)
    late.start = 13
    assert list(late) == whole[13:]
    assert len(late) == 7


def test_processes_and_seeds_draw_differently() -> None:
    first = list(StepSampler(8, 2, 5))
    assert first != list(StepSampler(8, 2, 5, rank=1))
    assert first != list(StepSampler(8, 2, 5, seed=1))


def test_a_batch_larger_than_the_data_is_refused() -> None:
    with pytest.raises(ValueError, match=r"between 1 and the number of volumes \(2\), got 3"):
        StepSampler(2, 3, 1)


def views(n: int = 5) -> ViewDataset:
    data = [{"image": torch.rand(1, 12, 12, 12), "case": f"v{i}", "extra": object()} for i in range(n)]
    prepared = PreparedDataset(data, lambda d: d)
    return ViewDataset(prepared, VolumeContrastCropsd("image", (2, 2, 2), (6, 6, 6), 3), keys=["image"])


def test_views_do_not_depend_on_the_number_of_workers() -> None:
    dataset = views()
    loaders = [view_loader(dataset, 5, batch_size=2, steps=4, num_workers=n) for n in (0, 2)]
    for alone, worked in zip(*loaders, strict=True):
        assert alone["case"] == worked["case"]
        assert all(torch.equal(alone["image"][k], worked["image"][k]) for k in alone["image"])


def test_a_loader_leaves_the_global_generator_alone() -> None:
    dataset = views()
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    list(view_loader(dataset, 5, batch_size=2, steps=2))
    assert torch.equal(torch.rand(1), expected)


def fail_on(*names: str) -> Any:
    def transform(item: dict[str, Any]) -> dict[str, Any]:
        if item["case"] in names:
            raise OSError(f"{item['case']} is cut short")
        return item

    return transform


DATA = [{"case": f"c{i}"} for i in range(10)]


def test_faults_are_named_counted_and_left_out(caplog: pytest.LogCaptureFixture) -> None:
    dataset = PreparedDataset(DATA, fail_on("c3"), max_faults=0.1)
    assert len(dataset) == 9
    assert dataset.faults == [("c3", "OSError: c3 is cut short")]
    assert "left out c3" in caplog.text
    assert [d["case"] for d in PreparedStream(DATA, fail_on("c3"), max_faults=0.1)] == [d["case"] for d in dataset]


def test_too_many_faults_stop_the_run_and_are_listed() -> None:
    with pytest.raises(TooManyFaultsError, match=r"at most 10 %.*got 2 of 10(.|\n)*c3: OSError(.|\n)*c7: OSError"):
        PreparedDataset(DATA, fail_on("c3", "c7"), max_faults=0.1)
    with pytest.raises(TooManyFaultsError, match="got 2 of 10"):
        list(PreparedStream(DATA, fail_on("c3", "c7"), max_faults=0.1))


def test_nothing_left_is_an_error_whatever_the_limit() -> None:
    with pytest.raises(TooManyFaultsError, match="got 10 of 10"):
        PreparedDataset(DATA, fail_on(*[d["case"] for d in DATA]), max_faults=1.0)


def test_processes_share_the_items() -> None:
    parts = [PreparedDataset(DATA, dict, rank=r, world_size=3) for r in range(3)]
    names = [d["case"] for part in parts for d in part]
    assert sorted(names) == sorted(d["case"] for d in DATA)
    with pytest.raises(ValueError, match="each of 11 processes needs at least one item, got 10"):
        PreparedDataset(DATA, dict, rank=10, world_size=11)


def test_no_items_and_bad_limits_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one item"):
        PreparedDataset([], dict)
    with pytest.raises(ValueError, match="at least one item is needed, got none"):
        PreparedStream([], dict)
    with pytest.raises(ValueError, match="max_faults must be between 0 and 1, got 5"):
        PreparedDataset(DATA, dict, max_faults=5)


def test_prepared_volumes_keep_their_affine_at_every_reading(tmp_path: Path) -> None:
    import nibabel as nib
    from monai.transforms import Compose, Orientationd, Spacingd

    from monai_cl.transforms import LoadVolumed

    affine = np.diag([-2.0, 1.0, 3.0, 1.0])
    nib.save(
        nib.Nifti1Image(np.random.default_rng(0).random((8, 9, 7), dtype=np.float32), affine), tmp_path / "a.nii.gz"
    )
    chain = Compose(
        [LoadVolumed("image"), Orientationd("image", "RAS", labels=None), Spacingd("image", (1.0, 1.0, 1.0))]
    )
    dataset = PreparedDataset([{"image": str(tmp_path / "a.nii.gz")}], chain)
    first, second = dataset[0]["image"], dataset[0]["image"]
    assert torch.equal(first.affine, second.affine)
    np.testing.assert_allclose(np.diag(first.affine)[:3], 1.0)
    assert len(second.applied_operations) == 2


SOURCES = ["a"] * 2 + ["b"] * 8


def test_sources_are_drawn_by_weight_however_many_volumes_they_have() -> None:
    volumes = [{"source": name, "case": str(i)} for i, name in enumerate(SOURCES)]
    weights = source_weights(volumes, {"a": 1, "b": 3})
    assert weights == pytest.approx([1 / 8] * 2 + [3 / 32] * 8)
    drawn = np.array(items(StepSampler(10, 1, 8000, weights=weights)))
    assert (drawn < 2).mean() == pytest.approx(0.25, abs=3 * (0.25 * 0.75 / 8000) ** 0.5)
    assert set(drawn.ravel()) == set(range(10))
    assert source_weights(volumes, None) is source_weights(volumes, {}) is None


@pytest.mark.parametrize("options", [{"weights": [1, 2, 3, 4, 5, 6]}, {"groups": "aabbbb"}])
def test_weighted_and_grouped_batches_are_a_function_of_seed_rank_and_step(options: dict[str, Any]) -> None:
    whole, late = (StepSampler(6, 2, 40, seed=4, **options) for _ in range(2))
    late.start = 23
    assert list(late) == list(whole)[23:]
    assert all(len(set(batch)) == 2 for batch in items(whole))
    assert list(whole) != list(StepSampler(6, 2, 40, seed=4, rank=1, **options))
    assert list(whole) != list(StepSampler(6, 2, 40, seed=5, **options))


def test_without_weights_and_groups_the_draws_are_those_of_earlier_versions() -> None:
    assert items(StepSampler(5, 2, 4, seed=3)) == [[4, 2], [1, 3], [1, 3], [4, 0]]


def test_a_batch_is_of_one_group_each_as_often_as_it_weighs() -> None:
    groups = ["head"] * 3 + ["chest"] * 6 + [7] * 3
    batches = items(StepSampler(12, 3, 4000, groups=groups))
    kinds = [{groups[item] for item in batch} for batch in batches]
    assert all(len(kind) == 1 for kind in kinds)
    share = [sum(kind == {name} for kind in kinds) / 4000 for name in ("head", "chest", 7)]
    assert share == pytest.approx([0.25, 0.5, 0.25], abs=0.03)
    weighted = items(StepSampler(12, 3, 4000, groups=groups, weights=[3] * 3 + [1] * 9))
    assert np.mean([batch[0] < 3 for batch in weighted]) == pytest.approx(0.5, abs=0.03)


def test_groups_smaller_than_a_batch_are_named_and_left_out(caplog: pytest.LogCaptureFixture) -> None:
    batches = items(StepSampler(5, 2, 20, groups=["a", "a", "rare", "b", "b"]))
    assert 2 not in {item for batch in batches for item in batch}
    assert "fewer volumes than a batch of 2 are not drawn: rare (1)" in caplog.text
    with pytest.raises(ValueError, match=r"none is as large: a \(1\), b \(1\); use a smaller batch_size"):
        StepSampler(2, 2, 1, groups=["a", "b"])


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"a": 1, "b": 0}, r"must be positive numbers, got 0 for 'b'; to leave a source out"),
        ({"a": 1, "b": -1}, "must be positive numbers, got -1"),
        ({"a": 1, "b": True}, "must be positive numbers, got True"),
        ({"a": 1, "b": float("nan")}, "must be positive numbers, got nan"),
        ({"aa": 1, "b": 1}, r"names 'aa', no volume has it as 'source'; did you mean 'a'\? known are a \(2\), b \(8\)"),
        ({"a": 1}, r"must name every source, it lacks b \(8\)"),
    ],
)
def test_weights_that_do_not_fit_the_sources_are_refused(weights: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        source_weights([{"source": name} for name in SOURCES], weights)


def test_a_process_may_lack_a_source_that_others_have() -> None:
    everyone = [{"source": name} for name in "aabb"]
    assert source_weights(everyone[:2], {"a": 1, "b": 3}, among=everyone) == pytest.approx([1 / 8] * 2)
    with pytest.raises(ValueError, match=r"known are a \(2\), b \(2\)"):
        source_weights(everyone[:2], {"a": 1, "b": 3, "c": 1}, among=everyone)


def test_a_volume_without_the_field_is_named() -> None:
    volumes = PreparedDataset([{"case": "c0", "source": "a"}, {"case": "c1"}], dict)
    with pytest.raises(ValueError, match=r"needs the field 'source' in the datalist, 1 of 2 have none, such as c1"):
        source_weights(volumes, {"a": 1})


def test_weights_must_be_one_an_item() -> None:
    with pytest.raises(ValueError, match="weights must have one entry for each of 3 items, got 2"):
        StepSampler(3, 1, 1, weights=[1.0, 1.0])


def test_the_group_of_a_volume_comes_with_its_views() -> None:
    data = [{"image": torch.rand(1, 12, 12, 12), "case": f"v{i}", "region": name} for i, name in enumerate("aabb")]
    volumes = PreparedDataset(data, lambda d: d)
    crops = VolumeContrastCropsd("image", (2, 2, 2), (6, 6, 6), 3)
    dataset = ViewDataset(volumes, crops, keys=["image"], group_key="region")
    loader = view_loader(dataset, 4, batch_size=2, steps=6)
    assert {tuple(batch["region"]) for batch in loader} == {("a", "a"), ("b", "b")}
    assert set(dataset._candidates(0, 5)) == {0, 1}  # what takes the place of an unreadable volume
