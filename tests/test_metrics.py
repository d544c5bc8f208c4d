import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from forks import in_two_processes
from ignite.engine import Engine
from monai.data import MetaTensor
from monai.handlers import IgniteMetricHandler
from monai.metrics import CumulativeIterationMetric, EmbeddingCollapseMetric
from torch import Tensor

from monai_cl import metrics
from monai_cl.losses import NonFiniteError
from monai_cl.metrics import (
    BufferedCollapseMetric,
    DeadDimensionsMetric,
    DenseAlignmentMetric,
    DenseUniformityMetric,
    DomainLeakage,
    EffectiveRankMetric,
    InstanceAlignmentMetric,
    InstanceUniformityMetric,
    KNNProbeMetric,
    LinearProbeMetric,
    PositionMetric,
    RetrievalMetric,
    alignment,
    cross_validated_probe_accuracy,
    dead_dimensions,
    dense_alignment,
    dense_uniformity,
    domain_leakage,
    effective_rank,
    knn_accuracy,
    leave_one_out_knn_accuracy,
    linear_probe_accuracy,
    nearest_matches,
    position_error,
    retrieval_at_k,
    uniformity,
)


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def rotation(d: int) -> Tensor:
    return torch.linalg.qr(draw(d, d, seed=9, dtype=torch.float64))[0]


def n(x: Tensor) -> Tensor:
    """Unit length."""
    return x.div(x.norm())


# ---------------------------------------------------------------------------------------------- loops as references


def alignment_loop(x: Tensor, y: Tensor, alpha: float) -> float:
    return sum(float((n(a) - n(b)).norm()) ** alpha for a, b in zip(x, y, strict=True)) / len(x)


def uniformity_loop(x: Tensor, t: float) -> float:
    pairs = [math.exp(-t * float((n(x[i]) - n(x[j])).norm()) ** 2) for j in range(len(x)) for i in range(j)]
    return math.log(sum(pairs) / len(pairs))


def knn_loop(x: Tensor, labels: Tensor, groups: Tensor, k: int, temperature: float) -> float:
    right = 0
    for i in range(len(x)):
        near = [(float(n(x[i]) @ n(x[j])), int(labels[j])) for j in range(len(x)) if groups[j] != groups[i]]
        votes: dict[int, float] = {}
        for similarity, label in sorted(near, reverse=True)[:k]:
            votes[label] = votes.get(label, 0.0) + math.exp(similarity / temperature)
        right += max(votes, key=lambda label: votes[label]) == labels[i]
    return right / len(x)


def position_loop(crops: Tensor, bases: Tensor, overlap: Tensor, centers: Tensor) -> tuple[float, float]:
    right, distance, count = 0, 0.0, 0
    for b in range(len(crops)):
        for s in range(crops.shape[1]):
            cosines = [float(n(crops[b, s]) @ n(base)) for base in bases[b]]
            guess = cosines.index(max(cosines))
            best = [k for k, y in enumerate(overlap[b, s]) if y >= overlap[b, s].max() - 1e-6]
            right += guess in best
            distance += min(float((centers[guess] - centers[k]).norm()) for k in best)
            count += 1
    return right / count, distance / count


@pytest.mark.parametrize("alpha", [1.0, 2.0, 3.0])
def test_alignment_equals_the_loop(alpha: float) -> None:
    x, y = draw(7, 5), draw(7, 5, seed=1)
    assert alignment(x, y, alpha).item() == pytest.approx(alignment_loop(x, y, alpha), rel=1e-5)


@pytest.mark.parametrize("t", [0.5, 2.0])
def test_uniformity_equals_the_loop(t: float) -> None:
    x = draw(9, 4)
    assert uniformity(x, t).item() == pytest.approx(uniformity_loop(x, t), rel=1e-5)


