import pytest
import torch
from monai.networks.nets import BasicUNet, DynUNet, SegResNet, SwinUNETR, UNet
from torch import nn

from monai_cl.networks import (
    MomentumTeacher,
    Projector,
    cosine_momentum,
    encoder_features,
    encoder_modules,
    encoder_stride,
    input_channels,
    pool_pyramid,
    scheduled_momentum,
)

NETWORKS = {
    "segresnet": (lambda c: SegResNet(in_channels=c, out_channels=3), 32),
    "basic_unet": (lambda c: BasicUNet(in_channels=c, out_channels=3, features=(8, 8, 16, 16, 32, 8)), 32),
    "dynunet": (
        lambda c: DynUNet(3, c, 3, kernel_size=[3, 3, 3], strides=[1, 2, 2], upsample_kernel_size=[2, 2]),
        32,
    ),
    "unet": (lambda c: UNet(3, c, 3, channels=(8, 16, 32), strides=(2, 2), num_res_units=1), 32),
    "swin": (lambda c: SwinUNETR(in_channels=c, out_channels=3, feature_size=12), 64),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_of_the_features_reach_exactly_the_encoder(name: str) -> None:
    make, size = NETWORKS[name]
    network = make(2)
    assert input_channels(network) == 2
    pooled = pool_pyramid(encoder_features(network, torch.rand(2, 2, size, size, size)), 1)
    pooled.square().sum().backward()
    reached = {n for n, p in network.named_parameters() if p.grad is not None}
    inside = {id(p) for module in encoder_modules(network) for p in module.parameters()}
    assert reached <= {n for n, p in network.named_parameters() if id(p) in inside}
    # Swin's last stage is normalised for the decoder too; all but a few of the encoder's parameters are reached
    assert len(reached) >= 0.9 * len(inside)
    assert len(reached) < len(list(network.parameters()))


@pytest.mark.parametrize("name", ["segresnet", "basic_unet", "dynunet", "unet"])
def test_features_are_those_of_the_full_forward_pass(name: str) -> None:
    network = NETWORKS[name][0](1).eval()
    seen: list[torch.Tensor] = []
    last = encoder_modules(network)[-1]
    last = last[-1] if isinstance(last, nn.ModuleList) else last
    handle = last.register_forward_hook(lambda module, inputs, output: seen.append(output))
    x = torch.rand(1, 1, 32, 32, 32)
    with torch.no_grad():
        network(x)
        full = seen[0]
        handle.remove()
        torch.testing.assert_close(encoder_features(network, x)[-1], full)


def test_an_unknown_network_lists_the_known() -> None:
    with pytest.raises(ValueError, match=r"MONAI's .*SegResNetDS, .*UNETR, UNet, or AnatomixUNet, .*got Linear"):
        encoder_features(nn.Linear(1, 1), torch.rand(1, 1))
    with pytest.raises(ValueError, match="has no convolution"):
        input_channels(nn.Linear(1, 1))


@pytest.mark.parametrize("name", NETWORKS)
def test_the_stride_is_that_of_the_coarsest_map(name: str) -> None:
    make, size = NETWORKS[name]
    network = make(1).eval()
    with torch.no_grad():
        coarsest = encoder_features(network, torch.rand(1, 1, size, size, size))[-1]
    assert encoder_stride(network, 3) == tuple(size // s for s in coarsest.shape[2:])


def test_strides_may_differ_between_axes() -> None:
    flat = DynUNet(3, 1, 2, kernel_size=[3] * 3, strides=[1, (2, 2, 1), 2], upsample_kernel_size=[(2, 2, 1), 2])
    assert encoder_stride(flat, 3) == (4, 4, 2)
    assert encoder_stride(UNet(2, 1, 2, channels=(4, 4, 4), strides=(2, (4, 2))), 2) == (8, 4)


def test_the_deepest_level_is_the_last_stage_of_a_transformer_and_the_last_map_of_others() -> None:
    network = SwinUNETR(
        1, 2, feature_size=12, depths=(1,) * 4, num_heads=(1,) * 4, window_size=4, spatial_dims=2
    ).eval()
    x = torch.rand(1, 1, 64, 64)
    (deepest,) = encoder_features(network, x, levels="deepest")
    torch.testing.assert_close(deepest, network.swinViT(x, True)[-1])
    assert encoder_modules(network, levels="deepest") == [network.swinViT]
    other = SegResNet(2)
    torch.testing.assert_close(encoder_features(other, x, levels="deepest")[0], encoder_features(other, x)[-1])
    assert encoder_modules(other, levels="deepest") == encoder_modules(other)
    with pytest.raises(ValueError, match=r"levels must be one of \('all', 'deepest'\), got 'first'"):
        encoder_features(other, x, levels="first")


def test_pooling_to_one_cell_is_the_average() -> None:
    maps = [torch.rand(2, 3, 4, 5, 6), torch.rand(2, 7, 2, 2, 2)]
    expected = torch.cat([m.mean(dim=(2, 3, 4)) for m in maps], dim=1)
    torch.testing.assert_close(pool_pyramid(maps, 1), expected)
    assert pool_pyramid(maps, 2).shape == (2, (3 + 7) * 8)


def test_layer_norm_projector_treats_rows_one_by_one_and_batch_norm_does_not() -> None:
    x = torch.rand(5, 8)
    layer, batch = (Projector(8, 16, 4, norm=norm) for norm in ("layer", "batch"))
    torch.testing.assert_close(layer(x)[:2], layer(x[:2]))
    assert not torch.allclose(batch(x)[:2], batch(x[:2]))
    torch.testing.assert_close(batch(x), batch.eval()(x))  # batch statistics in evaluation too
    with pytest.raises(ValueError, match="norm must be 'batch' or 'layer', got 'group'"):
        Projector(8, 16, 4, norm="group")


def test_teacher_starts_as_a_copy_and_approaches_by_powers_of_the_momentum() -> None:
    student = nn.Linear(3, 2)
    teacher = MomentumTeacher(student)
    start = teacher.module.weight.clone()
    torch.testing.assert_close(start, student.weight)
    with torch.no_grad():
        student.weight.add_(1.0)
    for _ in range(4):
        teacher.update(student, 0.9)
    torch.testing.assert_close(student.weight - teacher.module.weight, torch.full((2, 3), 0.9**4))


def test_teacher_has_no_gradient_stays_in_evaluation_and_copies_buffers() -> None:
    student = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    teacher = MomentumTeacher(student)
    student.train()
    teacher.train()
    student(torch.rand(6, 3))
    teacher.update(student, 1.0)
    assert not teacher.module.training
    assert not any(p.requires_grad for p in teacher.parameters())
    assert not teacher(torch.rand(2, 3)).requires_grad
    torch.testing.assert_close(teacher.module[1].running_mean, student[1].running_mean)
    with pytest.raises(ValueError, match=r"momentum must be between 0 and 1, got 1.1"):
        teacher.update(student, 1.1)


def test_statistics_of_batch_norm_follow_like_parameters_where_asked() -> None:
    student = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    teacher = MomentumTeacher(student, average_buffers=True)
    before = teacher.module[1].running_var.clone()
    student.train()
    student(5 * torch.rand(6, 3))
    teacher.update(student, 0.75)
    expected = 0.75 * before + 0.25 * student[1].running_var
    torch.testing.assert_close(teacher.module[1].running_var, expected)
    assert teacher.module[1].num_batches_tracked == student[1].num_batches_tracked == 1


def test_momentum_rises_along_half_a_cosine() -> None:
    assert cosine_momentum(0.0, 0.99) == pytest.approx(0.99)
    assert cosine_momentum(0.5, 0.99) == pytest.approx(0.995)
    assert cosine_momentum(1.0, 0.99) == pytest.approx(1.0)
    assert cosine_momentum(2.0, 0.99) == pytest.approx(1.0)


def test_a_constant_momentum_stays() -> None:
    assert [scheduled_momentum(p, 0.9, "constant") for p in (0.0, 0.5, 1.0)] == [0.9] * 3
    assert scheduled_momentum(0.5, 0.99, "cosine") == cosine_momentum(0.5, 0.99)
    with pytest.raises(ValueError, match="schedule must be 'constant' or 'cosine', got 'linear'"):
        scheduled_momentum(0.5, 0.9, "linear")
