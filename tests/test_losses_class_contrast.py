"""Contrast by class, against loops over voxels and classes."""

import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor

from monai_cl.losses import ClassContrastiveLoss, NonFiniteError

FORMS = ("softmax", "published")


def batch(*, size: tuple[int, ...] = (4, 5), classes: int = 4, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    features = torch.randn(3, 6, *size, generator=g, dtype=torch.float64)
    labels = torch.randint(0, classes, (3, *size), generator=g)
    return features, labels, torch.rand(3, *size, generator=g) < 0.8


def reference(features: Tensor, labels: Tensor, valid: Tensor, *, form: str, temperature: float = 0.1) -> Tensor:
    voxels: dict[int, list[Tensor]] = {}
    for image, label, counts in zip(features, labels, valid, strict=True):
        for place in counts.nonzero().tolist():
            voxels.setdefault(int(label[tuple(place)]), []).append(image.movedim(0, -1)[tuple(place)])
    means = {c: torch.stack(rows).mean(0) for c, rows in voxels.items()}
    of_classes = []
    for c in sorted(set(voxels) - {0}):
        terms = []
        for z in voxels[c]:
            e = {k: (torch.cosine_similarity(z, m, dim=0) / temperature).exp() for k, m in means.items()}
            below = [e[k] for k in e if form == "softmax" or k != c]
            terms.append(-(e[c] / torch.stack(below).sum()).log())
        of_classes.append(torch.stack(terms).mean())
    return torch.stack(of_classes).mean()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [(4, 5), (2, 3, 4)])
def test_value_and_gradient_are_those_of_loops(form: str, size: tuple[int, ...]) -> None:
    features, labels, valid = batch(size=size)
    features.requires_grad_()
    loss = ClassContrastiveLoss(len(size), num_anchors=None, form=form)
    found, expected = loss(features, labels, valid), reference(features, labels, valid, form=form)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad(value, features)[0] for value in (found, expected)))


def test_gradients_are_those_of_differences() -> None:
    features, labels, valid = batch(size=(2, 2))
    loss = ClassContrastiveLoss(2, temperature=0.5, num_anchors=None)
    assert torch.autograd.gradcheck(lambda f: loss(f, labels, valid), features.requires_grad_())


@pytest.mark.parametrize(
    ("form", "expected"), [("softmax", math.log(1 + 2 * math.exp(-2))), ("published", math.log(2) - 2)]
)
def test_classes_at_right_angles_have_a_closed_form(form: str, expected: float) -> None:
    labels = torch.tensor([[[0, 1, 2], [2, 1, 0]]])
    features = torch.eye(3)[labels].movedim(-1, 1)
    assert float(ClassContrastiveLoss(2, temperature=0.5, form=form)(features, labels)) == pytest.approx(expected)


def test_the_published_form_goes_on_below_zero_and_the_softmax_form_does_not() -> None:
    labels = torch.tensor([[[0, 1]]])
    apart = torch.tensor([[-1.0, 1.0]]).reshape(1, 1, 1, 2)
    for temperature in (0.1, 0.01):
        published, softmax = (
            ClassContrastiveLoss(2, temperature, form=f)(apart, labels) for f in ("published", "softmax")
        )
        assert float(published) == pytest.approx(-2 / temperature)
        assert float(softmax) == pytest.approx(0, abs=1e-6)


def test_order_of_the_batch_and_rotation_of_features_change_nothing() -> None:
    features, labels, valid = batch()
    loss = ClassContrastiveLoss(2, num_anchors=None)
    expected = loss(features, labels, valid)
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(loss(features[order], labels[order], valid[order]), expected)
    rotation = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64))[0]
    torch.testing.assert_close(loss(torch.einsum("dc,bc...->bd...", rotation, features), labels, valid), expected)


def test_names_of_the_foreground_classes_change_nothing() -> None:
    features, labels, valid = batch()
    loss = ClassContrastiveLoss(2, num_anchors=None)
    renamed = torch.tensor([0, 7, 3, 12])[labels]
    torch.testing.assert_close(loss(features, renamed, valid), loss(features, labels, valid))


def test_classes_without_a_voxel_are_counted_and_left_out() -> None:
    features, labels, valid = batch(classes=3)
    loss = ClassContrastiveLoss(2, num_anchors=None, num_classes=6)
    torch.testing.assert_close(loss(features, labels, valid), reference(features, labels, valid, form="softmax"))
    assert loss.empty is not None
    assert int(loss.empty) == 3


def test_voxels_that_do_not_count_may_hold_any_label_and_any_feature() -> None:
    features, labels, valid = batch()
    loss = ClassContrastiveLoss(2, num_anchors=None)
    expected = loss(features, labels, valid)
    changed = features.clone().requires_grad_()
    found = loss(changed, labels.masked_fill(~valid, 255), valid)
    torch.testing.assert_close(found, expected)
    found.backward()
    assert changed.grad is not None
    assert not changed.grad.movedim(1, -1)[~valid].any()
    torch.testing.assert_close(loss(features, labels.masked_fill(~valid, -1), valid), expected)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("label", [0, 1])