def test_knn_equals_the_loop() -> None:
    x, labels, groups = draw(24, 3), torch.arange(24) % 3 - 1, torch.arange(24) // 2
    fast = leave_one_out_knn_accuracy(x, labels, groups=groups, k=4, chunk_size=5)
    assert fast.item() == pytest.approx(knn_loop(x, labels, groups, 4, 0.1))


def test_retrieval_equals_the_loop() -> None:
    x, y = draw(12, 3), draw(12, 3) + 0.8 * draw(12, 3, seed=1)
    ranks = [sum(float(n(x[i]) @ n(y[j])) > float(n(x[i]) @ n(y[i])) for j in range(12)) for i in range(12)]
    for k in (1, 3):
        assert retrieval_at_k(x, y, k, chunk_size=5).item() == pytest.approx(sum(r < k for r in ranks) / 12)


def test_position_error_equals_the_loop() -> None:
    crops, bases, centers = draw(2, 5, 4), draw(2, 6, 4, seed=1), draw(6, 3, seed=2) * 40
    overlap = draw(2, 5, 6, seed=3).softmax(-1)
    overlap[0, 0] = torch.tensor([0.5, 0.5, 0, 0, 0, 0])
    value = position_error(crops, bases, overlap, centers)
    accuracy, distance = position_loop(crops, bases, overlap, centers)
    assert value["accuracy"].item() == pytest.approx(accuracy)
    assert value["distance_mm"].item() == pytest.approx(distance, rel=1e-5)


def test_dense_alignment_equals_the_loop_with_pairs_left_out() -> None:
    z1, z2 = draw(2, 3, 4, 4), draw(2, 3, 5, 2, seed=1)
    idx1, idx2 = torch.tensor([[0, 5, -1, 7], [3, 3, 15, 2]]), torch.tensor([[9, -1, 2, 0], [1, 4, 0, 9]])
    a, b = z1.flatten(2), z2.flatten(2)
    pairs = [
        float((n(a[i, :, idx1[i, m]]) - n(b[i, :, idx2[i, m]])).norm()) ** 2
        for i in range(2)
        for m in range(4)
        if idx1[i, m] >= 0 and idx2[i, m] >= 0
    ]
    assert dense_alignment(z1, z2, idx1, idx2).item() == pytest.approx(sum(pairs) / len(pairs), rel=1e-5)


def test_dense_uniformity_is_the_instance_one_on_voxels() -> None:
    z = draw(3, 4, 2, 3)
    voxels = z.flatten(2).mT
    assert dense_uniformity(z).item() == pytest.approx(uniformity_loop(voxels.flatten(0, 1), 2.0), rel=1e-5)
    each = [uniformity_loop(image, 2.0) for image in voxels]
    assert dense_uniformity(z, "image").item() == pytest.approx(sum(each) / 3, rel=1e-5)


def test_effective_rank_equals_the_formula() -> None:
    x = draw(10, 4, dtype=torch.float64)
    p = torch.linalg.eigvalsh(x.mT @ x).sqrt()
    p = p / p.sum()
    assert effective_rank(x).item() == pytest.approx(math.exp(-float((p * p.log()).sum())))


# -------------------------------------------------------------------------------------------------- closed forms


def test_alignment_of_equal_views_is_zero() -> None:
    assert alignment(draw(5, 3), draw(5, 3)).item() == 0.0
    assert dense_alignment(draw(2, 3, 4), draw(2, 3, 4)).item() == 0.0


def test_alignment_of_opposite_views_is_four() -> None:
    assert alignment(draw(5, 3), -draw(5, 3)).item() == pytest.approx(4.0, rel=1e-5)


def test_uniformity_is_zero_for_collapsed_embeddings() -> None:
    assert uniformity(draw(1, 8).expand(20, 8)).item() == pytest.approx(0.0, abs=1e-5)
    assert uniformity(torch.zeros(4, 3)).item() == pytest.approx(0.0, abs=1e-6)


def test_uniformity_of_an_orthogonal_frame() -> None:
    assert uniformity(torch.eye(6), t=1.5).item() == pytest.approx(-3.0, rel=1e-6)


