"""Losses of several views, normal images, kernels, and images with texts: loops, closed forms and invariances."""

import math
from collections.abc import Callable

import pytest
import torch
from contrastive_loops import cos, marked, mean
from torch import Tensor

from monai_cl.losses import (
    CACRLoss,
    ClipLoss,
    KernelInfoNCELoss,
    MeanShiftedContrastiveLoss,
    NonFiniteError,
    NTXentLoss,
    SigLipLoss,
    SupConLoss,
    SymmetricInfoNCELoss,
)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()


def unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True)


def d2(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).square().sum()


def weighed(d: list[Tensor], scale: float, cost: list[Tensor]) -> Tensor:
    w = torch.softmax(scale * torch.stack(d), 0)
    return (w * torch.stack(cost)).sum()


def cacr(z: Tensor, *, tau_pos: float = 1.0, tau_neg: float = 0.9, t: float | None = None) -> Tensor:
    z, views, images = unit(z), range(z.shape[0]), range(z.shape[1])
    attraction, repulsion = [], []
    for v in views:
        for i in images:
            d = [d2(z[v, i], z[u, i]) for u in views if u != v]
            attraction.append(weighed(d, tau_pos, d))
        for u in views:
            if u != v:
                rows = []
                for i in images:
                    d = [d2(z[v, i], z[u, j]) for j in images if j != i]
                    rows.append(weighed(d, -tau_neg, d if t is None else [(-t * x).exp() for x in d]))
                repulsion.append(-mean(rows) if t is None else mean(rows).log())
    return mean(attraction) + mean(repulsion)


def momentum(q: Tensor, k: Tensor, t: float = 0.2) -> Tensor:
    q, k, terms = unit(q), unit(k), []
    for i in range(len(k)):
        p = torch.softmax(torch.stack([d2(x[i], k[i]) / t for x in q]), 0).detach()
        costs = [torch.stack([x[i] @ key / t for key in k]).logsumexp(0) - x[i] @ k[i] / t for x in q]
        terms.append(sum(w * c for w, c in zip(p, costs, strict=True)))
    return 2 * t * mean([torch.as_tensor(term) for term in terms])


