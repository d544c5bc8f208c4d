"""Anatomical invariance: its columns, its teacher, its terms, and that it learns what two patients share."""

import math
from typing import Any

import pytest
import torch
from monai.networks.nets import UNet
from torch import Tensor, nn

from monai_cl.engine import adamw
from monai_cl.methods import AlignedDistillationTerm, AnatomicalInvariance, ColumnMask, Method, column_mask

SMALL = {"heads": 2, "head_features": 4, "hidden": 16, "bottleneck": 8, "prototypes": 12}


def network() -> nn.Module:
    return UNet(spatial_dims=3, in_channels=1, out_channels=2, channels=(4, 8, 8), strides=(2, 2))


def method(**options: Any) -> AnatomicalInvariance:
    torch.manual_seed(0)
    return AnatomicalInvariance(network(), 8, **{**SMALL, **options})


def views(seed: int = 0, b: int = 2) -> dict[str, Any]:
    return {"image": torch.rand(b, 2, 1, 8, 8, 8, generator=torch.Generator().manual_seed(seed))}


@pytest.mark.parametrize(("size", "columns"), [((8, 8, 5), 4), ((9, 7, 3), 4), ((8, 6), 4)])
def test_whole_columns_are_hidden_and_as_many_in_each_image(size: tuple[int, ...], columns: int) -> None:
    torch.manual_seed(0)
    hidden = column_mask(torch.zeros(6, 2, *size), ratio=0.75, columns=columns)
    assert hidden.shape == (6, 1, *size)
    assert torch.equal(hidden.any(-1), hidden.all(-1))
    edges = [-(-n // columns) for n in size[:-1]]
    for image in hidden[:, 0]:
        cells = {tuple(p // e for p, e in zip(place[:-1], edges, strict=True)) for place in image.nonzero().tolist()}
        shown = {tuple(p // e for p, e in zip(place[:-1], edges, strict=True)) for place in (~image).nonzero().tolist()}
        assert not cells & shown
    if all(n % columns == 0 for n in size[:-1]):
        share = math.ceil(0.75 * columns ** len(edges)) / columns ** len(edges)
        assert torch.allclose(hidden.float().flatten(1).mean(1), torch.tensor(share))
    assert not torch.equal(hidden[0], hidden[1])


def test_the_teacher_is_the_running_mean_of_the_student_after_three_steps() -> None:
    learning = method(momentum=0.9)
    optimizer = adamw(learning, 0.01)
    assert learning.teacher is not None
    expected = {n: p.detach().clone() for n, p in learning._followed().named_parameters()}
    for step in range(3):
        optimizer.zero_grad()
        learning(views(step))["loss"].backward()
        optimizer.step()
        learning.after_step((step + 1) / 10)
        m = 1 - 0.1 * (1 + math.cos(math.pi * (step + 1) / 10)) / 2
        for name, p in learning._followed().named_parameters():
            expected[name] = m * expected[name] + (1 - m) * p.detach()
    for name, p in learning.teacher.module.named_parameters():
        assert not p.requires_grad
        assert p.grad is None
        torch.testing.assert_close(p, expected[name])


def test_the_centre_is_the_running_mean_of_what_the_teacher_answers_to_whole_views() -> None:
    learning, seen = method(), []
    term: Any = learning.terms["alignment"]
    twin: Any = learning.teacher.module.terms["alignment"]  # type: ignore[union-attr]
    twin.head.register_forward_hook(lambda module, inputs, output: seen.append(output.clone()))
    learning(views())
    pooled, tokens = seen
    torch.testing.assert_close(term.loss.center, 0.1 * pooled.mean(0))
    torch.testing.assert_close(term.loss.token_center, 0.1 * tokens.mean((0, 1)))


def test_the_student_sees_masked_views_once_and_the_teacher_whole_ones() -> None:
    learning, seen = method(), {"student": [], "teacher": []}
    copy: Any = learning.teacher.module.network  # type: ignore[union-attr]
    for name, of in (("student", learning.network), ("teacher", copy)):
        of.register_forward_hook(lambda module, inputs, output, name=name: seen[name].append(inputs[0]))
    batch = views()
    learning(batch)
    assert [len(calls) for calls in seen.values()] == [1, 1]
    given = batch["image"].flatten(0, 1)
    assert torch.equal(seen["teacher"][0], given)
    masked: Tensor = seen["student"][0]
    hidden = masked != given
    assert torch.equal(hidden.any(-1), hidden.all(-1))
    assert float(hidden.float().mean()) == pytest.approx(0.75)


def test_the_loss_is_the_weighted_sum_and_signals_of_pairs_are_told() -> None:
    found = method()({**views(), "rejected": torch.tensor([2, 4]), "likeness": torch.tensor([0.5, 0.9])})
    torch.testing.assert_close(found["loss"], found["alignment"] + 10 * found["reconstruction"])
    torch.testing.assert_close(found["alignment"], found["views"] + found["tokens"])
    assert float(found["rejected"]) == 3
    assert float(found["likeness"]) == pytest.approx(0.7)
    assert 1 <= float(found["target_dimensions"]) <= 12


def test_all_voxels_are_restored_by_half_the_squared_error() -> None:
    learning = method(mask=Nothing(), alignment_weight=0.0)
    term: Any = learning.terms["reconstruction"]
    with torch.no_grad():
        term.head.weight.zero_()
        term.head.bias.fill_(0.25)
    batch = views()
    found = learning(batch)
    torch.testing.assert_close(found["reconstruction"], ((batch["image"] - 0.25) ** 2).mean() / 2)


class Nothing(nn.Module):
    """Hides a single voxel."""

    def forward(self, images: Tensor) -> Tensor:
        return (torch.arange(images.numel()) == 0).reshape(images.shape)


def test_the_temperature_of_the_teacher_follows_the_progress_and_a_checkpoint_keeps_it() -> None:
    learning = method(loss={"teacher_temperature": (0.02, 0.2), "warmup": 0.5})
    first = learning.eval()(views())["target_entropy"]
    learning.after_step(0.9)
    later = learning(views())["target_entropy"]
    assert later > first
    again = method(loss={"teacher_temperature": (0.02, 0.2), "warmup": 0.5})
    again.load_state_dict(learning.state_dict())
    assert float(again.terms["alignment"].progress) == 0.9  # type: ignore[arg-type]


def test_terms_are_of_use_in_a_method_without_a_teacher() -> None:
    torch.manual_seed(0)
    found = Method(network(), {"alignment": AlignedDistillationTerm(ColumnMask(), **SMALL)})(views())
    assert found["loss"].isfinite()


def test_one_view_alone_and_masks_of_nothing_or_all_are_refused() -> None:
    with pytest.raises(ValueError, match=r"student must be answers \(B, V, 12\) of two views or more"):
        method()({"image": views()["image"][:, :1]})
    for ratio in (0.0, 1.0):
        with pytest.raises(ValueError, match="mask_ratio must be between 0 and 1"):
            method(mask_ratio=ratio)
    with pytest.raises(ValueError, match="prototypes must be at least 1, got 0"):
        method(prototypes=0)


def test_training_makes_partners_the_nearest_of_all() -> None:
    g = torch.Generator().manual_seed(0)
    anatomy = torch.nn.functional.interpolate(torch.rand(6, 1, 2, 2, 2, generator=g), scale_factor=4, mode="trilinear")

    def batch(seed: int) -> dict[str, Any]:
        patients = torch.Generator().manual_seed(seed)
        image = anatomy[:, None].expand(6, 2, 1, 8, 8, 8)
        return {"image": image + 0.3 * torch.rand(6, 2, 1, 8, 8, 8, generator=patients)}

    learning = method(momentum=0.9, columns=2, loss={"teacher_temperature": 0.04})
    optimizer = adamw(learning, 0.01)
    before = learning.probe([batch(1000)])
    for step in range(60):
        optimizer.zero_grad()
        learning(batch(step))["loss"].backward()
        optimizer.step()
        learning.after_step(step / 60)
    after = learning.probe([batch(1000)])
    assert float(before["pair_retrieval"]) < 0.5
    assert float(after["pair_retrieval"]) > 0.8
