import math
from typing import Any

import pytest
import torch
from torch import Tensor

from monai_cl.losses import NonFiniteError, VolumeContrastLoss
from monai_cl.losses.volume_contrast import EPS, random_derangement, spread_term


def cos(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b) / (a.norm().clamp_min(1e-8) * b.norm().clamp_min(1e-8))


def loop_reference(x: Tensor, z: Tensor, y: Tensor, x_t: Tensor, z_t: Tensor, partner: list[int]) -> dict[str, Tensor]:
    """The formulas of the docstring, one pair at a time."""
    b, s, k = y.shape
    positive, negative, inter, spread = ([torch.zeros((), dtype=x.dtype)] * b for _ in range(4))
    for i in range(b):
        j = partner[i]
        pos = neg = weight = count = torch.zeros((), dtype=x.dtype)
        ipos = ineg = iweight = icount = torch.zeros((), dtype=x.dtype)
        for n in range(s):
            length = y[i, n].norm().clamp_min(1e-12)
            for m in range(k):
                sim = cos(x[i, n], z_t[i, m].detach())
                t = y[i, n, m] / length
                pos = pos + y[i, n, m] * -torch.log(1 - (t - sim).abs() / (1 + t) + EPS)
                weight = weight + y[i, n, m]
                if y[i, n, m] <= 1e-6:
                    neg = neg - torch.log(1 - sim.clamp_min(0) + EPS)
                    count = count + 1
                q = cos(x_t[i, n], z_t[j, m]).clamp_min(0).detach()
                p = cos(x[i, n], z[j, m])
                ipos = ipos + q * -torch.log(1 - (q - p).abs() / (1 + q) + EPS)
                iweight = iweight + q
                if q == 0:
                    ineg = ineg - torch.log(1 - p.clamp_min(0) + EPS)
                    icount = icount + 1
        positive[i] = pos / (weight + EPS)
        negative[i] = neg / (count + EPS)
        inter[i] = ipos / (iweight + EPS) + ineg / (icount + EPS)
        pairs = [cos(z[i, m], z[i, n]).clamp_min(0) ** 2 for m in range(k) for n in range(m)]
        spread[i] = 2 / (k * (k - 1)) * torch.stack(pairs).sum()
    parts = {"positive": positive, "negative": negative, "inter": inter, "regularizer": spread}
    means = {name: torch.stack(values).mean() for name, values in parts.items()}
    return {"loss": torch.stack(list(means.values())).sum(), **means}


def draw(b: int = 3, s: int = 2, k: int = 4, d: int = 6, seed: int = 0) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    overlap = torch.rand(b, s, k, generator=g) * (torch.rand(b, s, k, generator=g) > 0.4)
    overlap[..., 0] += 0.1
    return {
        "crops": torch.randn(b, s, d, generator=g),
        "bases": torch.randn(b, k, d, generator=g),
        "overlap": overlap / overlap.sum(-1, keepdim=True),
        "teacher_crops": torch.randn(b, s, d, generator=g),
        "teacher_bases": torch.randn(b, k, d, generator=g),
    }


def loss_of(inputs: dict[str, Tensor], **options: Any) -> dict[str, Tensor]:
    partner = torch.arange(len(inputs["crops"])).roll(1)
    result: dict[str, Tensor] = VolumeContrastLoss(**options)(**inputs, partner=partner)
    return result