def info_nce(z: Tensor, log_kernel: Callable[[Tensor], Tensor]) -> Tensor:
    z, n = unit(z), len(z)
    logs = [[log_kernel(d2(a, b)) for b in z] for a in z]
    rows = [torch.stack([logs[a][k] for k in range(n) if k != a]) for a in range(n)]
    return mean([rows[a].logsumexp(0) - logs[a][(a + n // 2) % n] for a in range(n)])


def sig_lip(image: Tensor, text: Tensor, scale: float, bias: float) -> Tensor:
    pairs = [(i, j) for i in range(len(image)) for j in range(len(text))]
    return mean(
        [-torch.sigmoid((1 if i == j else -1) * (scale * cos(image[i], text[j]) + bias)).log() for i, j in pairs]
    )


def summed(d: Tensor) -> Tensor:
    return (0.3 * (-d / 0.4).exp() + 0.7 * (-d.sqrt() / 0.2).exp()).log()


CENTER = torch.linspace(-0.2, 0.4, 5, dtype=torch.float64)
LABELS = torch.tensor([0, 0, 1, 1, 1, 2, 2, 3])
CASES: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "cacr": (lambda z: CACRLoss()(z), cacr),
    "cacr weights": (lambda z: CACRLoss(tau_pos=0.3, tau_neg=2)(z), lambda z: cacr(z, tau_pos=0.3, tau_neg=2)),
    "cacr rbf": (lambda z: CACRLoss(repulsion="rbf")(z), lambda z: cacr(z, t=2.0)),
    "cacr momentum": (lambda z: CACRLoss("momentum")(z), lambda z: momentum(z[:-1], z[-1].detach())),
    "cacr keys": (lambda z: CACRLoss("momentum")(z, z[1] ** 2), lambda z: momentum(z, z[1].detach() ** 2)),
    "shifted": (
        lambda z: MeanShiftedContrastiveLoss(CENTER)(z[0], z[1]),
        lambda z: NTXentLoss(0.25)(unit(z[0]) - CENTER, unit(z[1]) - CENTER),
    ),
    "shifted angular": (
        lambda z: MeanShiftedContrastiveLoss(CENTER, angular=True)(z[0], z[1]),
        lambda z: (
            NTXentLoss(0.25)(*(unit(x) - unit(CENTER) for x in z[:2]))
            + sum(mean([d2(row, unit(CENTER)) for row in unit(x)]) for x in z[:2])
        ),
    ),
    "gaussian": (
        lambda z: KernelInfoNCELoss(temperature=0.2)(z[0], z[1]),
        lambda z: NTXentLoss(temperature=0.2)(z[0], z[1]),
    ),
    "laplacian": (
        lambda z: KernelInfoNCELoss("laplacian", 0.2)(z[0], z[1]),
        lambda z: info_nce(z[:2].flatten(0, 1), lambda d: -d.sqrt() / 0.2),
    ),
    "sum": (
        lambda z: KernelInfoNCELoss("sum", 0.2, mixture=0.3)(z[0], z[1]),
        lambda z: info_nce(z[:2].flatten(0, 1), summed),
    ),
    "function": (
        lambda z: KernelInfoNCELoss(lambda d: -d.pow(3))(z[0], z[1]),
        lambda z: info_nce(z[:2].flatten(0, 1), lambda d: -d.pow(1.5)),
    ),
    "clip": (
        lambda z: ClipLoss(0.3).double()(z[0], z[1]),
        lambda z: SymmetricInfoNCELoss(0.3)(z[0], z[1]),
    ),
    "sig_lip": (lambda z: SigLipLoss(0.25, -1.5).double()(z[0], z[1]), lambda z: sig_lip(z[0], z[1], 4, -1.5)),
    "sup_con relu": (
        lambda z: SupConLoss(0.3, relu=True)(z.flatten(0, 1)[:8], LABELS),
        lambda z: marked(z.flatten(0, 1)[:8].relu(), (LABELS[:, None] == LABELS).tolist(), 0.3),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient_are_those_of_the_loop(name: str) -> None:
    loss, loop = CASES[name]
    z = draw(3, 4, 5)
    found, expected = loss(z), loop(z)
    assert found.item() == pytest.approx(expected.item(), abs=2e-7)  # log 0.07 and the like are float32 parameters
    torch.testing.assert_close(*(torch.autograd.grad(x, z)[0] for x in (found, expected)), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", [name for name in CASES if name not in ("cacr momentum", "cacr keys")])
def test_gradient_is_that_of_differences(name: str) -> None:  # weights of the momentum form are detached
    assert torch.autograd.gradcheck(CASES[name][0], (draw(3, 4, 5),))


@pytest.mark.parametrize("repulsion", ["distance", "rbf"])
def test_cacr_does_not_change_with_a_rotation_or_the_order_of_views_and_images(repulsion: str) -> None:
    z, loss = draw(4, 6, 5).detach(), CACRLoss(repulsion=repulsion)
    turn = torch.linalg.qr(draw(5, 5, seed=1).detach()).Q
    for other in (z @ turn, z[[2, 0, 3, 1]], z[:, torch.randperm(6)], z * 7):
        torch.testing.assert_close(loss(other), loss(z))


def test_cacr_without_weights_is_alignment_and_what_small_temperatures_come_to() -> None:
    z = draw(2, 6, 5).detach()
    plain = CACRLoss(weighted=False, beta=0)(z)
    torch.testing.assert_close(plain, (unit(z[0]) - unit(z[1])).square().sum(1).mean())
    many = draw(3, 6, 5).detach()
    torch.testing.assert_close(CACRLoss(tau_pos=0, tau_neg=0)(many), CACRLoss(weighted=False)(many))
    assert not torch.allclose(CACRLoss(tau_neg=5)(many), CACRLoss(weighted=False)(many))


def test_cacr_detaches_its_weights_when_asked() -> None:
    z = draw(3, 4, 5)
    values = [CACRLoss(detach_weights=detach)(z) for detach in (False, True)]
    assert torch.equal(*values)
    with_weights, without = (torch.autograd.grad(value, z)[0] for value in values)
    assert not torch.allclose(with_weights, without)


def test_the_centre_of_shifted_contrast_matters_turns_with_the_rows_and_is_saved() -> None:
    z, center = draw(2, 6, 5).detach(), CENTER
    loss = MeanShiftedContrastiveLoss(center, angular=True)
    turn = torch.linalg.qr(draw(5, 5, seed=1).detach()).Q
    torch.testing.assert_close(MeanShiftedContrastiveLoss(center @ turn, angular=True)(*z @ turn), loss(*z))
    assert not torch.allclose(MeanShiftedContrastiveLoss(-center, angular=True)(*z), loss(*z))
    assert set(loss.state_dict()) == {"center"}


def test_a_step_on_a_narrow_cone_leads_away_from_the_centre_but_for_shifted_contrast() -> None:
    axis = torch.eye(8, dtype=torch.float64)[0]
    z = unit(axis + 0.05 * draw(1, 32, 8).detach() + 0.01 * draw(2, 32, 8, seed=1).detach()).requires_grad_()
    center = z.detach().mean((0, 1))
    away = unit(z.detach() - center)
    shares = []
    for loss in (NTXentLoss(0.25), MeanShiftedContrastiveLoss(center)):
        step = -torch.autograd.grad(loss(*z), z)[0]
        shares.append(((step * away).sum(-1) / step.norm(dim=-1)).mean().item())
    assert shares[0] > 0.7, shares
    assert abs(shares[1]) < 0.2, shares


@pytest.mark.parametrize("kernel", ["gaussian", "laplacian", "sum"])
def test_equal_rows_have_the_closed_form_and_a_finite_gradient(kernel: str) -> None:
    z = torch.ones(4, 6, requires_grad=True)
    value = KernelInfoNCELoss(kernel)(z, z)
    value.backward()
    assert value.item() == pytest.approx(math.log(7), abs=1e-5)
    assert z.grad is not None
    assert bool(z.grad.isfinite().all())


def test_relu_reaches_the_bound_with_unequal_classes_and_stays_above_it_without() -> None:
    labels, t = torch.tensor([0] * 8 + [1] * 4 + [2] * 2), 0.5
    bound = sum(n * math.log(n - 1 + (14 - n) * math.exp(-1 / t)) for n in (8, 4, 2))
    reached = {}
    for relu in (True, False):
        z = draw(14, 6, seed=2).detach().abs().requires_grad_()
        loss = SupConLoss(t, reduction="sum", relu=relu)
        if relu:
            assert loss(z, labels).item() > bound
        optimiser = torch.optim.Adam([z], lr=0.05)
        for _ in range(400):
            optimiser.zero_grad()
            loss(z, labels).backward()
            optimiser.step()
        means = unit(
            torch.stack([unit(z.detach().relu() if relu else z.detach())[labels == c].mean(0) for c in range(3)])
        )
        gram = means @ means.T
        reached[relu] = loss(z, labels).item(), (gram / gram.norm() - torch.eye(3) / math.sqrt(3)).norm().item()
    assert reached[True][0] == pytest.approx(bound, abs=0.05)
    assert reached[True][1] < 0.01 < 0.1 < reached[False][1]


def test_temperature_and_bias_are_learnt_within_their_bound() -> None:
    z = draw(2, 6, 5).detach().float()
    for loss, names in ((ClipLoss(0.02), {"scale.log_scale"}), (SigLipLoss(0.02), {"scale.log_scale", "bias"})):
        assert {name for name, _ in loss.named_parameters()} == names
        loss(*z).backward()
        assert all(bool(parameter.grad) for parameter in loss.parameters())  # type: ignore[arg-type]
        with torch.no_grad():
            loss.get_parameter("scale.log_scale").fill_(9.0)
        loss.zero_grad()
        loss(*z).backward()
        assert loss.get_parameter("scale.log_scale").exp().item() == pytest.approx(100)
        assert bool(loss.get_parameter("scale.log_scale").grad)  # a way back from the bound
    assert not list(filter(lambda p: p.requires_grad, ClipLoss(learnable=False).parameters()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_full(dtype: torch.dtype) -> None:
    z = (30 * draw(3, 4, 8).detach()).to(dtype)
    center = torch.linspace(0, 1, 8)
    for loss in (CACRLoss(), CACRLoss("momentum"), CACRLoss(repulsion="rbf")):
        assert loss(z).dtype == torch.float32
        torch.testing.assert_close(loss(z), loss(z.float()))
    for pair in (MeanShiftedContrastiveLoss(center), KernelInfoNCELoss("sum"), ClipLoss(), SigLipLoss()):
        assert pair(z[0], z[1]).dtype == torch.float32
        torch.testing.assert_close(pair(z[0], z[1]), pair(z[0].float(), z[1].float()))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CACRLoss("queue"), "form must be one of"),
        (lambda: CACRLoss(repulsion="near"), "repulsion must be one of"),
        (lambda: CACRLoss(beta=-1), "beta must be at least 0"),
        (lambda: CACRLoss()(torch.ones(1, 4, 3)), "at least two views"),
        (lambda: CACRLoss()(torch.ones(2, 1, 3)), "at least two images"),
        (lambda: CACRLoss()(torch.ones(2, 4, 3), torch.ones(4, 3)), "keys belong to form='momentum'"),
        (lambda: MeanShiftedContrastiveLoss(torch.ones(2, 3)), "center must be one feature vector"),
        (lambda: MeanShiftedContrastiveLoss(torch.ones(3))(*torch.ones(2, 4, 2)), "center must have shape"),
        (lambda: KernelInfoNCELoss("cauchy"), "kernel must be a function or one of"),
        (lambda: KernelInfoNCELoss("sum", mixture=1.0), "mixture must be between 0 and 1"),
        (lambda: ClipLoss(0.001), "temperature must be at least 1 / max_scale"),
        (lambda: SigLipLoss()(torch.ones(4, 2), torch.ones(3, 2)), "text must have shape"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_values_that_are_not_finite_are_refused() -> None:
    z = torch.full((2, 4, 3), torch.nan)
    for make in (lambda: CACRLoss()(z), lambda: SigLipLoss()(*z), lambda: MeanShiftedContrastiveLoss(z[0, 0])):
        with pytest.raises(NonFiniteError, match="must be finite"):
            make()
