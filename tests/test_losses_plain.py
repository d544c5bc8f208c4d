"""Losses of MetaTensors, which is what a network gives that was shown one."""

import copy
from typing import Any

import pytest
import torch
from monai.data import MetaTensor
from torch import Tensor, nn

from monai_cl import losses

Z, MAPS = (8, 6), (2, 4, 6, 6)
PARTITION, IMAGE, VOLUME, VIEW = (torch.tensor(row) for row in ([0, 1] * 4, [0, 0, 1, 1, 2, 2, 3, 3], [0] * 4 + [1] * 4,
                                                               [0, 1] * 4))  # fmt: skip
CASES: dict[str, tuple[nn.Module, list[tuple[int, ...]], tuple[Any, ...]]] = {
    "NTXentLoss": (losses.NTXentLoss(), [Z, Z], ()),
    "SymmetricInfoNCELoss": (losses.SymmetricInfoNCELoss(), [Z, Z], ()),
    "DecoupledContrastiveLoss": (losses.DecoupledContrastiveLoss(), [Z, Z], ()),
    "VICRegLoss": (losses.VICRegLoss(), [Z, Z], ()),
    "SupConLoss": (losses.SupConLoss(), [Z], (PARTITION,)),
    "PositionalContrastiveLoss": (losses.PositionalContrastiveLoss(), [Z], (PARTITION.float(),)),
    "PartitionContrastiveLoss": (losses.PartitionContrastiveLoss("gd"), [Z], (PARTITION, IMAGE, VOLUME, VIEW)),
    "CrossDomainSupConLoss": (losses.CrossDomainSupConLoss(), [Z], (PARTITION, VOLUME)),
    "SepCLRLoss": (losses.SepCLRLoss(), [Z, Z, Z, Z], (PARTITION,)),
    "SepVAELoss": (losses.SepVAELoss(), [(8, 1, 3, 3), (8, 1, 3, 3), Z, Z, Z, Z, (8,)], (PARTITION,)),
    "KernelJointEntropyLoss": (losses.KernelJointEntropyLoss(), [Z, Z], ()),
    "AttributeLoss": (losses.AttributeLoss(), [(8,)], (torch.linspace(0, 1, 8),)),
    "CACRLoss": (losses.CACRLoss(), [(3, 4, 6)], ()),
    "MeanShiftedContrastiveLoss": (losses.MeanShiftedContrastiveLoss(torch.linspace(0, 0.5, 6)), [Z, Z], ()),
    "KernelInfoNCELoss": (losses.KernelInfoNCELoss("sum"), [Z, Z], ()),
    "ClipLoss": (losses.ClipLoss(), [Z, Z], ()),
    "SigLipLoss": (losses.SigLipLoss(), [Z, Z], ()),
    "LocalRegionContrastiveLoss": (losses.LocalRegionContrastiveLoss(2), [MAPS, MAPS], ()),
    "CrossVolumeLocalContrastiveLoss": (
        losses.CrossVolumeLocalContrastiveLoss(2), [MAPS, MAPS], (torch.tensor([0, 0]), torch.tensor([0, 1])),
    ),
    "ClassContrastiveLoss": (losses.ClassContrastiveLoss(2), [MAPS], (torch.arange(72).reshape(2, 6, 6) % 3,)),
    "DenseContrastiveLoss": (losses.DenseContrastiveLoss(2, num_anchors=None), [MAPS, MAPS], ()),
    "SelfDistillationLoss": (
        losses.SelfDistillationLoss(6), [(4, 2, 6)], (torch.eye(6)[:4].reshape(2, 2, 6).repeat(2, 1, 1),),
    ),
    "VolumeContrastLoss": (
        losses.VolumeContrastLoss(), [(2, 3, 5), (2, 4, 5)], (torch.full((2, 3, 4), 0.25),),
    ),
}  # fmt: skip


def test_every_loss_is_here() -> None:
    assert set(CASES) == {name for name in losses.__all__ if name.endswith("Loss")}


@pytest.mark.parametrize("name", CASES)
def test_a_meta_tensor_gives_the_plain_value_and_gradient(name: str) -> None:
    loss, shapes, others = CASES[name]
    loss = copy.deepcopy(loss)
    generator = torch.Generator().manual_seed(0)
    plain = [torch.rand(shape, generator=generator, requires_grad=True) for shape in shapes]
    meta = [MetaTensor(p.detach().clone()).requires_grad_() for p in plain]
    expected, found = (_value(loss(*given, *others)) for given in (plain, meta))
    assert type(found) is Tensor
    assert torch.equal(found, expected)
    expected.backward()
    found.backward()
    for p, m in zip(plain, meta, strict=True):
        assert p.grad is not None
        assert p.grad.abs().sum() > 0
        assert m.grad is not None
        assert torch.equal(p.grad, m.grad)


def test_keywords_are_taken_as_plain_too() -> None:
    z = torch.rand(Z, generator=torch.Generator().manual_seed(0))
    found = losses.NTXentLoss()(z1=MetaTensor(z), z2=MetaTensor(z.flip(0)))
    assert type(found) is Tensor
    assert torch.equal(found, losses.NTXentLoss()(z, z.flip(0)))


def _value(result: Tensor | dict[str, Tensor]) -> Tensor:
    return result["loss"] if isinstance(result, dict) else result