@pytest.mark.parametrize("chunk_size", [1, 2, 3, 10, 11, 100])
def test_chunked_uniformity_equals_the_single_shot(chunk_size: int) -> None:
    x = draw(11, 4)
    assert uniformity(x, chunk_size=chunk_size).item() == pytest.approx(uniformity(x).item(), rel=1e-5)


def test_uniformity_holds_no_array_of_all_pairs_by_dimensions() -> None:
    sizes = []

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            sizes.append(result.numel() if isinstance(result, Tensor) else 0)
            return result

    with Watch():
        uniformity(draw(200, 16), chunk_size=8)
    assert max(sizes) == 200 * 16  # the embeddings themselves


@pytest.mark.parametrize("k", [1, 3, 5])
def test_effective_rank_of_k_equal_directions_is_k(k: int) -> None:
    assert effective_rank(torch.eye(8)[:k].repeat(4, 1) * 3).item() == pytest.approx(k, rel=1e-5)


def test_effective_rank_of_rank_one_is_one() -> None:
    assert effective_rank(draw(20, 1) @ draw(1, 8, seed=1)).item() == pytest.approx(1.0, abs=1e-3)


def test_effective_rank_of_no_direction_is_zero() -> None:
    assert effective_rank(torch.zeros(4, 3)).item() == 0.0
    assert effective_rank(draw(1, 3).expand(7, 3), center=True).item() == 0.0


def test_centering_takes_the_common_offset_away() -> None:
    x = torch.eye(3)[[0, 0, 1, 1]] + 100
    assert effective_rank(x, center=True).item() == pytest.approx(1.0, abs=1e-3)


def test_dead_dimensions_are_counted() -> None:
    x = draw(30, 4)
    x[:, 1] = 5.0
    x[:, 2] *= 1e-4
    assert dead_dimensions(x).item() == 0.5
    assert dead_dimensions(x, tolerance=1e-5).item() == 0.25
    assert dead_dimensions(draw(1, 6).expand(9, 6)).item() == 1.0


def test_a_flipped_view_needs_the_flip_in_the_correspondence() -> None:
    z = draw(2, 4, 3, 5)
    grid = torch.arange(15).reshape(3, 5)
    assert dense_alignment(z, z.flip(3), grid.flatten(), grid.flip(1).flatten()).item() == 0.0
    assert dense_alignment(z, z.flip(3)).item() > 0.1
    assert torch.equal(nearest_matches(z, z.flip(3), chunk_size=4)[0], grid.flip(1).flatten())


def test_collapsed_embeddings_retrieve_nothing_and_vote_for_the_commonest_label() -> None:
    same, labels = torch.ones(10, 3), torch.tensor([1] * 6 + [4] * 4)
    assert retrieval_at_k(same, same, k=9).item() == 0.0
    assert knn_accuracy(same, labels, same, labels, k=1).item() == pytest.approx(0.6)


def test_knn_of_other_groups_ignores_near_copies() -> None:
    x = torch.tensor([[1.0, 0.0], [1.0, 0.01], [0.6, 0.8], [0.6, 0.81]])
    labels, groups = torch.tensor([0, 0, 1, 1]), torch.tensor([7, 7, 3, 3])
    assert leave_one_out_knn_accuracy(x, labels, k=1).item() == 1.0
    assert leave_one_out_knn_accuracy(x, labels, groups=groups, k=1).item() == 0.0


def test_labels_never_seen_count_as_wrong() -> None:
    x, labels = torch.eye(3), torch.tensor([0, 1, 2])
    assert knn_accuracy(x[:2], labels[:2], x, labels, k=1).item() == pytest.approx(2 / 3)
    assert linear_probe_accuracy(x[:2], labels[:2], x[2:], labels[2:]).item() == 0.0


