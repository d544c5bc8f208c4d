import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from monai.networks.nets import BasicUNet, DynUNet, SegResNet, SwinUNETR, UNet
from torch import Tensor, nn

from monai_cl.engine import adamw
from monai_cl.losses import VolumeContrastLoss
from monai_cl.methods import PositionTerm, VolumeContrast
from monai_cl.transforms import VolumeContrastCrops


def batch(b: int = 2, size: int = 16, channels: int = 1, base: int | None = None) -> dict[str, Any]:
    crops = VolumeContrastCrops((2, 2, 1), (size,) * 3, 3, base_size=None if base is None else (base,) * 3)
    items = [crops.set_random_state(seed=i)(torch.rand(channels, 40, 40, 24)) for i in range(b)]
    return {"image": {k: torch.stack([item[k] for item in items]) for k in items[0]}}


def term(method: VolumeContrast) -> PositionTerm:
    found = method.terms["position"]
    assert isinstance(found, PositionTerm)
    return found


def projector(method: VolumeContrast) -> nn.Sequential:
    found = term(method).projector
    assert isinstance(found, nn.Sequential)
    return found


def embedded(method: VolumeContrast, x: Tensor) -> Tensor:
    return term(method).project(term(method).pool(method._extractors()["image"](x)))


SIGNALS = {
    "position_accuracy", "embedding_std", "positive_cosine", "negative_cosine", "dead_pairs", "teacher_gap",
}  # fmt: skip


def test_losses_are_named_and_only_encoder_and_projector_learn() -> None:
    method = VolumeContrast(SegResNet(out_channels=3), 16)
    losses = method(batch())
    assert {"loss", "positive", "negative", "inter", "regularizer"} | SIGNALS == set(losses)
    losses["loss"].backward()
    with_gradient = {n for n, p in method.named_parameters() if p.grad is not None}
    assert with_gradient == {n for n, p in method.named_parameters() if p.requires_grad}
    assert all(n.startswith(("network.", "terms.position.projector.")) for n in with_gradient)
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
        for p in method._followed().parameters():
            p.add_(1.0)
    method(batch())
    assert all(torch.equal(a, b) for a, b in zip(before, method.teacher.parameters(), strict=True))
    method.after_step(0.0)
    moved = [b - a for a, b in zip(before, method.teacher.parameters(), strict=True)]
    assert all(torch.allclose(m, torch.full_like(m, 0.5), atol=1e-5) for m in moved)


