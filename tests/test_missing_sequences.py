"""The method for studies of which each has other sequences: views, stages, gradients, faults."""

from typing import Any

import pytest
import torch
from conftest import FIVE_CHANNEL_NETWORKS
from monai.networks.nets import UNet
from study_batches import NAMES, SIZE, missing_sequences, rand, small_network, studies
from torch import Tensor

from monai_cl.engine import adamw
from monai_cl.losses import SymmetricInfoNCELoss
from monai_cl.methods import CrossModalTerm, Method, MissingSequences, SequenceContrastTerm
from monai_cl.methods.base import Method as Base


def views(method: MissingSequences, batch: dict[str, Any], **options: Any) -> tuple[Tensor, Tensor]:
    found = method.with_views(batch, **options)["image"]
    return found["views"], found["target"]


def block_of(image: Tensor, number: int) -> Tensor:
    """One of the eight blocks of 4 voxels of an image (8, 8, 8)."""
    i, j, k = (4 * (number >> axis & 1) for axis in range(3))
    return image[i : i + 4, j : j + 4, k : k + 4]


def test_every_block_of_a_view_is_the_series_the_template_or_the_donor_bit_for_bit() -> None:
    method, batch = missing_sequences(mask_rate=0.5), studies()
    with torch.no_grad():
        method.templates.values.copy_(rand(*method.templates.values.shape, seed=5))
    given = batch["image"]
    template = method.templates(given["sequence"], given["place"], (SIZE,) * 3).detach()
    torch.manual_seed(0)
    made, target = views(method, batch)
    assert torch.equal(target, torch.stack([given["target"]] * 2, 1))
    for b in range(4):
        donor = given["donor"] if given["has_donor"][b] else template
        for view, other in ((0, template), (1, donor)):
            kept = 0
            for number in range(8):
                block, own, from_other = (block_of(x, number) for x in (made[b, view, 0], target[b, 0, 0], other[b, 0]))
                assert torch.equal(block, own) or torch.equal(block, from_other)
                kept += torch.equal(block, own)
            assert kept == 4


def test_masks_repeat_under_a_seed_and_differ_between_views_and_studies() -> None:
    method, batch = missing_sequences(), studies()
    torch.manual_seed(3)
    first = views(method, batch)[0]
    torch.manual_seed(3)
    assert torch.equal(first, views(method, batch)[0])
    masks = (first == views(method, batch)[1]).flatten(2).flatten(0, 1)
    assert len({tuple(mask.tolist()) for mask in masks}) > 4


def test_a_template_has_a_gradient_where_it_stood_in_and_exactly_none_elsewhere() -> None:
    method = missing_sequences(mask_rate=0.5, contrast_weight=0.0, template_rule="gradient")
    batch = studies(2)
    batch["image"]["place"] = torch.zeros(2, 3, dtype=torch.long)
    batch["image"]["has_donor"] = torch.tensor([True, True])  # view 1 alone shows templates
    torch.manual_seed(0)
    kept = (views(method, batch)[0][:, 0, 0] == batch["image"]["target"][:, 0]).clone()
    torch.manual_seed(0)
    method(batch)["loss"].backward()
    gradient = method.templates.values.grad
    assert gradient is not None
    for b in range(2):
        inside = gradient[b, :SIZE, :SIZE, :SIZE]
        assert not inside[kept[b]].any()
        assert (inside[~kept[b]] != 0).float().mean() > 0.9
        assert not gradient[b, SIZE:].any()
    assert not gradient[2].any()  # of a sequence that no study of the batch has


def test_a_template_is_the_mean_of_what_came_before_this_step() -> None:
    """Not of the series that is to be restored now: nothing is restored from itself."""
    method = missing_sequences(template_size=(SIZE,) * 3, mask_rate=1.0, donor_start=1.0)
    came: list[Tensor] = []
    for step in range(3):
        batch = studies()
        batch["image"]["place"] = torch.zeros(4, 3, dtype=torch.long)
        batch["image"]["target"] = rand(4, 1, SIZE, SIZE, SIZE, seed=20 + step)
        expected = torch.cat(came).mean(0) if came else torch.zeros(1, SIZE, SIZE, SIZE)
        torch.testing.assert_close(views(method, batch)[0][0, 0].detach(), expected)
        method(batch)
        came.append(batch["image"]["target"][batch["image"]["sequence"] == 0])
    torch.testing.assert_close(method.templates.images()["T1w"], torch.cat(came).mean(0)[0])
    assert not method.templates.images()["FLAIR"].any()
    before = method.templates.values.clone()
    method.probe([studies(8)])
    method.eval()(studies())
    assert torch.equal(method.templates.values, before)