def test_linear_probe_finds_what_is_linearly_there_at_any_scale() -> None:
    labels = torch.arange(40) % 2
    x = torch.cat([draw(40, 3), 1e-3 * (labels * 2 - 1 + 0.1 * draw(40, seed=1))[:, None]], dim=1)
    assert linear_probe_accuracy(x[:20], labels[:20], x[20:], labels[20:]).item() == 1.0
    assert cross_validated_probe_accuracy(x * 1e3, labels).item() == 1.0


def test_linear_probe_scores_groups_it_has_not_seen() -> None:
    groups = torch.arange(40) // 4
    x = torch.nn.functional.one_hot(groups).float()  # knows the patient, not the label
    labels = groups % 2
    assert cross_validated_probe_accuracy(x, labels, folds=4).item() > 0.9
    assert cross_validated_probe_accuracy(x, labels, groups=groups, folds=5).item() < 0.7


def test_cross_validation_does_not_depend_on_the_order_of_samples() -> None:
    x, labels, groups = draw(30, 3), torch.arange(30) % 3, torch.arange(30) // 3
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    one = cross_validated_probe_accuracy(x, labels, groups=groups)
    assert one.item() == cross_validated_probe_accuracy(x[order], labels[order], groups=groups[order]).item()


def test_right_embeddings_have_no_position_error() -> None:
    eye = torch.eye(4)[None]
    centers = 30 * torch.arange(4.0)[:, None]
    value = position_error(3 * eye, eye, eye, centers.expand(1, 4, 1))
    assert value["accuracy"].item() == 1.0
    assert value["distance_mm"].item() == 0.0
    assert value["chance_accuracy"].item() == 0.25
    assert value["chance_distance_mm"].item() == pytest.approx(30 * (6 + 4 + 4 + 6) / 16)


# ---------------------------------------------------------------------------------------- invariances, gradients, types

GROUPS = torch.arange(16) // 2
LABELS = torch.arange(16) % 4 // 2
SCORES: dict[str, Callable[[Tensor], Tensor]] = {
    "alignment": lambda x: alignment(x[:8], x[8:]),
    "uniformity": uniformity,
    "effective_rank": effective_rank,
    "retrieval": lambda x: retrieval_at_k(x[:8], x[8:], 3),
    "knn": lambda x: leave_one_out_knn_accuracy(x, LABELS, groups=GROUPS, k=3),
    "dense_alignment": lambda x: dense_alignment(x[:8].mT[None], x[8:].mT[None]),
    "dense_uniformity": lambda x: dense_uniformity(x.mT.reshape(1, -1, 4, 4)),
    "position": lambda x: position_error(x[None, :8], x[None, 8:], torch.eye(8)[None], 9.0 * torch.eye(8))[
        "distance_mm"
    ],
}


@pytest.mark.parametrize("name", SCORES)
def test_rotation_and_scale_change_nothing(name: str) -> None:
    x = draw(16, 6, dtype=torch.float64)
    expected = SCORES[name](x).item()
    assert SCORES[name](x @ rotation(6)).item() == pytest.approx(expected, abs=1e-9)
    assert SCORES[name](x * 37).item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", SCORES)
