import pytest

from monai_cl.data import PartitionBatchSampler, partition_of, partition_starts, positioned_items, relative_position


@pytest.mark.parametrize("slab", [1, 3])
@pytest.mark.parametrize("n_parts", [1, 3, 4, 7])
def test_every_slab_is_in_exactly_one_partition_in_order(n_parts: int, slab: int) -> None:
    for depth in range(slab, 40):
        parts = partition_starts(depth, n_parts, slab=slab)
        assert [start for part in parts for start in part] == list(range(depth - slab + 1))
        assert all(partition_of(i, depth, n_parts, slab=slab) == q for q, part in enumerate(parts) for i in part)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
        if slab == 1:
            assert [partition_of(i, depth, n_parts) for i in range(depth)] == [
                n_parts * i // depth for i in range(depth)
            ]


def test_batches_hold_each_partition_of_distinct_patients_over_all_processes() -> None:
    depths, subjects = [3, 10, 11, 12, 9, 8, 10, 10], ["a", "a", "b", "c", "d", "e", "f", "f"]
    ranks = [
        PartitionBatchSampler(1, 4, depths=depths, subjects=subjects, rank=r, num_replicas=2) for r in range(2)
    ]  # fmt: skip
    seen: set[tuple[int, int]] = set()
    for epoch in range(60):
        for sampler in ranks:
            sampler.set_epoch(epoch)
        patients = []
        for batches in zip(*ranks, strict=True):
            for batch in batches:
                volumes = {draw.volume for draw in batch}
                assert len(volumes) == 1
                patients += [subjects[v] for v in volumes]
                assert [d.partition for d in batch] == ([0, 1, 2] if volumes == {0} else [0, 1, 2, 3])
                assert all(partition_of(d.start, depths[d.volume], 4) == d.partition for d in batch)
                seen |= {(d.volume, d.start) for d in batch}
        assert len(set(patients)) == len(patients) == 6
    assert seen == {(v, i) for v, depth in enumerate(depths) for i in range(depth)}


def test_a_run_of_steps_goes_on_where_it_was() -> None:
    whole = PartitionBatchSampler(2, 3, depths=[9] * 5, steps=7, seed=3)
    rest = PartitionBatchSampler(2, 3, depths=[9] * 5, steps=7, seed=3)
    rest.start = 4
    assert list(whole)[4:] == list(rest)
    assert (len(whole), len(rest)) == (7, 3)


def test_items_gain_their_place() -> None:
    items = positioned_items([{"image": "a", "subject": 7}, {"image": "b"}], [4, 3], 2, slab=2)
    assert [(i["volume"], i["subject"], i["start"], i["partition"]) for i in items] == [
        (0, "7", 0, 0), (0, "7", 1, 0), (0, "7", 2, 1), (1, "b", 0, 0), (1, "b", 1, 1),
    ]  # fmt: skip
    assert [i["position"] for i in items[:3]] == [0.25, 0.5, 0.75]
    assert relative_position(0, 2) == 0.25


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="start must be between 0 and 3"):
        partition_of(4, 4, 2)
    with pytest.raises(ValueError, match="holds no slab of 3"):
        partition_starts(2, 2, slab=3)
    with pytest.raises(ValueError, match="n_parts and slab must be at least 1"):
        partition_starts(2, 0)
    with pytest.raises(ValueError, match=r"between 1 and the number of patients \(1\), got 2 x 1"):
        PartitionBatchSampler(2, 4, depths=[9, 9], subjects=["a", "a"])
    with pytest.raises(ValueError, match=r"depths must have one value for each volume \(1\), got 2"):
        positioned_items([{"image": "a"}], [1, 2], 2)
    with pytest.raises(ValueError, match="rank must be between 0 and 0, got 1"):
        PartitionBatchSampler(1, 4, depths=[9], rank=1)
