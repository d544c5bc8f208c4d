"""Losses of healthy and patients and of sites, against loops that a reader can hold against their equations."""

import math
from collections.abc import Callable

import pytest
import torch
from contrastive_loops import cos, mean
from torch import Tensor

from monai_cl.losses import (
    AttributeLoss,
    CrossDomainSupConLoss,
    KernelJointEntropyLoss,
    NonFiniteError,
    SepCLRLoss,
    SupConLoss,
)
from monai_cl.losses._pair_potential import log_potential_sums

TAU = 0.3
LABELS = torch.tensor([0, 1, 1, 0, 1, 0, 0])
PARTS = ("common", "salient", "information_less", "joint_entropy")


def rows(n: int, d: int, *, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()


def views(n: int = 7) -> list[Tensor]:
    return [rows(n, 4, seed=0), rows(n, 4, seed=1), rows(n, 3, seed=2), rows(n, 3, seed=3)]


def unit(rows: Tensor) -> list[Tensor]:
    return [row / row.norm() for row in rows]


def square(x: Tensor, y: Tensor) -> Tensor:
    return ((x - y) ** 2).sum() / (2 * TAU)


def uniformity(x: list[Tensor]) -> Tensor:
    return mean([(-square(x[i], x[j])).exp() for i in range(len(x)) for j in range(i + 1, len(x))]).log()


def entropy(c: list[Tensor], s: list[Tensor]) -> Tensor:
    n = range(len(c))
    return mean(
        [mean([(-square(c[i], c[j])).exp() * (-square(s[i], s[j])).exp() for j in n]).log() for i in n]
    )  # fmt: skip


def loop(c1: Tensor, c2: Tensor, s1: Tensor, s2: Tensor, labels: Tensor) -> dict[str, Tensor]:
    zero = torch.zeros((), dtype=torch.float64)
    c = unit(c1), unit(c2)
    patients = [i for i, y in enumerate(labels.tolist()) if y == 1]
    healthy = [i for i, y in enumerate(labels.tolist()) if y == 0]
    kept = [[row if i in patients else torch.zeros_like(row) for i, row in enumerate(s)] for s in (s1, s2)]
    align = mean([square(s1[i], s2[i]) for i in patients]) if patients else zero
    nothing = [mean([square(kept[v][i], s[i]) for i in healthy]) if healthy else zero for v, s in enumerate((s1, s2))]
    return {
        "common": mean([square(x, y) for x, y in zip(*c, strict=True)]) + 2 * (uniformity(c[0]) + uniformity(c[1])) / 2,
        "salient": align + 2 * (uniformity(kept[0]) + uniformity(kept[1])) / 2,
        "information_less": sum(nothing, zero) / 2,
        "joint_entropy": (entropy(c[0], kept[0]) + entropy(c[1], kept[1])) / 2,
    }


@pytest.mark.parametrize("labels", [LABELS, 1 - LABELS, torch.zeros(7), torch.ones(7, dtype=torch.bool)])
def test_each_term_and_its_gradient_equal_those_of_a_loop(labels: Tensor) -> None:
    given = views()
    found, expected = SepCLRLoss(temperature=TAU)(*given, labels), loop(*given, labels)
    for name in PARTS:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-11, atol=1e-12)
    loss = expected["common"] + expected["salient"] + 10 * expected["information_less"] + 10 * expected["joint_entropy"]
    torch.testing.assert_close(found["loss"], loss, rtol=1e-11, atol=1e-12)
    for a, b in zip(torch.autograd.grad(found["loss"], given), torch.autograd.grad(loss, given), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_weights_are_those_of_the_terms() -> None:
    found = SepCLRLoss(2.0, 3.0, 5.0, temperature=TAU)(*views(), LABELS)
    total = sum(w * found[name] for w, name in zip((1.0, 2.0, 3.0, 5.0), PARTS, strict=True))
    torch.testing.assert_close(found["loss"], total)


@pytest.mark.parametrize(("label", "patients"), [(0, 0), (1, 7)])
def test_a_batch_without_healthy_or_patients_is_finite_and_counted(label: int, patients: int) -> None:
    given = views()
    found = SepCLRLoss()(*given, torch.full((7,), label))
    assert (int(found["patients"]), int(found["missing"])) == (patients, 1)
    empty = found["salient" if label == 0 else "information_less"]
    assert float(empty.detach()) == pytest.approx(0.0, abs=1e-12)
    gradients = torch.autograd.grad(found["loss"], given)
    assert all(g.isfinite().all() and g.abs().sum() > 0 for g in gradients)
    assert int(SepCLRLoss()(*given, LABELS)["missing"]) == 0


def test_the_salient_rows_of_the_healthy_reach_one_term_alone() -> None:
    given = views()
    found = SepCLRLoss()(*given, LABELS)
    for name in ("salient", "joint_entropy"):
        gradient = torch.autograd.grad(found[name], given[2], retain_graph=True)[0]
        assert (gradient[LABELS == 0] == 0).all()
        assert (gradient[LABELS == 1] != 0).any()
    gradient = torch.autograd.grad(found["information_less"], given[2])[0]
    assert (gradient[LABELS == 1] == 0).all()
    assert (gradient[LABELS == 0] != 0).all()


def test_views_and_images_may_change_places_and_spaces_may_turn() -> None:
    c1, c2, s1, s2 = views()
    expected = SepCLRLoss()(c1, c2, s1, s2, LABELS)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(0))
    turn_c, turn_s = torch.linalg.qr(rows(4, 4, seed=8))[0], torch.linalg.qr(rows(3, 3, seed=9))[0]
    for other in (
        SepCLRLoss()(c2, c1, s2, s1, LABELS),
        SepCLRLoss()(c1[order], c2[order], s1[order], s2[order], LABELS[order]),
        SepCLRLoss()(7 * c1 @ turn_c, c2 @ turn_c, s1 @ turn_s, s2 @ turn_s, LABELS),
    ):
        for name in ("loss", *PARTS):
            torch.testing.assert_close(other[name], expected[name])


