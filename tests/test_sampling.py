from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from monai_cl.data.faults import TooManyFaultsError
from monai_cl.data.prepared import PreparedDataset, PreparedStream
from monai_cl.data.sampling import StepSampler, ViewDataset, view_loader
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
    with pytest.raises(ValueError, match="at least one item, got none"):
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