def test_half_precision_gives_float32_and_nearly_the_same(name: str, dtype: torch.dtype) -> None:
    x = (draw(16, 6) * 3000).to(dtype)  # squares overflow in float16
    value = SCORES[name](x)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(SCORES[name](x.double()).item(), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("name", SCORES)
def test_float32_inside_autocast(name: str) -> None:
    x = draw(16, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = SCORES[name](x)
    assert inside.item() == SCORES[name](x).item()


@pytest.mark.parametrize("name", ["alignment", "uniformity", "effective_rank", "dense_alignment", "dense_uniformity"])
def test_gradients(name: str) -> None:
    x = draw(16, 3, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(SCORES[name], (x,))


def test_chunked_uniformity_has_the_same_finite_gradient() -> None:
    grads = []
    for chunk_size in (1, 100):
        x = draw(5, 3).requires_grad_()
        uniformity(x, chunk_size=chunk_size).backward()
        assert x.grad is not None
        grads.append(x.grad)
    torch.testing.assert_close(grads[0], grads[1])


def test_metatensors_give_plain_values() -> None:
    value = dense_uniformity(MetaTensor(draw(1, 3, 4, 4)))
    assert type(value) is Tensor


# -------------------------------------------------------------------------------------------- epochs and processes

COUNTS = (5, 3)  # samples of the two processes


def feed(metric: CumulativeIterationMetric, start: int, stop: int) -> None:
    """One batch: samples ``start`` to ``stop`` of the epoch."""
    x, y, rows = draw(8, 6), draw(8, 6) + 0.5 * draw(8, 6, seed=1), slice(start, stop)
    labels, groups = torch.arange(8) % 2, torch.arange(8) // 2
    maps = draw(8, 4, 3, 3), draw(8, 4, 3, 3, seed=1)
    x[:, 2] = 0.3
    if isinstance(metric, PositionMetric):
        bases, overlap = draw(8, 4, 6, seed=2), draw(8, 3, 4, seed=3).softmax(-1)
        metric(x[rows, None].expand(-1, 3, -1), bases[rows], overlap=overlap[rows], centers=20.0 * torch.eye(4))
    elif isinstance(metric, DenseAlignmentMetric):
        index = torch.arange(9).expand(8, 9).clone()
        index[::2, :4] = -1
        metric(maps[0][rows], maps[1][rows], idx1=index[rows], idx2=index[rows].flip(1))
    elif isinstance(metric, DenseUniformityMetric):
        metric(maps[0][rows])
    elif isinstance(metric, KNNProbeMetric | LinearProbeMetric | DomainLeakage):
        metric(x[rows], labels[rows], groups=groups[rows])
    elif isinstance(metric, BufferedCollapseMetric):
        metric(x[rows], labels[rows])
    else:
        metric(x[rows], y[rows])


def every_metric() -> dict[str, CumulativeIterationMetric]:
    return {
        "InstanceAlignmentMetric": InstanceAlignmentMetric(),
        "InstanceUniformityMetric": InstanceUniformityMetric(chunk_size=3),
        "DenseAlignmentMetric": DenseAlignmentMetric(),
        "DenseUniformityMetric": DenseUniformityMetric(num_voxels=4),
        "DenseUniformityMetric image": DenseUniformityMetric("image", num_voxels=None),
        "EffectiveRankMetric": EffectiveRankMetric(),
        "DeadDimensionsMetric": DeadDimensionsMetric(),
        "KNNProbeMetric": KNNProbeMetric(k=3),
        "LinearProbeMetric": LinearProbeMetric(folds=3),
        "DomainLeakage": DomainLeakage(folds=3),
        "RetrievalMetric": RetrievalMetric(k=2),
        "PositionMetric": PositionMetric(),
        "BufferedCollapseMetric": BufferedCollapseMetric(
            ["effective_rank", "centroid_similarity", "per_class_rank", "separation"], reduction="max"
        ),
    }


def values(metric: CumulativeIterationMetric) -> dict[str, float]:
    result = metric.aggregate()
    named = result if isinstance(result, dict) else {"value": result}
    return {name: value.item() for name, value in named.items()}


def test_every_exported_metric_is_in_the_battery() -> None:
    exported = {name for name in metrics.__all__ if name.endswith("Metric")} | {"DomainLeakage"}
    assert exported == {name.split()[0] for name in every_metric()}


@pytest.mark.parametrize("name", every_metric())
def test_an_epoch_in_batches_equals_one_batch_and_reset_forgets(name: str) -> None:
    metric, whole = every_metric()[name], every_metric()[name]
    feed(metric, 0, 1)
    metric.reset()
    for start, stop in ((0, 2), (2, 3), (3, 8)):
        feed(metric, start, stop)
    feed(whole, 0, 8)
    assert values(metric) == pytest.approx(values(whole), rel=1e-5)


def run_process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    results: dict[str, Any] = {}
    for name, metric in every_metric().items():
        start = sum(COUNTS[:rank])
        feed(metric, start, start + COUNTS[rank])
        results[name] = values(metric), len(metric)
        metric.reset()
        if rank == 1:  # the other process has no sample
            feed(metric, 0, 8)
        results[f"{name} alone"] = values(metric), len(metric)
    empty = InstanceUniformityMetric()
    try:
        empty.aggregate()
    except ValueError as error:
        results["empty"] = str(error)
    dist.destroy_process_group()
    torch.save(results, Path(folder) / f"{rank}.pt")


def test_two_processes_equal_one_also_with_unequal_or_no_samples(tmp_path: Path) -> None:
    in_two_processes(run_process, str(tmp_path))
    for rank in range(2):
        results = torch.load(tmp_path / f"{rank}.pt")
        assert "holds no samples" in results["empty"]
        for name, metric in every_metric().items():
            feed(metric, 0, 8)
            for key in (name, f"{name} alone"):
                assert results[key][0] == pytest.approx(values(metric), rel=1e-5), (rank, key)
                assert results[key][1] == len(metric), (rank, key)


def test_collapse_scores_are_monais() -> None:
    x, labels = draw(12, 5), torch.arange(12) % 3
    metric = BufferedCollapseMetric(["effective_rank", "separation"])
    metric(x[:4], labels[:4])
    metric(x[4:], labels[4:])
    theirs = EmbeddingCollapseMetric("none", ["effective_rank", "separation"])(x, labels)
    assert values(metric) == pytest.approx({name: value.item() for name, value in theirs.items()})


def test_collapse_scores_that_monai_does_not_have_are_nan() -> None:
    metric = BufferedCollapseMetric(["centroid_similarity"])
    metric(draw(4, 3), torch.zeros(4, dtype=torch.long))
    assert math.isnan(values(metric)["centroid_similarity"])


def test_lists_of_samples_are_taken_as_batches_are() -> None:
    metric = InstanceAlignmentMetric()
    metric(list(draw(4, 3)), list(draw(4, 3, seed=1)))
    assert metric.aggregate().item() == pytest.approx(alignment(draw(4, 3), draw(4, 3, seed=1)).item())


def test_voxels_taken_do_not_depend_on_the_batch() -> None:
    metric = DenseUniformityMetric(num_voxels=5, seed=3)
    z = draw(2, 3, 4, 4)
    both = metric(z)
    one = metric(z[1:])
    assert torch.equal(both[5:], one)


# ------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("score", [uniformity, effective_rank, dead_dimensions])
def test_one_sample_is_refused(score: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(ValueError, match="x must hold at least 2 samples, got 1"):
        score(draw(1, 3))


@pytest.mark.parametrize(
    "metric", [InstanceUniformityMetric(), EffectiveRankMetric(), BufferedCollapseMetric(["effective_rank"])]
)
def test_an_epoch_of_one_sample_is_refused_and_none_too(metric: CumulativeIterationMetric) -> None:
    with pytest.raises(ValueError, match="Metric holds no samples"):
        metric.aggregate()
    metric(draw(1, 3))
    with pytest.raises(ValueError, match="must hold at least 2 samples, got 1"):
        metric.aggregate()


@pytest.mark.parametrize("metric", every_metric().values(), ids=every_metric())
def test_nan_is_refused_by_every_metric(metric: CumulativeIterationMetric) -> None:
    nan = torch.full((2, 3, 4), torch.nan)
    extra = {"overlap": torch.ones(2, 3, 3), "centers": torch.eye(3)} if isinstance(metric, PositionMetric) else {}
    dense = isinstance(metric, PositionMetric | DenseAlignmentMetric | DenseUniformityMetric)
    x = nan if dense else nan[:, 0]
    labelled = isinstance(metric, KNNProbeMetric | LinearProbeMetric | DomainLeakage | BufferedCollapseMetric)
    with pytest.raises(NonFiniteError, match="must be finite, got"):
        metric(x, torch.zeros(2, dtype=torch.long) if labelled else x, **extra)


def test_wrong_shapes_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"y must have shape \(4, 3\), got \(4, 2\)"):
        alignment(draw(4, 3), draw(4, 2))
    with pytest.raises(ValueError, match=r"x must be embeddings of shape \(N, D\), got \(2, 3, 4\)"):
        uniformity(draw(2, 3, 4))
    with pytest.raises(ValueError, match=r"z must be feature maps of shape \(B, C, \*S\), got \(2, 3\)"):
        dense_uniformity(draw(2, 3))
    with pytest.raises(ValueError, match=r"z2 must have shape \(1, 2, 4\), got \(1, 2, 3\)"):
        dense_alignment(draw(1, 2, 4), draw(1, 2, 3))
    with pytest.raises(ValueError, match=r"labels must have shape \(4,\), one number a sample, got \(3,\)"):
        KNNProbeMetric()(draw(4, 2), torch.arange(3))
    with pytest.raises(ValueError, match=r"labels must be whole numbers, got torch.float32"):
        KNNProbeMetric()(draw(4, 2), torch.rand(4))
    with pytest.raises(ValueError, match=r"centers must be \(3, n\) or \(1, 3, n\) in mm, got \(2, 3\)"):
        position_error(draw(1, 2, 4), draw(1, 3, 4), torch.ones(1, 2, 3), draw(2, 3))
    with pytest.raises(ValueError, match=r"crops must be \(B, S, D\) and bases \(B, K, D\)"):
        position_error(draw(2, 4), draw(1, 3, 4), torch.ones(1, 2, 3), draw(3, 3))
    with pytest.raises(TypeError, match="x must be a tensor, got list"):
        uniformity([[1.0]])  # type: ignore[arg-type]


def test_wrong_correspondences_are_refused() -> None:
    z = draw(1, 2, 4)
    with pytest.raises(ValueError, match="idx1 and idx2 must be given together"):
        dense_alignment(z, z, torch.arange(4))
    with pytest.raises(ValueError, match="idx2 must be below the map's 4 voxels, got 4"):
        dense_alignment(z, z, torch.arange(4), torch.arange(1, 5))
    with pytest.raises(ValueError, match=r"idx1 must be whole numbers of shape \(1, M\) or \(M,\), got torch.float32"):
        dense_alignment(z, z, torch.rand(4), torch.arange(4))
    with pytest.raises(ValueError, match="needs at least one pair of voxels, got none"):
        dense_alignment(z, z, torch.tensor([-1]), torch.tensor([0]))


def test_wrong_options_are_refused() -> None:
    with pytest.raises(ValueError, match="alpha must be positive, got 0"):
        InstanceAlignmentMetric(alpha=0)
    with pytest.raises(ValueError, match="scope must be one of"):
        DenseUniformityMetric("volume")
    with pytest.raises(ValueError, match="num_voxels must be at least 2, or None for all voxels, got 1"):
        DenseUniformityMetric(num_voxels=1)
    with pytest.raises(ValueError, match="tolerance must be below 1"):
        DeadDimensionsMetric(1.0)
    with pytest.raises(ValueError, match=r"include_indicators must be one or more of .* got \['domain_shift'\]"):
        BufferedCollapseMetric(["effective_rank", "domain_shift"])
    with pytest.raises(ValueError, match=r"include_indicators must be one or more of .* got \[\]"):
        BufferedCollapseMetric([])
    with pytest.raises(ValueError, match="reduction must be one of"):
        BufferedCollapseMetric(["effective_rank"], reduction="sum")
    with pytest.raises(ValueError, match="folds must be at least 2, got 1"):
        LinearProbeMetric(folds=1)


def test_probes_without_enough_to_compare_are_refused() -> None:
    x, labels = draw(4, 3), torch.tensor([0, 0, 1, 1])
    with pytest.raises(ValueError, match=r"k must be between 1 and the number of candidates \(3\), got 4"):
        leave_one_out_knn_accuracy(x, labels, k=4)
    with pytest.raises(ValueError, match="groups must hold at least two different values, got one"):
        leave_one_out_knn_accuracy(x, labels, groups=torch.zeros(4, dtype=torch.long), k=1)
    with pytest.raises(ValueError, match=r"a linear probe needs at least two different labels to fit, got \[1\]"):
        linear_probe_accuracy(x[2:], labels[2:], x, labels)
    with pytest.raises(ValueError, match=r"folds must be between 2 and the number of groups \(2\), got 3"):
        cross_validated_probe_accuracy(x, labels, groups=labels, folds=3)
    with pytest.raises(ValueError, match="every crop must overlap a base, got 2 that overlap none"):
        position_error(x[None, :2], x[None], torch.zeros(1, 2, 4), torch.eye(4))


def test_missing_inputs_are_named() -> None:
    with pytest.raises(ValueError, match="alignment needs the second view, got None"):
        InstanceAlignmentMetric()(draw(4, 3))
    with pytest.raises(ValueError, match="retrieval needs the partners, got None"):
        RetrievalMetric()(draw(4, 3))
    with pytest.raises(ValueError, match="labels must be given, one whole number a sample, got None"):
        LinearProbeMetric()(draw(4, 3))
    with pytest.raises(ValueError, match="got no overlap, centers"):
        PositionMetric()(draw(1, 2, 3), draw(1, 2, 3))
    with pytest.raises(ValueError, match="separation needs labels, got None"):
        BufferedCollapseMetric(["separation"])(draw(4, 3))


def test_groups_with_some_batches_only_are_refused() -> None:
    metric = KNNProbeMetric()
    metric(draw(4, 3), torch.arange(4), groups=torch.arange(4))
    with pytest.raises(ValueError, match="must get the same inputs with every batch, got 2 after 3"):
        metric(draw(4, 3), torch.arange(4))


def test_metrics_work_behind_monais_ignite_handler() -> None:
    engine = Engine(lambda _, batch: batch)
    IgniteMetricHandler(InstanceAlignmentMetric()).attach(engine, "alignment")
    IgniteMetricHandler(InstanceUniformityMetric()).attach(engine, "uniformity")
    x, y = draw(6, 3), draw(6, 3, seed=1)
    engine.run([(x[:4], y[:4]), (x[4:], y[4:])])
    assert engine.state.metrics["alignment"] == pytest.approx(alignment(x, y).item(), rel=1e-5)
    assert engine.state.metrics["uniformity"] == pytest.approx(uniformity(x).item(), rel=1e-5)


def test_leakage_is_one_where_the_site_shows_and_about_none_where_it_does_not() -> None:
    sites, patients = torch.arange(240) % 3, torch.arange(240) // 2
    x = draw(240, 4)
    shown = x + 8.0 * torch.nn.functional.one_hot(sites, 4)
    assert domain_leakage(shown, sites).item() == pytest.approx(1.0)
    assert abs(float(domain_leakage(x, sites, groups=patients))) < 0.35
    # (a - c) / (1 - c) by hand, with the probe of each fold as it is
    accuracy = cross_validated_probe_accuracy(x, sites, groups=patients)
    torch.testing.assert_close(domain_leakage(x, sites, groups=patients), (accuracy - 1 / 3) / (2 / 3))


def test_one_domain_alone_is_refused() -> None:
    with pytest.raises(ValueError, match=r"domains must be of at least two kinds, got \[4\]; add another site"):
        domain_leakage(draw(5, 2), torch.full((5,), 4))
    with pytest.raises(ValueError, match="folds must be at least 2, got 1"):
        DomainLeakage(folds=1)