def test_the_loss_is_the_formula_written_out() -> None:
    method, batch = missing_sequences(view_weights=(10.0, 1.0), contrast_weight=0.5, temperature=0.7), studies()
    method.templates.eval()  # they stay as they are
    torch.manual_seed(1)
    found = method(batch)
    torch.manual_seed(1)
    made, target = views(method, batch)
    deepest = {}
    extract = method._extractors()["image"]
    for view in range(2):
        deepest[view] = extract(made[:, view]).encoder[-1]
    head = method.terms["reconstruction"].head
    errors = [(head(deepest[view]) - target[:, view]).square().mean() for view in range(2)]  # type: ignore[operator]
    a, b = (torch.nn.functional.normalize(deepest[view].flatten(1), dim=1) for view in range(2))
    cost = torch.zeros(())
    for i in range(4):
        for j, rows in ((0, a[i] @ b.T), (1, b[i] @ a.T)):
            cost = cost + ((rows / 0.7).exp().sum().log() - rows[i] / 0.7) / 8 + 0 * j
    torch.testing.assert_close(found["reconstruction"], 10 * errors[0] + errors[1])
    torch.testing.assert_close(found["contrast"], cost)
    torch.testing.assert_close(found["loss"], 10 * errors[0] + errors[1] + 0.5 * cost)
    torch.testing.assert_close(found["from_donor"], errors[1].detach())
    assert float(found["with_donor"]) == 0.5


def test_in_the_first_stage_templates_stand_in_for_other_sequences() -> None:
    method, batch = missing_sequences(donor_start=0.2, mask_rate=1.0), studies()
    assert not views(method, batch)[0].any()  # empty templates
    method.after_step(0.19)
    assert not views(method, batch)[0].any()
    method.after_step(0.2)
    made = views(method, batch)[0]
    assert torch.equal(made[::2, 1], batch["image"]["donor"][::2])
    assert not made[1::2].any()  # those have no other sequence
    assert torch.equal(views(missing_sequences(donor_start=1.0, mask_rate=1.0), batch, probing=True)[0], made)


def test_the_contrast_sets_in_at_its_stage_which_a_checkpoint_keeps() -> None:
    method, batch = missing_sequences(contrast_start=0.6), studies()
    assert float(method(batch)["contrast"]) == 0
    method.after_step(0.59)
    assert float(method(batch)["contrast"]) == 0
    method.after_step(0.6)
    assert float(method(batch)["contrast"].detach()) > 0
    other = missing_sequences(contrast_start=0.6)
    other.load_state_dict(method.state_dict())
    assert float(other(batch)["contrast"].detach()) > 0


def test_a_study_with_one_sequence_alone_learns_from_its_template() -> None:
    method, batch = missing_sequences(), studies(2)
    batch["image"]["has_donor"] = torch.zeros(2, dtype=torch.bool)
    found = method(batch)
    assert float(found["with_donor"]) == 0
    assert found["loss"].isfinite()


@pytest.mark.parametrize("skips", [False, True])
@pytest.mark.parametrize("name", ["SegResNet", "UNet", "DynUNet", pytest.param("SwinUNETR", marks=pytest.mark.slow)])
def test_every_network_restores_with_and_without_skips(name: str, skips: bool) -> None:
    size = 64 if name == "SwinUNETR" else 8
    three_levels = UNet(3, 1, 5, channels=(4, 8, 8), strides=(2, 2))  # of two, no block of the decoder is left
    network = three_levels if name == "UNet" else FIVE_CHANNEL_NETWORKS[name]()
    method = MissingSequences(network, NAMES, size, template_size=(size,) * 3, skips=skips)
    batch = studies(2, size=size)
    method(batch)["loss"].backward()
    learning = {n for n, p in method.network.named_parameters() if p.requires_grad}
    assert learning == {n for n, p in method.network.named_parameters() if p.grad is not None}
    decoder = {"SegResNet": "up_layers", "UNet": "submodule.2", "SwinUNETR": "decoder1"}.get(name, "up")
    assert any(decoder in n for n in learning) == skips


@pytest.mark.parametrize("rule", ["mean", "gradient"])
def test_the_loss_falls_and_a_sequence_that_never_came_has_an_empty_template(rule: str) -> None:
    torch.manual_seed(0)
    options = {"template_size": (SIZE,) * 3, "contrast_start": 1.0, "donor_start": 0.5, "template_rule": rule}
    method = missing_sequences(skips=True, **options)
    optimizer = adamw(method, 1e-2)
    truth = torch.nn.functional.interpolate(rand(1, 1, 4, 4, 4, seed=9), scale_factor=2.0)
    values = []
    for step in range(60):
        batch = studies()
        batch["image"]["target"] = truth + 0.05 * torch.randn(4, 1, SIZE, SIZE, SIZE)
        batch["image"]["place"] = torch.zeros(4, 3, dtype=torch.long)
        found = method(batch)
        optimizer.zero_grad()
        found["loss"].backward()
        optimizer.step()
        method.after_step(step / 60)
        values.append(float(found["loss"].detach()))
    assert sum(values[-10:]) < 0.5 * sum(values[:10])
    images = method.templates.images()
    assert images["T1w"].any()
    assert images["T2w"].any()
    assert not images["FLAIR"].any()


def test_a_probe_tells_errors_and_health() -> None:
    method = missing_sequences()
    found = method.probe([studies(8), studies(8)])
    assert {"from_template", "from_donor", "alignment", "effective_rank"} <= found.keys()
    assert dict(found) == dict(method.probe([studies(8), studies(8)]))


