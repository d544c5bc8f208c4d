import math
from typing import Any

import pytest
import torch
from torch import Tensor
from volume_contrast_loops import PUBLISHED, cos, draw, loop_reference

from monai_cl.losses import NonFiniteError, VolumeContrastLoss
from monai_cl.losses._volume_terms import negative_term, positive_term, soft_term, spread_term
from monai_cl.losses.volume_contrast import choose_partners, random_derangement


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


def gradients(loss: Tensor, inputs: dict[str, Tensor]) -> list[Tensor]:
    wanted = [inputs["crops"], inputs["bases"]]
    found = torch.autograd.grad(loss, wanted, allow_unused=True)
    return [torch.zeros_like(w) if g is None else g for w, g in zip(wanted, found, strict=True)]


def both_forms(variant: str, dtype: torch.dtype, **shape: int) -> tuple[dict[str, Tensor], dict[str, Tensor], Any, Any]:
    """Parts and gradients of the vectorised loss in ``dtype`` and of the loops in float64."""
    truth = {name: tensor.double() for name, tensor in draw(**shape).items()}
    inputs = {name: tensor.to(dtype) for name, tensor in truth.items()}
    for name in ("crops", "bases"):
        truth[name].requires_grad_()
        inputs[name] = inputs[name].detach().requires_grad_()
    if variant == "monai_cl":
        partner = torch.arange(len(truth["crops"])).roll(1)
        fast = VolumeContrastLoss()(**inputs, partner=partner)
        slow = loop_reference(*truth.values(), partner=partner.tolist())  # type: ignore[arg-type]
    else:
        fast, slow = VolumeContrastLoss(variant)(**inputs), PUBLISHED[variant](*truth.values())
    return fast, slow, gradients(fast["loss"], inputs), gradients(slow["loss"], truth)