def test_equals_the_loop_in_value_and_gradient() -> None:
    inputs = draw()
    for name in ("crops", "bases"):
        inputs[name].requires_grad_()
    fast = loss_of(inputs)
    fast["loss"].backward()
    x, z = inputs["crops"].detach().double().requires_grad_(), inputs["bases"].detach().double().requires_grad_()
    rest = [inputs[name].double() for name in ("overlap", "teacher_crops", "teacher_bases")]
    slow = loop_reference(x, z, rest[0], rest[1], rest[2], partner=[2, 0, 1])
    slow["loss"].backward()
    for name, value in slow.items():
        assert fast[name].item() == pytest.approx(value.item(), rel=1e-5), name
    assert inputs["crops"].grad is not None
    assert inputs["bases"].grad is not None
    torch.testing.assert_close(inputs["crops"].grad.double(), x.grad, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(inputs["bases"].grad.double(), z.grad, rtol=1e-4, atol=1e-6)


def test_orthonormal_bases_and_the_mixed_crop_cost_nothing() -> None:
    share = torch.tensor([[[0.25, 0.25, 0.25, 0.25], [0.5, 0.5, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]]])
    parts = VolumeContrastLoss(inter_weight=0)(share, torch.eye(4)[None], share)
    assert all(abs(value.item()) < 1e-5 for value in parts.values())


def test_a_negative_cosine_to_an_overlapping_base_is_pulled_up() -> None:
    crops = torch.tensor([[[-1.0, 0.1]]], requires_grad=True)
    VolumeContrastLoss(inter_weight=0)(crops, torch.tensor([[[1.0, 0.0]]]), torch.ones(1, 1, 1))["loss"].backward()
    assert crops.grad is not None
    assert torch.linalg.vector_norm(crops.grad) > 1e-3
    step = crops.detach() - 0.1 * crops.grad
    assert step[0, 0, 0] / step.norm() > crops.detach()[0, 0, 0] / crops.detach().norm()


def test_positive_rescaling_changes_nothing() -> None:
    inputs = draw()
    scaled = {k: v if k == "overlap" else v * (torch.rand(*v.shape[:2], 1) * 50 + 0.1) for k, v in inputs.items()}
    assert loss_of(scaled)["loss"].item() == pytest.approx(loss_of(inputs)["loss"].item(), rel=1e-5)


def test_order_of_crops_and_of_bases_changes_nothing() -> None:
    inputs = draw()
    crops, bases = torch.tensor([1, 0]), torch.tensor([2, 0, 3, 1])
    shuffled = {
        "crops": inputs["crops"][:, crops],
        "teacher_crops": inputs["teacher_crops"][:, crops],
        "bases": inputs["bases"][:, bases],
        "teacher_bases": inputs["teacher_bases"][:, bases],
        "overlap": inputs["overlap"][:, crops][:, :, bases],
    }
    assert loss_of(shuffled)["loss"].item() == pytest.approx(loss_of(inputs)["loss"].item(), rel=1e-5)


def test_rotation_of_all_embeddings_changes_nothing() -> None:
    inputs = draw()
    rotation, _ = torch.linalg.qr(torch.randn(6, 6))
    turned = {k: v if k == "overlap" else v @ rotation for k, v in inputs.items()}
    assert loss_of(turned)["loss"].item() == pytest.approx(loss_of(inputs)["loss"].item(), rel=1e-4)


def test_spread_is_one_for_equal_bases_and_zero_for_orthogonal_ones() -> None:
    assert spread_term(torch.ones(1, 3, 1)).item() == pytest.approx(1.0)
    assert spread_term(torch.eye(3)[None]).item() == 0.0
    assert spread_term(torch.ones(1, 1, 1)).item() == 0.0


def test_every_base_receives_gradient_from_the_regulariser() -> None:
    z = torch.nn.functional.normalize(torch.rand(1, 5, 8), dim=-1).requires_grad_()
    spread_term(z).backward()
    assert z.grad is not None
    assert bool((z.grad.norm(dim=-1) > 1e-4).all())


def test_teachers_receive_no_gradient() -> None:
    inputs = draw()
    for name in ("teacher_crops", "teacher_bases", "crops"):
        inputs[name].requires_grad_()
    loss_of(inputs)["loss"].backward()
    assert inputs["teacher_crops"].grad is None
    assert inputs["teacher_bases"].grad is None


def test_no_base_without_overlap_means_no_negative_term() -> None:
    inputs = draw()
    inputs["overlap"] = torch.full_like(inputs["overlap"], 0.25)
    assert loss_of(inputs)["negative"].item() == 0.0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_embeddings_give_nearly_the_same_finite_loss(dtype: torch.dtype) -> None:
    inputs = draw()
    half = {k: v if k == "overlap" else v.to(dtype) for k, v in inputs.items()}
    assert loss_of(half)["loss"].dtype == torch.float32
    assert loss_of(half)["loss"].item() == pytest.approx(loss_of(inputs)["loss"].item(), rel=1e-2)


def test_float32_inside_autocast() -> None:
    inputs = draw()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = loss_of(inputs)
    assert inside["loss"].dtype == torch.float32
    assert inside["loss"].item() == loss_of(inputs)["loss"].item()


def test_extreme_similarities_stay_finite() -> None:
    same = torch.ones(2, 1, 4).requires_grad_()
    parts = VolumeContrastLoss()(same, torch.ones(2, 2, 4), torch.tensor([[[1.0, 0.0]]] * 2))
    parts["loss"].backward()
    assert math.isfinite(parts["loss"].item())
    assert bool(same.grad.isfinite().all())  # type: ignore[union-attr]


def test_zero_embeddings_stay_finite() -> None:
    zero = torch.zeros(2, 2, 4).requires_grad_()
    loss = VolumeContrastLoss()(zero, torch.zeros(2, 3, 4), torch.full((2, 2, 3), 1 / 3))["loss"]
    loss.backward()
    assert math.isfinite(loss.item())
    assert bool(zero.grad.isfinite().all())  # type: ignore[union-attr]


def test_left_out_teachers_are_the_detached_students() -> None:
    inputs = draw()
    alone = {k: v for k, v in inputs.items() if not k.startswith("teacher")}
    explicit = {**alone, "teacher_crops": alone["crops"], "teacher_bases": alone["bases"]}
    assert loss_of(alone)["loss"].item() == loss_of(explicit)["loss"].item()


def test_weights_switch_terms_off() -> None:
    parts = loss_of(draw(), intra_weight=0.0, inter_weight=0.0, regularizer_weight=2.0)
    assert parts["inter"].item() == 0.0
    assert parts["loss"].item() == pytest.approx(2 * parts["regularizer"].item())


@pytest.mark.parametrize("n", [2, 3, 7])
def test_derangement_moves_every_element(n: int) -> None:
    for _ in range(20):
        partner = random_derangement(n)
        assert sorted(partner.tolist()) == list(range(n))
        assert bool((partner != torch.arange(n)).all())


def test_one_volume_needs_the_inter_term_off() -> None:
    inputs = draw(b=1)
    with pytest.raises(ValueError, match="at least two volumes in a batch, got 1"):
        VolumeContrastLoss()(**inputs)
    assert VolumeContrastLoss(inter_weight=0)(**inputs)["loss"].isfinite()


def test_nan_is_refused_by_name() -> None:
    inputs = draw()
    inputs["bases"][0, 0, 0] = float("nan")
    with pytest.raises(NonFiniteError, match="bases must be finite, got 1 of"):
        loss_of(inputs)


def test_wrong_shapes_are_refused_by_name() -> None:
    inputs = draw()
    inputs["overlap"] = inputs["overlap"][:, :, :-1]
    with pytest.raises(ValueError, match=r"overlap must have shape \(3, 2, 4\), got \(3, 2, 3\)"):
        loss_of(inputs)


def test_unknown_variant_lists_the_known() -> None:
    with pytest.raises(ValueError, match="variant must be one of"):
        VolumeContrastLoss("v3")
    with pytest.raises(ValueError, match="inter_weight must be at least 0, got -1"):
        VolumeContrastLoss(inter_weight=-1)