def test_the_terms_make_a_method_of_ones_own() -> None:
    terms = {"restored": CrossModalTerm((1.0, 0.0), skips=True), "told": SequenceContrastTerm(start=0.0)}
    method = Method(small_network(), terms, weights={"told": 0.1}, image_size=SIZE)
    pair = rand(2, 2, 1, SIZE, SIZE, SIZE, seed=0)
    found = method({"image": pair, "target": pair})
    torch.testing.assert_close(found["restored"], found["from_template"])
    assert Method is Base


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "rate": ({"mask_rate": 1.5}, "mask_rate must be between 0 and 1, got 1.5"),
    "donor": ({"donor_start": -0.1}, "donor_start must be a share of the run"),
    "start": ({"contrast_start": 2.0}, "start must be a share of the run between 0 and 1, got 2.0"),
    "weights": ({"view_weights": (0.0, 0.0)}, "weights must be two numbers of at least 0, one of them above"),
    "rule": ({"template_rule": "median"}, r"rule must be one of \('mean', 'gradient'\), got 'median'"),
    "memory": ({"max_mib": 1e-6}, "templates may take at most 1e-06 MiB"),
}


@pytest.mark.parametrize("name", BAD)
def test_options_out_of_range_are_refused(name: str) -> None:
    options, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        missing_sequences(**options)


def test_batches_that_do_not_fit_are_refused_by_name() -> None:
    method = missing_sequences()
    with pytest.raises(ValueError, match=r"must hold 'donor', 'place' under 'image'.*with RandStudyViewsd"):
        method({"image": {k: v for k, v in studies()["image"].items() if k not in ("donor", "place")}})
    with pytest.raises(ValueError, match="must hold 'target'"):
        method({"other": 1})
    batch = studies()
    batch["image"]["sequence"] = torch.full((4,), 3)
    with pytest.raises(ValueError, match=r"numbers below 3, got 3; give RandStudyViewsd and the method the same"):
        method(batch)
    alone = {"image": {key: value[:1] for key, value in studies()["image"].items()}}
    with pytest.raises(ValueError, match="at least two series in a batch, got 1; use batch_size 2"):
        method(alone)
    with pytest.raises(ValueError, match="'target' beside two views under 'image', got 2 views and no target"):
        Method(small_network(), {"r": CrossModalTerm()})({"image": rand(1, 2, 1, 8, 8, 8, seed=0)})
    two = MissingSequences(small_network(2), NAMES, SIZE, template_size=(8, 8, 8))
    with pytest.raises(ValueError, match="must have the 2 input channels of UNet, got 1"):
        two(studies())


def test_settings_that_make_embeddings_alike_are_named() -> None:
    assert missing_sequences(contrast_start=0.5).causes_of_collapse() == []
    causes = missing_sequences(mask_rate=0.99).causes_of_collapse()
    assert [cause.split("=")[0] for cause in causes] == ["contrast_start", "mask_rate"]


# --- the contrast


def test_contrast_equals_a_slow_double_loop() -> None:
    a, b = (rand(5, 3, seed=seed).double() for seed in range(2))
    a, b = a - 0.5, b - 0.5
    for temperature in (0.1, 1.0):
        total = 0.0
        for i in range(5):
            for x, y in ((a, b), (b, a)):
                cosines = [float(x[i] @ y[j] / (x[i].norm() * y[j].norm())) / temperature for j in range(5)]
                total += float(torch.tensor(cosines, dtype=torch.float64).exp().sum().log()) - cosines[i]
        assert float(SymmetricInfoNCELoss(temperature)(a, b)) == pytest.approx(total / 10, rel=1e-12)
        each = SymmetricInfoNCELoss(temperature, reduction="none")(a, b)
        assert float(each.mean()) == pytest.approx(total / 10, rel=1e-12)


def test_contrast_is_symmetric_and_knows_its_minimum() -> None:
    a, b = (rand(4, 6, seed=seed).double() for seed in range(2))
    loss = SymmetricInfoNCELoss(0.2)
    torch.testing.assert_close(loss(a, b), loss(b, a))
    turn = torch.linalg.qr(rand(6, 6, seed=3).double())[0]
    torch.testing.assert_close(loss(a @ turn, b @ turn), loss(a, b))
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(loss(a[order], b[order]), loss(a, b))
    eye = torch.eye(4, dtype=torch.float64)
    assert float(loss(eye, eye)) == pytest.approx(float(torch.log(1 + 3 * torch.exp(torch.tensor(-5.0)))), rel=1e-6)
    assert float(loss(eye[:1], eye[1:2])) == 0  # nothing to be told from


def test_contrast_has_exact_gradients_and_stays_finite_in_half_precision() -> None:
    a, b = (rand(3, 4, seed=seed).double().requires_grad_() for seed in range(2))
    assert torch.autograd.gradcheck(SymmetricInfoNCELoss(0.3), (a, b))
    a, b = a.detach(), b.detach()
    low = SymmetricInfoNCELoss(0.01)(a.half(), b.half())
    assert low.dtype == torch.float32
    assert float(low) == pytest.approx(float(SymmetricInfoNCELoss(0.01)(a, b)), rel=0.05)