@pytest.mark.parametrize("shape", [{}, {"b": 2, "s": 1, "k": 9, "d": 3}, {"b": 2, "s": 5, "k": 2, "d": 16, "seed": 4}])
@pytest.mark.parametrize("variant", ["monai_cl", *PUBLISHED])
def test_every_variant_is_its_loop_form_in_value_and_gradient(variant: str, shape: dict[str, int]) -> None:
    fast, slow, fast_gradients, slow_gradients = both_forms(variant, torch.float64, **shape)
    assert set(fast) == set(slow) == {"loss", "positive", "negative", "inter", "regularizer"}
    for name, value in slow.items():
        assert fast[name].dtype == torch.float64
        assert fast[name].item() == pytest.approx(value.item(), rel=1e-10, abs=1e-12), name
    for mine, theirs in zip(fast_gradients, slow_gradients, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("variant", PUBLISHED)
def test_published_variants_are_their_loop_forms_to_rounding_in_single_precision(variant: str) -> None:
    fast, slow, fast_gradients, slow_gradients = both_forms(variant, torch.float32)
    for name, value in slow.items():
        assert fast[name].dtype == torch.float32
        assert fast[name].item() == pytest.approx(value.item(), rel=1e-5, abs=1e-7), name
    for mine, theirs in zip(fast_gradients, slow_gradients, strict=True):
        torch.testing.assert_close(mine.double(), theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("variant", ["monai_cl", *PUBLISHED])
def test_gradients_are_derivatives(variant: str) -> None:
    inputs = {name: tensor.double() for name, tensor in draw(b=2, s=2, k=3, d=4, seed=2).items()}
    loss, partner = VolumeContrastLoss(variant, regularizer="symmetric"), torch.tensor([1, 0])
    fixed = [inputs[name] for name in ("overlap", "teacher_crops", "teacher_bases")]
    points = tuple(inputs[name].requires_grad_() for name in ("crops", "bases"))
    if variant == "cvpr":  # its own bases are held fixed: no derivative of the whole
        points, bases = points[:1], points[1].detach()
        assert torch.autograd.gradcheck(lambda x: loss(x, bases, fixed[0])["loss"], points)
    else:
        assert torch.autograd.gradcheck(lambda x, z: loss(x, z, *fixed, partner=partner)["loss"], points)


def test_published_v2_compares_a_batch_of_one_with_itself_when_told_to() -> None:
    inputs = {name: tensor.double() for name, tensor in draw(b=1).items()}
    parts = VolumeContrastLoss("v2")(**inputs, partner=torch.tensor([0]))
    assert parts["inter"].item() == pytest.approx(PUBLISHED["v2"](*inputs.values())["inter"].item(), rel=1e-10)


def test_variants_may_be_named_without_a_teacher() -> None:
    inputs = {name: tensor.double() for name, tensor in draw().items()}
    alone = [inputs[name] for name in ("crops", "bases", "overlap")]
    for variant, reference in PUBLISHED.items():
        expected = reference(*alone, inputs["crops"], inputs["bases"])["loss"].item()
        assert VolumeContrastLoss(variant)(*alone)["loss"].item() == pytest.approx(expected, rel=1e-10)


def gradient_rows(loss: VolumeContrastLoss, name: str, part: str) -> Tensor:
    """Which rows of an input receive gradient from a part of the loss."""
    inputs = draw(k=5, seed=1)
    inputs["crops"].requires_grad_()
    inputs["bases"].requires_grad_()
    partner = torch.arange(3).roll(-1)
    (gradient,) = torch.autograd.grad(loss(**inputs, partner=partner)[part], inputs[name], allow_unused=True)
    return torch.zeros(3, 5) if gradient is None else gradient.norm(dim=-1)


@pytest.mark.parametrize(("variant", "reached"), [("cvpr", False), ("10k", True), ("v2", False), ("monai_cl", False)])
def test_the_intra_term_reaches_bases_in_the_two_way_form_only(variant: str, reached: bool) -> None:
    assert bool(gradient_rows(VolumeContrastLoss(variant), "bases", "positive").any()) == reached


def test_the_term_across_volumes_reaches_crops_and_bases_of_the_student() -> None:
    for name in ("crops", "bases"):
        assert bool(gradient_rows(VolumeContrastLoss("v2"), name, "inter").any())


@pytest.mark.parametrize("variant", PUBLISHED)
def test_published_regularisers_leave_the_last_base_without_gradient(variant: str) -> None:
    z = torch.rand(2, 5, 8) + 0.1  # all cosines positive
    for option, dead in (({}, [4]), ({"regularizer": "symmetric"}, [])):
        bases = z.clone().requires_grad_()
        inputs = torch.randn(2, 3, 8), bases, torch.full((2, 3, 5), 0.2)
        VolumeContrastLoss(variant, intra_weight=0, inter_weight=0, **option)(*inputs)["loss"].backward()  # type: ignore[arg-type]
        assert (bases.grad.norm(dim=-1)[0] == 0).nonzero().flatten().tolist() == dead  # type: ignore[union-attr]


def test_published_links_have_no_gradient_at_a_negative_cosine() -> None:
    base, whole = torch.tensor([[[1.0, 0.0]]]), torch.ones(1, 1, 1)
    for link, alive in (("relu", False), ("signed", True), ("softmax", False)):  # one base has nothing to compete with
        crops = torch.tensor([[[-1.0, 0.1]]], requires_grad=True)
        VolumeContrastLoss("v2", inter_weight=0, link=link)(crops, base, whole)["loss"].backward()
        assert bool(crops.grad.any()) == alive, link  # type: ignore[union-attr]


OPTIONS = {
    "link": ("signed", "relu", "softmax"),
    "target": ("unit", "overlap"),
    "weighting": ("overlap", "count"),
    "negative": ("log", "square"),
    "similarity": ("one_way", "two_way"),
    "use_teacher": (True, False),
    "zero_overlap": (0.0, 0.15),
    "partners": ("random", "ring"),
}


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("variant", ["monai_cl", *PUBLISHED])
def test_each_correction_is_an_option_of_its_own(variant: str, option: str) -> None:
    inputs = {k: v.double() for k, v in draw(b=5, seed=3).items()}
    inputs["crops"].requires_grad_()
    inputs["bases"].requires_grad_()
    values = []
    for value in OPTIONS[option]:
        loss = VolumeContrastLoss(variant, inter_weight=1.0, **{option: value})  # type: ignore[arg-type]
        torch.manual_seed(0)
        total = loss(**inputs)["loss"]
        values.append((total.item(), *(g.norm().item() for g in gradients(total, inputs))))
        others = [field for field in loss.form._fields if field != option]
        plain = VolumeContrastLoss(variant).form
        assert getattr(loss.form, option) == value
        assert all(getattr(loss.form, field) == getattr(plain, field) for field in others)
    assert len(set(values)) == len(values)


def test_options_turn_a_published_form_into_the_corrected_one() -> None:
    inputs = {k: v.double() for k, v in draw().items()}
    options = {"link": "signed", "target": "unit", "zero_overlap": 1e-6, "regularizer": "symmetric"}
    partner = torch.tensor([2, 0, 1])
    corrected = VolumeContrastLoss("v2", **options)(**inputs, partner=partner)  # type: ignore[arg-type]
    assert corrected["loss"].item() == VolumeContrastLoss()(**inputs, partner=partner)["loss"].item()


def test_the_softmax_link_is_the_cross_entropy_of_soft_labels() -> None:
    inputs = {k: v.double() for k, v in draw().items()}
    logits = torch.stack([torch.stack([torch.stack([cos(x, z) for z in t]) for x in c])
                          for c, t in zip(inputs["crops"], inputs["teacher_bases"], strict=True)])  # fmt: skip
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1) / 0.2, inputs["overlap"].flatten(0, 1))
    parts = VolumeContrastLoss(link="softmax", temperature=0.2)(**inputs)
    assert parts["positive"].item() == pytest.approx(expected.item(), rel=1e-6)
    assert parts["negative"].item() == 0.0
    assert parts["inter"].item() > 0.0