def swin(channels: int, *, use_v2: bool, spatial_dims: int = 3) -> SwinUNETR:
    small = {"depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1), "window_size": 4}
    return SwinUNETR(channels, 2, feature_size=12, use_v2=use_v2, spatial_dims=spatial_dims, **small)


NETWORKS: dict[str, tuple[Callable[[int], nn.Module], int]] = {
    "SegResNet": (lambda c: SegResNet(3, in_channels=c, out_channels=2), 16),
    "UNet": (lambda c: UNet(3, c, 2, channels=(8, 8, 8), strides=(2, 2), num_res_units=1), 16),
    "BasicUNet": (lambda c: BasicUNet(3, c, 2, features=(8,) * 6), 32),
    "DynUNet": (
        lambda c: DynUNet(
            3,
            c,
            2,
            kernel_size=[3] * 3,
            strides=[1, 2, (2, 2, 1)],
            upsample_kernel_size=[2, (2, 2, 1)],
            filters=[8] * 3,
        ),
        16,
    ),
    "SwinUNETR in 2-D": (lambda c: swin(c, use_v2=False, spatial_dims=2), 64),
    "SwinUNETR v2 in 2-D": (lambda c: swin(c, use_v2=True, spatial_dims=2), 64),
}


def noise(network_dims: int, size: int, channels: int, *, b: int = 2, s: int = 2, k: int = 3) -> dict[str, Any]:
    shape = (channels, *(size,) * network_dims)
    views = {"crops": torch.rand(b, s, *shape), "bases": torch.rand(b, k, *shape)}
    return {"image": {**views, "overlap": torch.rand(b, s, k).softmax(-1)}}


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("name", NETWORKS)
def test_other_networks_and_channels_need_no_further_settings(name: str, channels: int) -> None:
    make, size = NETWORKS[name]
    method = VolumeContrast(make(channels), size, hidden=16, embedding=8)
    losses = method(noise(2 if "2-D" in name else 3, size, channels))
    losses["loss"].backward()
    assert bool(losses["loss"].isfinite())
    assert all(p.grad is not None for p in method.parameters() if p.requires_grad)


@pytest.mark.parametrize(("use_v2", "channels"), [(True, 1), (False, 2)])
def test_swin_unetr_in_three_dimensions(use_v2: bool, channels: int) -> None:
    method = VolumeContrast(swin(channels, use_v2=use_v2), 64, hidden=16, embedding=8)
    losses = method(noise(3, 64, channels, s=1, k=1))
    losses["loss"].backward()
    assert bool(losses["loss"].isfinite())
    assert all(p.grad is not None for p in method.parameters() if p.requires_grad)


def test_bases_may_have_another_size_than_crops() -> None:
    losses = VolumeContrast(SegResNet(out_channels=2), 16)(batch(base=20))
    assert bool(losses["loss"].isfinite())


def test_views_that_do_not_fit_the_network_are_refused_by_name() -> None:
    method = VolumeContrast(UNet(3, 1, 2, channels=(4, 8, 8), strides=(2, 2)), 16)
    with pytest.raises(ValueError, match=r"base_size \(4, 4, 4\) cannot pass through UNet.*multiples"):
        method({"image": {**batch()["image"], "bases": torch.rand(2, 4, 1, 4, 4, 4)}})
    with pytest.raises(ValueError, match=r"must have the 1 input channels of UNet, got 2; .* in_channels=2"):
        method({"image": {**batch()["image"], "crops": torch.rand(2, 3, 2, 16, 16, 16)}})


REFUSED = {
    "SwinUNETR's decoder": (lambda: swin(1, use_v2=True), 48, r"by \(32, 32, 32\).*as with \(64, 64, 64\)"),
    "UNet's decoder": (lambda: UNet(3, 1, 2, channels=(4, 4, 4), strides=(2, 2)), 18, r"as with \(20, 20, 20\)"),
    "SegResNet's decoder": (lambda: SegResNet(out_channels=2), 4, r"by \(8, 8, 8\).*as with \(16, 16, 16\)"),
    "SwinUNETR": (lambda: swin(1, use_v2=True), 32, r"by \(32, 32, 32\).*as with \(64, 64, 64\)"),
    "SegResNet": (lambda: SegResNet(norm="instance"), 8, r"by \(8, 8, 8\).*as with \(16, 16, 16\)"),
    "UNet": (lambda: UNet(3, 1, 2, channels=(4, 4, 4), strides=(4, 2)), 4, r"by \(8, 8, 8\).*as with \(16, 16, 16\)"),
    "BasicUNet": (lambda: BasicUNet(3, 1, 2), (16, 16, 16), r"by \(16, 16, 16\).*as with \(32, 32, 32\)"),
    "DynUNet": (
        lambda: DynUNet(3, 1, 2, kernel_size=[3] * 3, strides=[1, 2, (2, 2, 1)], upsample_kernel_size=[2, (2, 2, 1)]),
        (4, 4, 2),
        r"by \(4, 4, 2\).*as with \(8, 8, 4\)",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_crop_the_network_cannot_take_stops_at_the_start(name: str) -> None:
    make, size, allowed = REFUSED[name]
    shown = size if isinstance(size, tuple) else (size,) * 3
    shape = re.escape(str(shown))
    told = f"crop_size {shape} cannot pass through {name.split(chr(39))[0]}:.*{allowed}, got {shape}.*larger"
    with pytest.raises(ValueError, match=told):
        VolumeContrast(make(), size)


@pytest.mark.parametrize("size", [(64, 64), 0, (16, 16, -16)])
def test_a_crop_size_of_other_dimensions_is_refused(size: Any) -> None:
    with pytest.raises(ValueError, match="crop_size must be one positive number or 3 of them for this SegResNet"):
        VolumeContrast(SegResNet(), size)


def test_an_unknown_network_is_named() -> None:
    with pytest.raises(ValueError, match="network must be one of MONAI's"):
        VolumeContrast(torch.nn.Conv3d(1, 1, 3), 16)


def test_dropout_acts_in_training_only() -> None:
    method = VolumeContrast(SegResNet(out_channels=2), 16, dropout=0.5, norm="layer")
    x = torch.rand(4, 1, 16, 16, 16)
    method.eval()
    torch.testing.assert_close(embedded(method, x), embedded(method, x))
    method.train()
    assert not torch.allclose(embedded(method, x), embedded(method, x))


def tiny(variant: str, **options: Any) -> VolumeContrast:
    """A published arrangement with narrow layers."""
    torch.manual_seed(0)
    network = SegResNet(in_channels=1, out_channels=2, init_filters=8, blocks_down=(1, 1), blocks_up=(1,))
    return VolumeContrast(network, 8, variant=variant, **{"hidden": 16, "embedding": 8, **options})


PUBLISHED = {
    "cvpr": ("none", 2048, 2048),
    "10k": ("network", 2048, 2048),
    "v2": ("projector", 1024, 1024),
}


@pytest.mark.parametrize("variant", PUBLISHED)
def test_a_published_variant_brings_its_teacher_widths_and_loss(variant: str) -> None:
    kind, hidden, embedding = PUBLISHED[variant]
    method = VolumeContrast(SegResNet(init_filters=8, blocks_down=(1, 1), blocks_up=(1,)), 8, variant=variant)
    linear = [m for m in projector(method) if isinstance(m, nn.Linear)]
    assert [m.out_features for m in linear] == [hidden, hidden, embedding]
    norms = [m for m in projector(method) if isinstance(m, nn.BatchNorm1d)]
    assert [(n.affine, n.track_running_stats) for n in norms] == [(False, False)] * 2
    assert term(method).loss.variant == variant
    assert term(method).arrangement.teacher == kind
    assert term(method).arrangement.pool_size == 1
    parts = {name.split(".")[2] for name in method.state_dict() if name.startswith("teacher.module.")}
    assert parts == {"none": set(), "network": {"network", "terms"}, "projector": {"terms"}}[kind]


def test_the_widths_of_the_pooled_features_are_the_published_ones() -> None:
    network = swin(1, use_v2=False, spatial_dims=2)
    for variant, width in (("cvpr", 16 * 12), ("10k", 24 * 12), ("v2", 24 * 12)):
        assert projector(VolumeContrast(network, 64, variant=variant, hidden=8))[0].in_features == width


def test_the_first_variant_trains_the_transformer_alone() -> None:
    method = VolumeContrast(swin(1, use_v2=False, spatial_dims=2), 64, variant="cvpr", hidden=8, embedding=4)
    method(noise(2, 64, 1))["loss"].backward()
    reached = {name for name, p in method.network.named_parameters() if p.grad is not None}
    assert reached == set(method.touched()) == {n for n, _ in method.network.named_parameters() if "swinViT" in n}


def test_a_loss_brings_the_arrangement_of_its_variant_and_options_win() -> None:
    network = SegResNet(init_filters=8, blocks_down=(1, 1), blocks_up=(1,))
    method = VolumeContrast(network, 8, loss=VolumeContrastLoss("v2", link="signed"), momentum=0.5, hidden=8)
    assert term(method).arrangement.teacher == "projector"
    assert term(method).arrangement.momentum == 0.5
    assert projector(method)[0].out_features == 8
    assert term(VolumeContrast(network, 8, variant="10k", loss=VolumeContrastLoss())).arrangement.teacher == "network"


def test_a_teacher_of_the_projector_needs_no_second_pass_through_the_encoder() -> None:
    for variant, passes in (("cvpr", 1), ("10k", 2), ("v2", 1)):
        method, calls = tiny(variant), []
        modules = [method.network, *([method.teacher.module.network] if variant == "10k" else [])]  # type: ignore[union-attr]
        for module in modules:
            module.convInit.register_forward_hook(lambda *args, calls=calls: calls.append(1))
        method(noise(3, 8, 1))
        assert len(calls) == passes


def test_a_teacher_of_the_projector_sees_the_features_before_dropout() -> None:
    method, seen = tiny("v2", dropout=0.5, norm="layer"), []
    projector(method).register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    method.teacher.module.terms["position"].projector.register_forward_hook(
        lambda module, inputs, output: seen.append(inputs[0])
    )  # type: ignore[union-attr]
    method(noise(3, 8, 1, b=8))
    student, teacher = seen
    gone = (student == 0).all(1)
    assert 0 < int(gone.sum()) < len(gone)  # whole rows, as published
    assert not bool((teacher == 0).all(1).any())
    torch.testing.assert_close(student[~gone], 2 * teacher[~gone])


def test_row_dropout_acts_in_training_only() -> None:
    method = tiny("v2", dropout=0.5, norm="layer").eval()
    x = torch.rand(4, 1, 8, 8, 8)
    torch.testing.assert_close(embedded(method, x), embedded(method, x))


def test_momentum_is_constant_in_published_arrangements_and_rises_in_ours() -> None:
    for variant, expected in (("10k", 0.9), ("v2", 0.9), ("monai_cl", 1.0)):
        method = tiny(variant)
        before = [p.clone() for p in method.teacher.parameters()]  # type: ignore[union-attr]
        with torch.no_grad():
            for p in method._followed().parameters():
                p.add_(1.0)
        method.after_step(1.0)
        moved = [b - a for a, b in zip(before, method.teacher.parameters(), strict=True)]  # type: ignore[union-attr]
        assert all(torch.allclose(m, torch.full_like(m, 1 - expected), atol=1e-5) for m in moved)
    tiny("cvpr").after_step(1.0)  # has none to move


@pytest.mark.parametrize("variant", ["monai_cl", *PUBLISHED])
def test_a_probe_looks_in_evaluation_mode_and_leaves_the_mode(variant: str) -> None:
    method = tiny(variant, norm="layer")
    views = VolumeContrastCrops((2, 2, 1), (8, 8, 8), 2).set_random_state(seed=0)(torch.rand(1, 20, 20, 12))
    batch = {"image": {name: value[None] for name, value in views.items()}}
    first, second = method.probe([batch]), method.probe([batch])
    assert first.keys() == second.keys()
    assert all(torch.equal(torch.as_tensor(first[name]), torch.as_tensor(second[name])) for name in first)
    assert ("teacher_gap" in first) == ("teacher_distance" in first) == (variant != "cvpr")
    assert method.training
    assert term(method).training


@pytest.mark.parametrize("ids", [["liver", "brain", "liver", "brain"], torch.tensor([3, 1, 3, 1])])
def test_volumes_are_compared_within_their_group(ids: Any) -> None:
    method = tiny("v2", group_key="region", norm="layer", dropout=0.0)
    batch = {**noise(3, 8, 1, b=4), "region": ids}
    swapped = {k: v[[0, 2, 1, 3]] for k, v in batch["image"].items()}
    pairs = [{"image": {k: v[i : i + 2] for k, v in swapped.items()}, "region": ["x", "x"]} for i in (0, 2)]
    expected = sum(method(pair)["inter"].item() for pair in pairs) / 2
    assert method(batch)["inter"].item() == pytest.approx(expected, rel=1e-5)


def test_a_missing_group_is_named() -> None:
    with pytest.raises(ValueError, match=r"a batch must hold group_key 'region', got \['image'\]"):
        tiny("v2", group_key="region")(noise(3, 8, 1))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"variant": "v3"}, r"variant must be one of \('monai_cl', 'cvpr', '10k', 'v2'\), got 'v3'"),
        ({"teacher": "head"}, "teacher must be one of"),
        ({"momentum": 1.5}, r"momentum must be between 0 and 1, got 1\.5"),
        ({"momentum_schedule": "linear"}, "momentum_schedule must be one of"),
        ({"levels": "some"}, "levels must be one of"),
        ({"norm": "group"}, "norm must be one of"),
        ({"dropout": 1.0}, r"dropout must be at least 0 and below 1, got 1\.0"),
        ({"dropout_kind": "channel"}, "dropout_kind must be one of"),
        ({"hidden": 0}, "hidden must be at least 1, got 0"),
    ],
)
def test_a_wrong_option_is_named_with_the_known(option: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VolumeContrast(SegResNet(), 16, **option)


@pytest.mark.slow
def test_position_accuracy_rises_well_above_chance_on_structured_volumes() -> None:
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


@pytest.mark.parametrize("variant", ["monai_cl", *PUBLISHED])
def test_bases_without_gradient_teach_the_projector_alone_and_are_embedded_as_before(variant: str) -> None:
    views, options = noise(3, 8, 1, b=3)["image"], {"norm": "layer", "dropout": 0.0}
    crops, bases = views["crops"], views["bases"]
    usual, without = (tiny(variant, bases_without_gradient=flag, **options) for flag in (False, True))
    (expected, _), (student, _) = (
        term(one).embed(one._extractors()["image"], crops, bases) for one in (usual, without)
    )
    torch.testing.assert_close(student.crops, expected.crops)
    torch.testing.assert_close(student.bases, expected.bases)  # the teacher is a copy still
    parameters = {name: p for name, p in without.named_parameters() if p.requires_grad}
    sent = torch.autograd.grad(student.bases.square().sum(), list(parameters.values()), allow_unused=True)
    reached = {name for name, gradient in zip(parameters, sent, strict=True) if gradient is not None and gradient.any()}
    assert reached == {name for name in parameters if "projector" in name}
    without({"image": views})["loss"].backward()
    assert {name for name, p in without.network.named_parameters() if p.grad is not None} == set(without.touched())


def test_bases_without_gradient_spare_the_student_their_pass() -> None:
    method, images = tiny("10k", bases_without_gradient=True), []
    method.network.convInit.register_forward_hook(lambda module, inputs, output: images.append(len(inputs[0])))
    method(noise(3, 8, 1, b=1, s=2, k=3))
    assert images == [2]
