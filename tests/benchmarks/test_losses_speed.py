"""Contrastive losses against loops and MONAI's, as ratios within one run: ``pytest -m benchmark -s``."""

import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import pytest
import torch
from contrastive_loops import mean, pair
from monai.losses import ContrastiveLoss

from monai_cl.losses import DenseContrastiveLoss, LocalRegionContrastiveLoss, NTXentLoss

pytestmark = pytest.mark.benchmark


def ours() -> None:
    z = torch.randn(2048, 64, requires_grad=True)
    NTXentLoss()(z[:1024], z[1024:]).backward()


def monais() -> None:
    z = torch.randn(2048, 64, requires_grad=True)
    ContrastiveLoss(temperature=0.1)(z[:1024], z[1024:]).backward()


def dense_chunked() -> None:
    f = torch.randn(2, 1, 16, 64, 64, requires_grad=True)
    DenseContrastiveLoss(2, num_anchors=None, chunk_size=256)(f[0], f[1]).backward()


def dense_full() -> None:
    f = torch.randn(2, 1, 16, 64, 64, requires_grad=True)
    DenseContrastiveLoss(2, num_anchors=None, chunk_size=4096)(f[0], f[1]).backward()


def dense_sampled() -> None:
    f = torch.randn(2, 1, 64, 32, 32, 32, requires_grad=True)
    DenseContrastiveLoss(3)(f[0], f[1]).backward()


def dense_exact() -> None:
    f = torch.randn(2, 1, 64, 32, 32, 32, requires_grad=True)
    DenseContrastiveLoss(3, num_anchors=None)(f[0], f[1]).backward()


def dense_few() -> None:
    f = torch.randn(2, 4, 16, 28, 20, 8, requires_grad=True)
    DenseContrastiveLoss(3, num_anchors=256, exclusion_radius=2.0)(f[0], f[1]).backward()


def dense_many() -> None:
    f = torch.randn(2, 4, 16, 28, 20, 8, requires_grad=True)
    DenseContrastiveLoss(3, num_anchors=1024, exclusion_radius=2.0)(f[0], f[1]).backward()


def cost(function: Callable[[], None]) -> tuple[float, float]:
    """Processor seconds and growth of the peak memory in MiB of one call."""
    torch.set_num_threads(1)
    z = torch.randn(8, 4, requires_grad=True)
    NTXentLoss()(z[:4], z[4:]).backward()
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    function()
    seconds = time.process_time() - started
    return seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def apart(function: Callable[[], None]) -> tuple[float, float]:
    """:func:`cost` in a process of its own, whose peak is its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(cost, function).result()


def test_nt_xent_against_monai(benchmark: Any) -> None:
    mine, theirs = apart(ours), apart(monais)
    benchmark.extra_info.update(
        {"times as fast": round(theirs[0] / mine[0], 1), "MiB": round(mine[1]), "MiB of MONAI": round(theirs[1])}
    )
    benchmark.pedantic(ours, rounds=1)
    assert theirs[0] >= 20 * mine[0]
    assert mine[1] < 150


def test_dense_in_chunks_against_the_whole_matrix(benchmark: Any) -> None:
    parts, whole = apart(dense_chunked), apart(dense_full)
    benchmark.extra_info.update({"MiB": round(parts[1]), "MiB whole": round(whole[1]), "time": parts[0] / whole[0]})
    benchmark.pedantic(dense_chunked, rounds=1)
    assert parts[1] < whole[1] / 4


def test_sampled_dense_in_three_dimensions(benchmark: Any) -> None:
    seconds, mebibytes = apart(dense_sampled)
    benchmark.extra_info.update({"seconds": round(seconds, 2), "MiB": round(mebibytes)})
    benchmark.pedantic(dense_sampled, rounds=1)
    assert mebibytes < 1024


@pytest.mark.slow  # minutes
def test_exact_dense_in_three_dimensions(benchmark: Any) -> None:
    seconds, mebibytes = apart(dense_exact)
    benchmark.extra_info.update({"seconds": round(seconds), "MiB": round(mebibytes)})
    benchmark.pedantic(dense_sampled, rounds=1)
    assert mebibytes < 1024  # the plain matrix of similarities takes 16 GiB


def test_regions_against_loops(benchmark: Any) -> None:
    f1, f2 = torch.randn(8, 64, 64, 64, requires_grad=True), torch.randn(8, 64, 64, 64, requires_grad=True)
    loss = LocalRegionContrastiveLoss(2)
    found = loss.regions((64, 64))
    corners = found.corners.tolist()
    near = [row.nonzero().flatten().tolist() for row in found.negatives]

    def cut(f: torch.Tensor, n: int) -> torch.Tensor:
        r, c = corners[n]
        return f[:, r : r + 3, c : c + 3].flatten()

    def loops() -> None:
        terms = []
        for i in range(8):
            for a, b in ((f1[i], f2[i]), (f2[i], f1[i])):
                for r in range(13):
                    negatives = [cut(f, n) for f in (a, b) for n in near[r]]
                    terms.append(pair(cut(a, r), cut(b, r), negatives, 0.1))
        mean(terms).backward()

    def fast() -> None:
        loss(f1, f2).backward()

    fast()
    times = []
    for function in (loops, fast):
        started = time.process_time()
        function()
        times.append(time.process_time() - started)
    benchmark.extra_info["times as fast"] = round(times[0] / times[1], 1)
    benchmark.pedantic(fast, rounds=1)
    assert times[0] >= 20 * times[1]


def test_fewer_anchors_of_the_dense_loss(benchmark: Any) -> None:
    few, many = apart(dense_few), apart(dense_many)
    benchmark.extra_info.update({"times as fast as 1024 anchors": round(many[0] / few[0], 1)})
    benchmark.extra_info.update({"MiB": round(few[1]), "MiB of 1024 anchors": round(many[1])})
    benchmark.pedantic(dense_few, rounds=1)
    assert few[0] < many[0]