def test_joint_entropy_is_lowest_where_one_space_tells_the_other() -> None:
    """Rows of a grid: with every pair of positions once the spaces are independent, on its diagonal they are one."""
    angle = torch.arange(4) * (math.pi / 2)
    circle = torch.stack([angle.cos(), angle.sin()], dim=1)
    i, j = torch.cartesian_prod(torch.arange(4), torch.arange(4)).unbind(1)
    loss = KernelJointEntropyLoss()
    assert loss(circle[i], 3 * circle[j]) < loss(circle[i], 3 * circle[i]) - 1.0
    torch.testing.assert_close(loss(circle, 50 * circle), torch.tensor(-math.log(4)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("itself", [True, False])
def test_chunks_give_the_value_and_gradient_of_all_at_once(itself: bool) -> None:
    x = rows(23, 5, seed=4)
    whole = log_potential_sums(x, temperature=TAU, itself=itself)
    parts = log_potential_sums(x, temperature=TAU, itself=itself, full=0, chunk=60)
    torch.testing.assert_close(parts, whole)
    one, other = (torch.autograd.grad(y.square().sum(), x)[0] for y in (whole, parts))
    torch.testing.assert_close(other, one)


def test_rows_far_from_the_origin_keep_their_distances_in_single_precision() -> None:
    x = rows(9, 3, seed=5).detach()
    expected = log_potential_sums(x, temperature=TAU, itself=False)
    found = log_potential_sums((x + 1000).float(), temperature=TAU, itself=False)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=2e-3)  # half a digit of 1000 in float32


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_low_precision_stays_finite_and_close(dtype: torch.dtype) -> None:
    given = [x.detach() for x in views()]
    found = SepCLRLoss()(*(x.to(dtype) for x in given), LABELS)["loss"]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), SepCLRLoss()(*given, LABELS)["loss"], rtol=3e-2, atol=3e-2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert SepCLRLoss()(*(x.float() for x in given), LABELS)["loss"].dtype == torch.float32


def test_far_rows_underflow_nowhere() -> None:
    given = [(100 * x).detach().float().requires_grad_() for x in views()]
    loss = SepCLRLoss(temperature=0.01)(*given, LABELS)["loss"]
    loss.backward()
    assert loss.isfinite()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in given)


