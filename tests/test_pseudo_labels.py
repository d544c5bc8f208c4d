"""Labels made of predictions."""

import re
from typing import Any

import pytest
import torch
from scipy import ndimage

from monai_cl.transforms import PseudoLabels, keep_largest
from monai_cl.transforms.largest_component import on_cpu, on_device


def logits(seed: int = 0, classes: int = 3) -> torch.Tensor:
    return torch.randn(2, classes, 6, 7, generator=torch.Generator().manual_seed(seed))


def flood(labels: torch.Tensor, one: int, *, corners: bool) -> torch.Tensor:
    """Largest component of an image by flooding."""
    left = {tuple(place) for place in (labels == one).nonzero().tolist()}
    found: list[set[tuple[int, ...]]] = []
    for seed in sorted(left):
        if any(seed in component for component in found):
            continue
        component, edge = {seed}, [seed]
        while edge:
            i, j = edge.pop()
            for di, dj in [(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1) if corners or abs(a) + abs(b) == 1]:
                there = (i + di, j + dj)
                if there in left - component:
                    component.add(there)
                    edge.append(there)
        found.append(component)
    kept = torch.zeros_like(labels, dtype=torch.bool)
    for place in max(found, key=len, default=set()):
        kept[place] = True
    return kept


@pytest.mark.parametrize("connectivity", [1, 2, None])
@pytest.mark.parametrize("classes", [(), (1,), (1, 2)])
def test_the_largest_component_of_each_class_is_kept(connectivity: int | None, classes: tuple[int, ...]) -> None:
    labels = logits().argmax(1, keepdim=True)
    expected = labels.clone()
    for image in expected[:, 0]:
        for one in classes:
            image[(image == one) & ~flood(image, one, corners=connectivity != 1)] = 0
    found = keep_largest(labels, classes, connectivity)
    assert torch.equal(found, expected)
    assert found.dtype == labels.dtype
    if classes:
        assert not torch.equal(found, labels)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.45, 0.6])  # specks, at the point where they join, and one piece
@pytest.mark.parametrize(
    ("size", "connectivity"), [((40, 31), 1), ((40, 31), 2), *(((14, 9, 11), c) for c in (1, 2, 3))]
)
def test_components_of_a_device_are_those_of_scipy(size: tuple[int, ...], connectivity: int, share: float) -> None:
    made = torch.Generator().manual_seed(0)
    structure = ndimage.generate_binary_structure(len(size), connectivity)
    for classes in ([1], [1, 3], [3, 2, 1]):
        values = torch.rand(3, 1, *size, generator=made)
        labels = torch.where(values < share, 1 + (values < share / 3).long() + (values < share / 6).long(), 0)
        labels[2] = 0
        before = labels.clone()
        assert torch.equal(on_device(labels, classes, structure), on_cpu(labels, classes, structure))
        assert torch.equal(labels, before)


def test_a_long_winding_component_and_equal_ones_are_those_of_scipy() -> None:
    labels = torch.zeros(2, 1, 41, 40, dtype=torch.uint8)
    labels[0, 0, ::2] = 1  # a snake
    labels[0, 0, 1::4, -1] = labels[0, 0, 3::4, 0] = 1
    labels[1, 0, 5:8, 20:30], labels[1, 0, 20:23, 2:12] = 1, 1  # of one size: the first stays
    structure = ndimage.generate_binary_structure(2, 1)
    found = on_device(labels, [1], structure)
    assert torch.equal(found, on_cpu(labels, [1], structure))
    assert torch.equal(found[0], labels[0])
    assert found[1, 0, 5, 20] == 1
    assert found[1].sum() == 30
    assert torch.equal(on_device(labels, [], structure), labels)


@pytest.mark.parametrize("largest", [2, "2", [2], (2,)])
def test_one_class_may_be_given_as_a_number(largest: Any) -> None:
    assert PseudoLabels(3, largest=largest).largest == (2,)


def test_three_dimensions_and_empty_classes() -> None:
    labels = torch.zeros(1, 1, 4, 4, 4, dtype=torch.long)
    assert torch.equal(keep_largest(labels, [1, 2]), labels)
    labels[0, 0, 0, 0, 0], labels[0, 0, 2:, 2:, 2:] = 1, 1
    assert keep_largest(labels, [1]).sum() == 8


def test_the_likeliest_class_or_a_threshold_with_two_classes() -> None:
    given = logits(classes=2)
    share = given.softmax(1)[:, 1:]
    assert torch.equal(PseudoLabels(2, largest=[])(given)[0], (share > 0.5).long())
    for foreground in (0.3, 0.8):
        found = PseudoLabels(2, foreground=foreground, largest=[])(given)[0]
        assert torch.equal(found, (share >= foreground).long())


def test_uncertain_voxels_do_not_count() -> None:
    given = logits()
    labels, counts, confidence = PseudoLabels(3, confidence=0.6, largest=[])(given)
    assert torch.equal(labels, given.argmax(1, keepdim=True))
    assert torch.equal(counts, given.softmax(1).amax(1, keepdim=True) >= 0.6)
    assert torch.equal(confidence, given.softmax(1).amax(1, keepdim=True))
    assert bool(PseudoLabels(3)(given).certain.all())


def test_it_needs_no_gradient_and_no_full_precision() -> None:
    labels, counts, _ = PseudoLabels(3)(logits().requires_grad_().bfloat16())
    assert not labels.requires_grad
    assert counts.dtype == torch.bool


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"num_classes": 1}, "num_classes must be at least 2, background included, got 1"),
        (
            {"num_classes": 3, "foreground": 0.5},
            "between 0 and 1, with two classes, or None, got 0.5",
        ),
        ({"num_classes": 2, "foreground": 1.0}, "foreground must be between 0 and 1"),
        ({"num_classes": 2, "confidence": 1.0}, "confidence must be at least 0 and below 1, got 1.0"),
        ({"num_classes": 2, "connectivity": 0}, "connectivity must be at least 1, or None for corners too, got 0"),
        ({"num_classes": 3, "largest": 3}, "largest must list classes from 1 to 2, got [3]"),
        ({"num_classes": 3, "largest": [0]}, "largest must list classes from 1 to 2, got [0]"),
        ({"num_classes": 3, "largest": "every"}, "largest must be 'all', a class or a list of classes, got 'every'"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(text)):
        PseudoLabels(**options)


def test_other_logits_or_neighbours_than_there_are_axes_are_refused() -> None:
    with pytest.raises(ValueError, match="logits must have 4 channels, one a class"):
        PseudoLabels(4)(logits())
    with pytest.raises(ValueError, match="connectivity must be at most 2, the number of spatial axes, got 3"):
        PseudoLabels(3, connectivity=3)(logits())