def test_one_class_alone_gives_nothing_to_be_told_from(form: str, label: int) -> None:
    features = batch()[0].requires_grad_()
    loss = ClassContrastiveLoss(2, form=form)
    value = loss(features, torch.full((3, 4, 5), label))
    value.backward()
    assert value.item() == 0
    assert features.grad is not None
    assert not features.grad.any()
    assert loss.skipped is not None
    assert int(loss.skipped) == 60 * label


@pytest.mark.parametrize("form", FORMS)
def test_without_a_valid_voxel_the_loss_is_zero_and_can_be_derived(form: str) -> None:
    features, labels, valid = batch()
    value = ClassContrastiveLoss(2, form=form)(features.requires_grad_(), labels, torch.zeros_like(valid))
    value.backward()
    assert value.item() == 0
    assert features.grad is not None
    assert not features.grad.any()


def test_so_many_anchors_of_each_class_are_drawn_and_all_of_a_rare_one() -> None:
    from monai_cl.losses.class_contrast import _draw

    label = torch.tensor([0] * 50 + [1] * 40 + [2] * 3 + [3] * 20)[torch.randperm(113)]
    seen = torch.zeros(113)
    for _ in range(200):
        drawn = _draw(label, 3, 5)  # 3 is what does not count
        assert torch.bincount(label[drawn]).tolist() == [0, 5, 3]
        assert len(set(drawn.tolist())) == 8
        seen[drawn] += 1
    assert seen[label == 1].min() > 0
    assert bool((seen[label == 2] == 200).all())


def test_drawn_anchors_have_the_mean_of_all() -> None:
    features, labels, valid = batch(size=(12, 12))
    torch.manual_seed(0)
    some = ClassContrastiveLoss(2, num_anchors=10)
    values = torch.stack([some(features, labels, valid) for _ in range(200)])
    expected = ClassContrastiveLoss(2, num_anchors=None)(features, labels, valid)
    assert abs(values.mean() - expected) < 4 * values.std() / math.sqrt(200)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    features, labels, valid = batch()
    loss = ClassContrastiveLoss(2, num_anchors=None)
    given = features.to(dtype).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss(given, labels, valid)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), loss(given.double(), labels, valid), rtol=1e-5, atol=1e-5)
    found.backward()
    assert given.grad is not None
    assert bool(given.grad.isfinite().all())


def test_labels_may_be_whole_floating_point_numbers() -> None:
    features, labels, valid = batch()
    loss = ClassContrastiveLoss(2, num_anchors=None)
    assert torch.equal(loss(features, labels.float(), valid), loss(features, labels, valid))


@pytest.mark.parametrize(
    ("labels", "options", "text"),
    [
        (torch.full((1, 2, 2), -1), {}, "labels must be classes from 0 to 254, got values from -1 to -1; leave voxels"),
        (torch.full((1, 2, 2), 255), {}, "labels must be classes from 0 to 254, got values from 255 to 255"),
        (torch.full((1, 2, 2), 3), {"num_classes": 3}, "labels must be classes from 0 to 2, got values from 3 to 3"),
        (torch.full((1, 2, 2), 0.5), {}, "labels must be whole numbers, got fractions such as 0.5"),
        (torch.zeros(1, 2, 3), {}, "labels must have shape (1, 2, 2), got (1, 2, 3)"),
    ],
)
def test_labels_out_of_range_are_refused(labels: Tensor, options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(text)):
        ClassContrastiveLoss(2, **options)(torch.ones(1, 2, 2, 2), labels)


def test_other_input_is_refused_by_name() -> None:
    loss, labels = ClassContrastiveLoss(2), torch.zeros(1, 2, 2)
    with pytest.raises(ValueError, match=re.escape("features must be floating-point maps (B, C, *S) of 2 spatial")):
        loss(torch.ones(1, 2, 2, 2, 2), labels)
    with pytest.raises(ValueError, match=re.escape("valid must have shape (1, 2, 2), got (1, 2)")):
        loss(torch.ones(1, 2, 2, 2), labels, torch.ones(1, 2))
    with pytest.raises(NonFiniteError, match="features must be finite"):
        loss(torch.full((1, 2, 2, 2), torch.nan), labels)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"spatial_dims": 4}, "spatial_dims must be 2 or 3, got 4"),
        ({"temperature": 0.0}, "temperature must be positive, got 0.0"),
        ({"num_anchors": 0}, "num_anchors must be positive, got 0"),
        ({"form": "inter"}, "form must be one of ('softmax', 'published'), got 'inter'"),
        ({"num_classes": 1}, "num_classes must be at least 2, background included, got 1"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(text)):
        ClassContrastiveLoss(**{"spatial_dims": 2, **options})