def test_gradients_are_those_of_differences() -> None:
    small = [x[:5].detach().requires_grad_() for x in views()]
    labels, domains = torch.tensor([0, 1, 1, 0, 1]), torch.tensor([0, 0, 1, 1, 2])
    functions: list[Callable[..., Tensor]] = [
        lambda *x: SepCLRLoss(temperature=TAU)(*x, labels)["loss"],
        lambda c1, c2, s1, s2: KernelJointEntropyLoss(TAU)(c1, s1),
        lambda c1, c2, s1, s2: AttributeLoss(0.3)(s1[:, 0], torch.linspace(0, 1, 5)),
        lambda c1, c2, s1, s2: CrossDomainSupConLoss(0.3)(c1, labels, domains),
    ]
    for function in functions:
        assert torch.autograd.gradcheck(function, small)


def test_options_and_inputs_that_cannot_be_are_refused() -> None:
    given = views()
    with pytest.raises(ValueError, match=r"labels must be 0 \(healthy\) or 1 \(patient\), got \[-1, 2\]; see monai_cl"):
        SepCLRLoss()(*given, torch.tensor([0, 1, 2, 0, -1, 2, 0]))
    with pytest.raises(ValueError, match=r"labels must have shape \(7,\), got \(6,\)"):
        SepCLRLoss()(*given, LABELS[:6])
    with pytest.raises(ValueError, match=r"s2 must have shape \(7, 3\), got \(7, 4\)"):
        SepCLRLoss()(*given[:3], given[0], LABELS)
    with pytest.raises(ValueError, match="at least two rows are needed for negatives, got 1; use a larger batch"):
        SepCLRLoss()(*(x[:1] for x in given), LABELS[:1])
    with pytest.raises(ValueError, match=r"information_less_weight must be at least 0, got -1\.0"):
        SepCLRLoss(1.0, -1.0)
    with pytest.raises(ValueError, match="temperature must be positive, got 0"):
        KernelJointEntropyLoss(0)
    with pytest.raises(ValueError, match="c and s must have as many rows, at least one, got 7 and 6"):
        KernelJointEntropyLoss()(given[0], given[2][:6])
    broken = given[2].detach().clone()
    broken[0, 0] = math.nan
    with pytest.raises(NonFiniteError, match="s1 must be finite, got 1 of 21 values"):
        SepCLRLoss()(*given[:2], broken, given[3], LABELS)


# --- an attribute on one dimension


def test_an_attribute_draws_its_like_together_as_the_loop_says() -> None:
    x, y = rows(6, 1, seed=6)[:, 0], torch.tensor([0.1, 0.2, 0.9, math.nan, 0.15, 0.5], dtype=torch.float64)
    known = [i for i in range(6) if i != 3]
    pairs = [(i, j) for i in known for j in known if i < j]
    expected = mean([(-((y[i] - y[j]) ** 2) / (2 * 0.025)).exp() * (x[i] - x[j]) ** 2 for i, j in pairs])
    torch.testing.assert_close(AttributeLoss()(x, y), expected)
    assert AttributeLoss()(x, torch.full((6,), math.nan)) == 0


# --- across domains


def across(z: Tensor, labels: list[int], domains: list[int], t: float) -> Tensor:
    n, terms = range(len(z)), []
    for a in n:
        positives = [p for p in n if labels[p] == labels[a] and domains[p] != domains[a]]
        others = [k for k in n if labels[k] != labels[a] or k in positives]
        if positives:
            total = sum(((cos(z[a], z[k]) / t).exp() for k in others), torch.zeros(())).log()
            terms.append(mean([total - cos(z[a], z[p]) / t for p in positives]))
    return mean(terms)


SITES = torch.tensor([0, 0, 1, 2, 2, 1, 0])


def test_across_domains_equals_a_loop() -> None:
    z = rows(7, 4, seed=7)
    found = CrossDomainSupConLoss(0.2)(z, LABELS, SITES)
    expected = across(z, LABELS.tolist(), SITES.tolist(), 0.2)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found, z)[0], torch.autograd.grad(expected, z)[0])


