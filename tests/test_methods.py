from typing import Any

import pytest
import torch
from monai.networks.nets import BasicUNet, SegResNet, SwinUNETR

from monai_cl.methods import VolumeContrast
from monai_cl.transforms import VolumeContrastCrops


def batch(b: int = 2, size: int = 16, channels: int = 1, base: int | None = None) -> dict[str, Any]:
    crops = VolumeContrastCrops((2, 2, 1), (size,) * 3, 3, base_size=None if base is None else (base,) * 3)
    items = [crops.set_random_state(seed=i)(torch.rand(channels, 40, 40, 24)) for i in range(b)]
    return {"image": {k: torch.stack([item[k] for item in items]) for k in items[0]}}


def test_losses_are_named_and_only_encoder_and_projector_learn() -> None:
    method = VolumeContrast(SegResNet(out_channels=3), 16)
    losses = method(batch())
    assert {"loss", "positive", "negative", "inter", "regularizer", "position_accuracy", "embedding_std"} == set(losses)
    losses["loss"].backward()
    with_gradient = {n for n, p in method.named_parameters() if p.grad is not None}
    assert with_gradient == {n for n, p in method.named_parameters() if p.requires_grad}
    assert all(n.startswith("student.") for n in with_gradient)
    assert not any("up_layers" in n or "conv_final" in n for n in with_gradient)
    assert set(method.touched()) == {
        n for n, _ in method.network.named_parameters() if n.startswith(("convInit", "down"))
    }


def test_the_network_is_the_one_that_was_given() -> None:
    network = SegResNet(out_channels=3)
    assert VolumeContrast(network, 16).network is network


def test_the_teacher_moves_only_after_a_step() -> None:
    method = VolumeContrast(SegResNet(out_channels=3), 16, momentum=0.5)
    before = [p.clone() for p in method.teacher.parameters()]
    with torch.no_grad():
        for p in method.student.parameters():
            p.add_(1.0)
    method(batch())
    assert all(torch.equal(a, b) for a, b in zip(before, method.teacher.parameters(), strict=True))
    method.after_step(0.0)
    moved = [b - a for a, b in zip(before, method.teacher.parameters(), strict=True)]
    assert all(torch.allclose(m, torch.full_like(m, 0.5), atol=1e-5) for m in moved)


@pytest.mark.parametrize("channels", [1, 2])
def test_other_networks_and_channels_need_no_further_settings(channels: int) -> None:
    network = BasicUNet(in_channels=channels, out_channels=2, features=(8, 8, 8, 8, 8, 8))
    losses = VolumeContrast(network, (32, 32, 32))(batch(size=32, channels=channels))
    assert bool(losses["loss"].isfinite())


def test_bases_may_have_another_size_than_crops() -> None:
    losses = VolumeContrast(SegResNet(out_channels=2), 16)(batch(base=20))
    assert bool(losses["loss"].isfinite())


def test_a_crop_the_network_cannot_take_stops_at_the_start() -> None:
    with pytest.raises(ValueError, match=r"crop_size \(32, 32, 32\) cannot pass through SwinUNETR.*larger crop"):
        VolumeContrast(SwinUNETR(in_channels=1, out_channels=2, feature_size=12), 32)


def test_an_unknown_network_is_named() -> None:
    with pytest.raises(ValueError, match="network must be one of MONAI's"):
        VolumeContrast(torch.nn.Conv3d(1, 1, 3), 16)


def test_dropout_acts_in_training_only() -> None:
    method = VolumeContrast(SegResNet(out_channels=2), 16, dropout=0.5, norm="layer")
    x = torch.rand(4, 1, 16, 16, 16)
    method.eval()
    torch.testing.assert_close(method.student(x), method.student(x))
    method.train()
    assert not torch.allclose(method.student(x), method.student(x))


@pytest.mark.slow
def test_position_accuracy_rises_well_above_chance_on_structured_volumes() -> None:
    from monai_cl.engine import adamw

    torch.manual_seed(0)
    axes = torch.meshgrid(*[torch.linspace(0, 1, n) for n in (40, 40, 24)], indexing="ij")
    crops = VolumeContrastCrops((2, 2, 1), (16, 16, 16), 4).set_random_state(seed=0)
    method = VolumeContrast(SegResNet(out_channels=2), 16)
    optimizer = adamw(method, 1e-3)
    scores = []
    for step in range(150):
        volumes = [
            sum(a * w for a, w in zip(axes, (3, 2, 1), strict=True))[None] + 0.1 * torch.randn(1, 40, 40, 24)
            for _ in range(4)
        ]
        items = [crops(v) for v in volumes]
        losses = method({"image": {k: torch.stack([i[k] for i in items]) for k in items[0]}})
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
        method.after_step(step / 150)
        scores.append(losses["position_accuracy"].item())
    assert sum(scores[-20:]) / 20 > 0.5  # chance is 0.25