def test_the_teachers_own_softmax_costs_its_entropy_across_volumes() -> None:
    inputs = draw()
    x, z = inputs["crops"], inputs["bases"]
    partner = torch.tensor([1, 2, 0])
    loss = VolumeContrastLoss(link="softmax", temperature=0.5)(x, z, inputs["overlap"], x, z, partner=partner)
    unit = torch.nn.functional.normalize
    q = torch.distributions.Categorical(logits=unit(x, dim=-1) @ unit(z, dim=-1)[partner].mT / 0.5)
    assert loss["inter"].item() == pytest.approx(q.entropy().mean().item(), rel=1e-4)


def test_terms_stay_finite_where_a_product_exceeds_one() -> None:
    s = torch.tensor([[[1.002, -1.002]]], requires_grad=True)  # what reduced-precision products give for equal rows
    y = torch.tensor([[[0.0, 1.0]]])
    total = positive_term(s, y, y, signed=True) + negative_term(s, y == 0, form="log") + soft_term(s, y, temperature=1)
    total.backward()
    assert math.isfinite(total.item())
    assert bool(s.grad.isfinite().all())  # type: ignore[union-attr]


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
@pytest.mark.parametrize("options", [{}, *({"variant": v} for v in PUBLISHED), {"link": "softmax"}])
def test_half_precision_embeddings_give_nearly_the_same_finite_loss(
    dtype: torch.dtype, options: dict[str, str]
) -> None:
    inputs = draw(b=4, d=32)
    half = {k: v if k == "overlap" else v.to(dtype) for k, v in inputs.items()}
    half["crops"].requires_grad_()
    loss = loss_of(half, **options)["loss"]
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(loss_of(inputs, **options)["loss"].item(), rel=1e-2)
    assert bool(half["crops"].grad.isfinite().all())


def test_float32_inside_autocast() -> None:
    inputs = draw()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = loss_of(inputs)
    assert inside["loss"].dtype == torch.float32
    assert inside["loss"].item() == loss_of(inputs)["loss"].item()