@pytest.mark.parametrize("labels", [LABELS, torch.tensor([0, 1, 2, 0, 1, 0, 0])])
def test_with_a_domain_for_each_row_it_is_supervised_contrast(labels: Tensor) -> None:
    z, mine, usual = rows(7, 4, seed=7), CrossDomainSupConLoss(), SupConLoss()
    torch.testing.assert_close(mine(z, labels, torch.arange(7)), usual(z, labels))
    assert mine.skipped is not None
    assert usual.skipped is not None
    assert int(mine.skipped) == int(usual.skipped)


def test_rows_of_a_label_and_a_domain_neither_attract_nor_repel() -> None:
    z = rows(4, 3, seed=1)
    loss = CrossDomainSupConLoss(reduction="none")(z, torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 1, 0]))
    assert (torch.autograd.grad(loss[0], z)[0][1] == 0).all()


def test_a_label_in_one_domain_is_refused_or_falls_back_as_stated() -> None:
    z, labels, domains = rows(6, 4, seed=2), torch.tensor([0, 0, 1, 1, 1, 2]), torch.tensor([0, 1, 1, 1, 1, 0])
    with pytest.raises(
        ValueError, match=r"at least two domains, labels \[1\] sit in one; draw batches over domains, or"
    ):
        CrossDomainSupConLoss()(z, labels, domains)
    skip, same = (CrossDomainSupConLoss(fallback=name, reduction="none") for name in ("skip", "same_domain"))
    assert (skip(z, labels, domains)[2:] == 0).all()
    assert int(skip.skipped) == 4  # type: ignore[arg-type]
    usual = SupConLoss(reduction="none")(z, labels)
    torch.testing.assert_close(same(z, labels, domains)[2:], usual[2:])
    assert int(same.skipped) == 1  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"fallback must be one of \('error', 'same_domain', 'skip'\), got 'none'"):
        CrossDomainSupConLoss(fallback="none")


# --- planted factors: a linear network on views whose coordinates are the factors


def explained(x: Tensor, y: Tensor) -> float:
    """R^2 of a linear fit, on the half that was not fitted."""
    from sklearn.linear_model import Ridge

    half = len(x) // 2
    return float(Ridge(1e-3).fit(x[:half].numpy(), y[:half].numpy()).score(x[half:].numpy(), y[half:].numpy()))


def factors(joint_entropy: float) -> tuple[float, float]:
    """R^2 of the disease factor in the common and in the salient space after training with a weight of that term."""
    g = torch.Generator().manual_seed(0)
    torch.manual_seed(0)

    def draw(n: int) -> tuple[Tensor, Tensor, Tensor]:
        common, disease = torch.randn(n, 2, generator=g), torch.randn(n, 1, generator=g)
        label = (torch.arange(n) % 2).long()
        disease = disease * label[:, None]
        noise = torch.randn(2, n, 8, generator=g)
        clean = torch.cat([common, 1.5 * disease], dim=1) @ mixing
        return clean + 0.15 * noise[0], clean + 0.15 * noise[1], label

    mixing = torch.randn(3, 8, generator=g)

    def head(width: int) -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Linear(8, 64), torch.nn.ReLU(), torch.nn.Linear(64, width))

    c, s = head(8), head(2)
    loss = SepCLRLoss(1.0, 10.0, joint_entropy)
    optimizer = torch.optim.Adam([*c.parameters(), *s.parameters()], 3e-3)
    for _ in range(250):
        one, other, label = draw(64)
        optimizer.zero_grad()
        loss(c(one), c(other), s(one), s(other), label)["loss"].backward()
        optimizer.step()
    one, other, label = draw(2000)
    del other
    # the planted factor, read off the clean mixture
    truth = (one @ torch.linalg.pinv(mixing))[:, 2][label == 1]
    with torch.no_grad():
        common = torch.nn.functional.normalize(c(one), dim=1)[label == 1]
        salient = s(one)[label == 1]
    return explained(common, truth), explained(salient, truth)


def test_the_disease_leaves_the_common_space_as_lambda_rises_and_stays_in_the_salient_one() -> None:
    found = {weight: factors(weight) for weight in (0.0, 3.0, 10.0)}
    common, salient = zip(*found.values(), strict=True)
    assert common[0] > common[1] > common[2]
    assert min(salient) > 0.8
