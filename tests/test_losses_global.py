import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from contrastive_loops import marked, nt_xent, partition_contrast, partition_pairs, ring_pairs
from torch import Tensor

from monai_cl.losses import (
    DecoupledContrastiveLoss,
    NonFiniteError,
    NTXentLoss,
    PartitionContrastiveLoss,
    PositionalContrastiveLoss,
    SupConLoss,
)
from monai_cl.losses._directed import Pairs, added, contrast


def rows(n: int, d: int = 5, *, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()


def ids_of(volumes: int, parts: int, views: int) -> Tensor:
    """Partition, image, volume and view of each row, (N, 4)."""
    grid = torch.cartesian_prod(torch.arange(volumes), torch.arange(parts), torch.arange(views))
    volume, part, view = grid.unbind(1)
    return torch.stack([part, volume * parts + part, volume, view], 1)


LABELS = torch.tensor([0, 1, 0, 2, 1, 0, 3])
POSITION = torch.tensor([0.0, 0.5, 0.05, 0.55, 1.0, 0.52, 0.2], dtype=torch.float64)
IDS = ids_of(3, 4, 2)[torch.randperm(24, generator=torch.Generator().manual_seed(3))]
UNEVEN = IDS[[0, 2, 3, 5, 6, 7, 8, 11, 12, 14, 20]]
NEAR = ((POSITION[:, None] - POSITION).abs() < 0.1).tolist()
LIST = IDS.tolist()

Case = tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor], int]
CASES: dict[str, Case] = {
    "nt_xent": (lambda z: NTXentLoss()(z[:4], z[4:]), lambda z: nt_xent(z[:4], z[4:], 0.1), 8),
    "decoupled": (
        lambda z: DecoupledContrastiveLoss(0.3)(z[:4], z[4:]),
        lambda z: nt_xent(z[:4], z[4:], 0.3, decoupled=True),
        8,
    ),
    "sup_con": (
        lambda z: SupConLoss(0.2)(z, LABELS),
        lambda z: marked(z, (LABELS[:, None] == LABELS).tolist(), 0.2),
        7,
    ),
    "positional": (lambda z: PositionalContrastiveLoss()(z, POSITION), lambda z: marked(z, NEAR, 0.1), 7),
    "positional far": (
        lambda z: PositionalContrastiveLoss(denominator="far")(z, POSITION),
        lambda z: marked(z, NEAR, 0.1, far=True),
        7,
    ),
    "gd-": (
        lambda z: PartitionContrastiveLoss("gd-")(z, *IDS.unbind(1)),
        lambda z: partition_contrast(z, LIST, partition_pairs(LIST, "gd-"), 0.1),
        24,
    ),
    "gd": (
        lambda z: PartitionContrastiveLoss("gd")(z, *IDS.unbind(1)),
        lambda z: partition_contrast(z, LIST, partition_pairs(LIST, "gd"), 0.1),
        24,
    ),
    "gd uneven": (
        lambda z: PartitionContrastiveLoss("gd", 0.5)(z, *UNEVEN.unbind(1)),
        lambda z: partition_contrast(z, UNEVEN.tolist(), partition_pairs(UNEVEN.tolist(), "gd"), 0.5),
        11,
    ),
    "gd ring": (
        lambda z: PartitionContrastiveLoss("gd", pairs="ring")(z, *IDS.unbind(1)),
        lambda z: partition_contrast(z, LIST, ring_pairs(LIST), 0.1),
        24,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_equals_the_loop_in_value_and_gradient(name: str) -> None:
    fast, slow, n = CASES[name]
    z = rows(n)
    mine, theirs = fast(z), slow(z)
    assert mine.dtype == torch.float64
    assert mine.item() == pytest.approx(theirs.item(), rel=1e-10)
    torch.testing.assert_close(
        torch.autograd.grad(mine, z)[0], torch.autograd.grad(theirs, z)[0], rtol=1e-10, atol=1e-12
    )
    single = z.detach().float()
    assert fast(single).dtype == torch.float32
    assert fast(single).item() == pytest.approx(theirs.item(), rel=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_derivatives_and_orthogonal_to_each_row(name: str) -> None:
    fast, _, n = CASES[name]
    z = rows(n, 3, seed=2)
    assert torch.autograd.gradcheck(fast, (z,))
    (gradient,) = torch.autograd.grad(fast(z), z)
    assert (gradient * z).sum(1).abs().max() < 1e-9


@pytest.mark.parametrize("name", CASES)
def test_scale_of_rows_and_rotation_change_nothing(name: str) -> None:
    fast, _, n = CASES[name]
    z = rows(n).detach()
    value = fast(z).item()
    assert fast(z * (torch.rand(n, 1) * 9 + 0.1)).item() == pytest.approx(value, rel=1e-9)
    turn, _ = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64))
    assert fast(z @ turn).item() == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", CASES)
def test_half_precision_is_near_and_float32_inside_autocast(name: str, dtype: torch.dtype) -> None:
    fast, _, n = CASES[name]
    z = rows(n, 32).detach()
    half = z.to(dtype).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = fast(half)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(fast(z).item(), rel=1e-2)
    assert bool(half.grad.isfinite().all())  # type: ignore[union-attr]


def at_low_temperature(z: Tensor) -> dict[str, Tensor]:
    part = torch.arange(8) % 2
    image, zero, view = torch.arange(8) % 4, torch.zeros(8, dtype=torch.long), torch.arange(8) // 4
    return {
        "nt_xent": NTXentLoss(0.01)(z[:4], z[4:]),
        "decoupled": DecoupledContrastiveLoss(0.01)(z[:4], z[4:]),
        "sup_con": SupConLoss(0.01)(z, part),
        "positional": PositionalContrastiveLoss(0.1, 0.01)(z, part.float()),
        "gd-": PartitionContrastiveLoss("gd-", 0.01)(z, part, image, zero, view),
    }


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("kind", ["equal", "opposite", "zero"])
def test_low_temperature_stays_finite(dtype: torch.dtype, kind: str) -> None:
    z = {"equal": torch.ones(8, 4), "zero": torch.zeros(8, 4), "opposite": torch.ones(8, 4)}[kind]
    if kind == "opposite":
        z = z * torch.tensor([1.0, -1.0]).repeat(4)[:, None]
    z = z.to(dtype).requires_grad_()
    for name, loss in at_low_temperature(z).items():
        (gradient,) = torch.autograd.grad(loss, z)
        assert math.isfinite(loss.item()), name
        assert bool(gradient.isfinite().all()), name


@pytest.mark.parametrize("views", [2, 3])
def test_equal_rows_cost_the_logarithm_of_the_crowd(views: int) -> None:
    assert NTXentLoss()(torch.ones(5, 3), torch.ones(5, 3)).item() == pytest.approx(math.log(9), rel=1e-6)
    assert DecoupledContrastiveLoss()(torch.ones(5, 3), torch.ones(5, 3)).item() == pytest.approx(math.log(8), rel=1e-6)
    ids = ids_of(3, 4, views)
    for mode in ("gd", "gd-"):
        loss = PartitionContrastiveLoss(mode)(torch.ones(len(ids), 3), *ids.unbind(1))
        assert loss.item() == pytest.approx(math.log(1 + 3 * 3 * views), rel=1e-6)


def test_alignment_with_opposite_negatives_costs_nothing() -> None:
    z = torch.tensor([[1.0], [-1.0]])
    assert NTXentLoss()(z, z).item() < 1e-6
    part = torch.tensor([0, 1])
    ids = part.repeat(2), part.repeat(2), torch.zeros(4), torch.tensor([0, 0, 1, 1])
    assert PartitionContrastiveLoss("gd-")(z.repeat(2, 1), *ids).item() < 1e-6


@pytest.mark.parametrize("options", [{"mode": "gd"}, {"mode": "gd-"}, {"mode": "gd", "pairs": "ring"}])
def test_order_of_rows_changes_nothing(options: dict[str, str]) -> None:
    z, order = rows(24).detach(), torch.randperm(24)
    loss = PartitionContrastiveLoss(**options)  # type: ignore[arg-type]
    value = loss(z, *IDS.unbind(1)).item()
    assert loss(z[order], *IDS[order].unbind(1)).item() == pytest.approx(value, rel=1e-12)


def test_a_single_partition_costs_nothing_says_so_and_has_no_gradient() -> None:
    z = rows(6)
    loss = PartitionContrastiveLoss("gd-")
    zero, image, view = torch.zeros(6), torch.arange(6) // 2, torch.arange(6) % 2
    with pytest.warns(UserWarning, match="no anchor of this batch has both a positive and a negative"):
        value = loss(z, zero, image, image, view)
    value.backward()
    assert value.item() == 0.0
    assert z.grad is not None
    assert not z.grad.any()
    assert int(loss.skipped) == 6  # type: ignore[arg-type]


def test_another_volume_of_the_same_partition_does_not_change_the_pairs_that_were() -> None:
    z, loss = rows(6).detach(), PartitionContrastiveLoss("gd-", reduction="none")
    part, image, view = torch.tensor([0, 0, 1, 1, 0, 0]), torch.arange(6) // 2, torch.arange(6) % 2
    volume = torch.tensor([0, 0, 0, 0, 1, 1])
    whole = loss(z, part, image, volume, view)
    before = loss(z[:4], part[:4], image[:4], volume[:4], view[:4])
    torch.testing.assert_close(whole[:2], before[:2])
    assert bool((whole[2:4] > before[2:4]).all())  # they have more negatives


def test_with_one_volume_the_two_modes_agree() -> None:
    ids, z = ids_of(1, 4, 2), rows(8).detach()
    gd, minus = (PartitionContrastiveLoss(mode)(z, *ids.unbind(1)).item() for mode in ("gd", "gd-"))
    assert gd == minus


def test_unique_labels_make_sup_con_nt_xent_and_a_mask_of_positions_makes_it_positional() -> None:
    z, twice = rows(8).detach(), torch.arange(4).repeat(2)
    assert SupConLoss()(z, twice).item() == pytest.approx(NTXentLoss()(z[:4], z[4:]).item(), rel=1e-12)
    position = twice / 4 + 0.05
    assert PositionalContrastiveLoss()(z, position).item() == pytest.approx(SupConLoss()(z, twice).item(), rel=1e-12)


def test_positions_that_cover_a_partition_exactly_are_the_partition() -> None:
    part, volume, z = torch.arange(12) % 4, torch.arange(12) // 4, rows(12).detach()
    far = PositionalContrastiveLoss(0.25, denominator="far")(z, part / 4)
    gd = PartitionContrastiveLoss("gd")(z, part, torch.arange(12), volume, torch.zeros(12))
    assert far.item() == pytest.approx(gd.item(), rel=1e-12)


def test_published_scales() -> None:
    z, ids = rows(24).detach(), IDS
    total = sum(partition_contrast(z, LIST, [p], 0.1) for p in ring_pairs(LIST))
    ring = PartitionContrastiveLoss("gd", pairs="ring", scale="tf1")(z, *ids.unbind(1))
    assert ring.item() == pytest.approx(total.item() / 24, rel=1e-10)  # type: ignore[union-attr]
    ids = ids_of(3, 4, 3)
    z, listed = rows(36).detach(), ids.tolist()
    total = sum(partition_contrast(z, listed, [p], 0.1) for p in partition_pairs(listed, "gd-"))
    minus = PartitionContrastiveLoss("gd-", scale="tf1")(z, *ids.unbind(1))
    assert minus.item() == pytest.approx(total.item() / 36, rel=1e-10)  # type: ignore[union-attr]
    for mode in ("gd", "gd-"):
        mean, paper = (PartitionContrastiveLoss(mode, scale=s)(z, *ids.unbind(1)).item() for s in ("mean", "paper"))
        assert paper == pytest.approx(2 * mean)


def test_a_ring_of_two_counts_its_link_twice_and_a_ring_of_one_has_none() -> None:
    for volumes in (1, 2):
        ids, n = ids_of(volumes, 2, 2), 4 * volumes
        z = rows(n).detach()
        pairs = [(a, p) for a, p in ring_pairs(ids.tolist()) if a != p]
        expected = partition_contrast(z, ids.tolist(), pairs, 0.1).item()
        ring = PartitionContrastiveLoss("gd", pairs="ring")(z, *ids.unbind(1)).item()
        assert ring == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("softplus", [True, False])
@pytest.mark.parametrize("chunk", [1, 20, 50, 1000])
def test_chunks_of_any_size_equal_the_whole(chunk: int, softplus: bool) -> None:
    z = torch.nn.functional.normalize(rows(12), dim=1).detach().requires_grad_()
    g = torch.Generator().manual_seed(1)
    weights, others = torch.randint(0, 3, (12, 12), generator=g), torch.rand(12, 12, generator=g) < 0.5
    others[3] = False
    weights[5] = 0

    def value(**limits: int) -> tuple[Tensor, Tensor, Tensor]:
        costs = contrast(
            z, z, lambda i: Pairs(weights[i], others[i]), temperature=0.1, softplus=softplus, **limits
        )  # fmt: skip
        loss = costs.cost.square().sum()
        return costs.cost, costs.weight, torch.autograd.grad(loss, z)[0]

    for whole, parts in zip(value(), value(full=0, chunk=chunk), strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-10, atol=1e-10)
    assert value()[1][3] == 0


def test_reductions() -> None:
    z = rows(7).detach()
    each = SupConLoss(reduction="none")(z, LABELS)
    assert each[[3, 6]].tolist() == [0.0, 0.0]  # alone with their label
    assert SupConLoss(reduction="sum")(z, LABELS).item() == pytest.approx(each.sum().item())
    assert SupConLoss()(z, LABELS).item() == pytest.approx(each.sum().item() / 5)


def test_gather_without_a_process_group_is_one_process() -> None:
    z = rows(8).detach()
    assert NTXentLoss(gather=True)(z[:4], z[4:]).item() == NTXentLoss()(z[:4], z[4:]).item()


@pytest.mark.parametrize("temperature", [0.01, 0.035, 0.05])
def test_double_precision_keeps_its_digits_where_a_positive_lies_far_behind(temperature: float) -> None:
    gap = 1 - math.cos(1.2)  # cosines: 1 with the negative, cos(1.2) with the positive
    z1 = torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    z2 = torch.tensor([[math.cos(1.2), math.sin(1.2)], [math.cos(1.2), -math.sin(1.2)]], dtype=torch.float64)
    there, across = math.cos(1.2) / temperature, math.cos(2.4) / temperature
    first = math.log(math.exp(1 / temperature) + 2 * math.exp(there)) - there
    second = math.log(2 * math.exp(there) + math.exp(across)) - there
    assert gap / temperature > 12
    assert NTXentLoss(temperature)(z1, z2).item() == pytest.approx((first + second) / 2, rel=1e-13)
    for excess in (19.9, 20.1, 25.0, 39.9, 40.1, 700.0):
        x = torch.tensor(excess, dtype=torch.float64, requires_grad=True)
        added(x).backward()
        assert added(x).item() == pytest.approx(excess + math.log1p(math.exp(-excess)), rel=1e-15)
        assert x.grad is not None
        assert x.grad.item() == pytest.approx(1 / (1 + math.exp(-excess)), rel=1e-15)


def test_fractions_are_no_partitions() -> None:
    z, ids = torch.randn(4, 3), torch.tensor([0, 0, 1, 1])
    whole = PartitionContrastiveLoss()(z, ids.double(), ids, ids, ids)
    torch.testing.assert_close(whole, PartitionContrastiveLoss()(z, ids, ids, ids, ids))
    with pytest.raises(ValueError, match=r"partition must be whole numbers, got fractions such as 0\.25"):
        PartitionContrastiveLoss()(z, torch.tensor([0.0, 0.25, 0.5, 0.75]), ids, ids, ids)


def test_wrong_input_is_refused_by_name() -> None:
    z = torch.randn(4, 3)
    bad = z.clone()
    bad[1, 1] = float("nan")
    label = torch.zeros(4)
    with pytest.raises(NonFiniteError, match="z2 must be finite, got 1 of 12"):
        NTXentLoss()(z, bad)
    with pytest.raises(NonFiniteError, match="z must be finite"):
        SupConLoss()(bad, label)
    with pytest.raises(ValueError, match=r"z2 must have shape \(4, 3\), got \(3, 3\)"):
        NTXentLoss()(z, z[:3])
    with pytest.raises(ValueError, match=r"z1 must be floating-point rows \(N, D\), got torch.float32 \(3,\)"):
        NTXentLoss()(z[0], z[0])
    with pytest.raises(ValueError, match=r"labels must have shape \(4,\), got \(3,\)"):
        SupConLoss()(z, label[:3])
    with pytest.raises(ValueError, match=r"volume_id must have shape \(4,\)"):
        PartitionContrastiveLoss()(z, label, label, label[:2], label)
    with pytest.raises(ValueError, match=r"position must be in \[0, 1\], got values from 0 to 3"):
        PositionalContrastiveLoss()(z, torch.arange(4.0))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NTXentLoss(0), "temperature must be positive, got 0"),
        (lambda: NTXentLoss(reduction="avg"), r"reduction must be one of \('mean', 'sum', 'none'\), got 'avg'"),
        (lambda: PartitionContrastiveLoss("gr"), r"mode must be one of \('gd', 'gd-'\), got 'gr'"),
        (lambda: PartitionContrastiveLoss(pairs="line"), "pairs must be one of"),
        (lambda: PartitionContrastiveLoss(scale="sum"), "scale must be one of"),
        (lambda: PositionalContrastiveLoss(0), "threshold must be positive"),
        (lambda: PositionalContrastiveLoss(denominator="near"), "denominator must be one of"),
    ],
)
def test_unknown_options_list_the_known(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_the_printed_loss_says_its_form() -> None:
    assert "'gd', pairs='ring', scale='mean', temperature=0.1, gather=False" in repr(
        PartitionContrastiveLoss(pairs="ring")
    )