@pytest.mark.parametrize("variant", ["monai_cl", *PUBLISHED])
def test_extreme_similarities_stay_finite(variant: str) -> None:
    same = torch.ones(2, 1, 4).requires_grad_()
    parts = VolumeContrastLoss(variant)(same, torch.ones(2, 2, 4), torch.tensor([[[1.0, 0.0]]] * 2))
    parts["loss"].backward()
    assert math.isfinite(parts["loss"].item())
    assert bool(same.grad.isfinite().all())  # type: ignore[union-attr]


@pytest.mark.parametrize("variant", ["monai_cl", *PUBLISHED])
def test_zero_embeddings_stay_finite(variant: str) -> None:
    zero = torch.zeros(2, 2, 4).requires_grad_()
    loss = VolumeContrastLoss(variant)(zero, torch.zeros(2, 3, 4), torch.full((2, 2, 3), 1 / 3))["loss"]
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


@pytest.mark.parametrize("kind", ["random", "ring"])
def test_partners_share_their_group_and_are_never_oneself(kind: str) -> None:
    group = torch.tensor([7, 2, 7, 2, 2, 7, 7])
    seen = set()
    for _ in range(30):
        partner = choose_partners(7, kind, group=group)
        assert sorted(partner.tolist()) == list(range(7))
        assert bool((group[partner] == group).all())
        assert bool((partner != torch.arange(7)).all())
        seen.add(tuple(partner.tolist()))
    assert (len(seen) > 1) == (kind == "random")


def test_groups_of_two_compare_as_batches_of_two_do() -> None:
    inputs = draw(b=4)
    whole = VolumeContrastLoss()(**inputs, group=torch.tensor([0, 0, 1, 1]))["loss"].item()
    halves = [VolumeContrastLoss()(**{k: v[i : i + 2] for k, v in inputs.items()})["loss"].item() for i in (0, 2)]
    assert whole == pytest.approx(sum(halves) / 2, rel=1e-6)


@pytest.mark.parametrize("variant", ["monai_cl", "v2"])
def test_one_volume_needs_the_inter_term_off(variant: str) -> None:
    inputs = draw(b=1)
    with pytest.raises(ValueError, match=r"at least two volumes in a batch, got 1.*inter_weight=0 or unpaired='skip'"):
        VolumeContrastLoss(variant)(**inputs)
    assert VolumeContrastLoss(variant, inter_weight=0)(**inputs)["loss"].isfinite()
    assert VolumeContrastLoss(variant, unpaired="skip")(**inputs)["inter"].item() == 0.0
    for without in ("cvpr", "10k"):
        assert VolumeContrastLoss(without)(**inputs)["inter"].item() == 0.0


def test_a_volume_alone_in_its_group_is_named_or_skipped() -> None:
    inputs, group = draw(b=3), torch.tensor([4, 9, 4])
    with pytest.raises(ValueError, match=r"two volumes of each group in a batch, got volumes \[1\] alone"):
        VolumeContrastLoss()(**inputs, group=group)
    skipped = VolumeContrastLoss(unpaired="skip")(**inputs, group=group)["inter"].item()
    pair = {k: v[[0, 2]] for k, v in inputs.items()}
    assert skipped == pytest.approx(VolumeContrastLoss()(**pair)["inter"].item(), rel=1e-6)


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


@pytest.mark.parametrize("name", ["crops", "bases"])
def test_nothing_to_contrast_is_refused(name: str) -> None:
    inputs = draw()
    inputs[name] = inputs[name][:, :0]
    with pytest.raises(ValueError, match=r"must hold a volume, a crop, a base and a feature at least, got.*, 0, "):
        loss_of(inputs)


def test_unknown_variant_lists_the_known() -> None:
    with pytest.raises(ValueError, match="variant must be one of"):
        VolumeContrastLoss("v3")
    with pytest.raises(ValueError, match="inter_weight must be at least 0, got -1"):
        VolumeContrastLoss(inter_weight=-1)
    with pytest.raises(ValueError, match=r"link must be one of \('signed', 'relu', 'softmax'\), got 'sigmoid'"):
        VolumeContrastLoss(link="sigmoid")
    with pytest.raises(ValueError, match="zero_overlap must be at least 0, got -1"):
        VolumeContrastLoss(zero_overlap=-1)
    with pytest.raises(ValueError, match="target, negative must be left out with link='softmax'"):
        VolumeContrastLoss(link="softmax", target="unit", negative="log")
    with pytest.raises(ValueError, match="temperature must be positive, got 0"):
        VolumeContrastLoss(temperature=0)
    inputs = draw()
    with pytest.raises(ValueError, match=r"group must have shape \(3,\), got \(2,\)"):
        VolumeContrastLoss()(**inputs, group=torch.tensor([0, 0]))


def test_the_printed_loss_says_what_its_variant_comes_to() -> None:
    text = repr(VolumeContrastLoss("10k", link="signed"))
    assert "'10k', link='signed', target='overlap'" in text
    assert "similarity='two_way'" in text


@pytest.mark.parametrize("link", ["signed", "relu", "softmax"])
@pytest.mark.parametrize("similarity", ["one_way", "two_way"])
def test_dead_pairs_are_those_to_which_the_positive_term_sends_no_gradient(link: str, similarity: str) -> None:
    loss, found = VolumeContrastLoss("v2", link=link, similarity=similarity, inter_weight=0), []
    overlap = torch.tensor([[[1.0, 0.0]]])
    for seed in range(12):
        inputs = draw(b=1, s=1, k=2, d=3, seed=seed) | {"overlap": overlap}
        wanted = [inputs[name].requires_grad_() for name in ("crops", "bases")][: 1 if similarity == "one_way" else 2]
        sent = torch.autograd.grad(loss(**inputs)["positive"], wanted)  # to the crop by the first similarity alone
        others = [inputs[name] for name in ("crops", "bases", "teacher_crops", "teacher_bases")]
        dead = loss.dead_pairs(loss.similarities(*others), overlap)
        assert dead.shape == (len(wanted), 1, 1, 2)
        assert [not gradient[0, 0].any() for gradient in sent] == dead[:, 0, 0, 0].tolist()
        assert not dead[..., 1].any()  # without overlap
        found += dead[..., 0].flatten().tolist()
    assert any(found) == (link == "relu")
    assert not all(found)


@pytest.mark.parametrize("factor", [3.0, -1.0])
def test_overlaps_that_are_no_shares_are_refused(factor: float) -> None:
    x, z = torch.randn(2, 3, 8), torch.randn(2, 4, 8)
    y = factor * torch.softmax(5 * torch.randn(2, 3, 4), -1)
    with pytest.raises(ValueError, match=r"overlap must be shares of a crop between 0 and 1, got values from"):
        VolumeContrastLoss()(x, z, y)


@pytest.mark.parametrize(
    ("partner", "told"),
    [([1, 5], r"indices from 0 to 1, got \[1, 5\]"), ([-1, 0], "indices from 0 to 1"), ([True, False], "integers")],
)
def test_partners_must_be_volumes_of_the_batch(partner: list, told: str) -> None:
    x, z = torch.randn(2, 3, 8), torch.randn(2, 4, 8)
    with pytest.raises(ValueError, match=f"partner must be {told}"):
        VolumeContrastLoss()(x, z, torch.full((2, 3, 4), 0.25), partner=torch.tensor(partner))


def test_embeddings_of_mixed_precision_are_compared_in_the_finer_one() -> None:
    x, z, y = torch.randn(2, 3, 8), torch.randn(2, 4, 8), torch.full((2, 3, 4), 0.25)
    one = torch.tensor([1, 0])
    plain = VolumeContrastLoss()(x, z, y, partner=one)["loss"]
    for mixed in ((x.double(), z), (x, z.double())):
        found = VolumeContrastLoss()(*mixed, y, partner=one)["loss"]
        assert found.dtype == torch.float64
        assert float(found) == pytest.approx(float(plain), rel=1e-5)
    assert VolumeContrastLoss()(x, z, y, x.double(), z.double(), one)["loss"].isfinite()
