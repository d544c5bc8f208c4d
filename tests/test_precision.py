"""Mixed precision on a CPU: gradients near those of float32 on maps of any size, and losses in float32."""

import logging

import pytest
import torch
from monai.networks.nets import DynUNet
from torch import Tensor, nn

from monai_cl.engine import precision as module
from monai_cl.engine.precision import PrecisionInferer, choose_precision, computes_in_bf16, supervised_precision

CPU = torch.device("cpu")
SIZES = [(2, 2, 2), (3, 2, 1), (4, 4, 4), (6, 5, 3)]


def _gradients(layer: nn.Module, image: Tensor, precision: str) -> tuple[Tensor, ...]:
    image = image.clone().requires_grad_()
    with choose_precision(precision, CPU).autocast():
        output = layer(image)
    torch.manual_seed(1)
    weights = torch.randn(output.shape)
    return torch.autograd.grad((output.float() * weights).sum(), [image, *layer.parameters()])


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("last", [False, True], ids=["channels first", "channels last"])
def test_gradients_on_a_cpu_are_near_those_of_full_precision(size: tuple[int, ...], stride: int, last: bool) -> None:
    torch.manual_seed(0)
    layout = torch.channels_last_3d if last else torch.contiguous_format
    layer = nn.Conv3d(64, 64, 3, stride, 1).to(memory_format=layout)  # type: ignore[call-overload]
    image = torch.randn(2, 64, *size).to(memory_format=layout)
    for half, full in zip(_gradients(layer, image, "bf16"), _gradients(layer, image, "fp32"), strict=True):
        torch.testing.assert_close(half, full, rtol=0, atol=0.02 * float(full.norm() / full.numel() ** 0.5) * 4)


def test_maps_of_usual_size_are_computed_in_half_precision() -> None:
    layer, image = nn.Conv2d(1, 8, 3), torch.randn(1, 1, 16, 16)
    with choose_precision("bf16", CPU).autocast():
        assert layer(image).dtype == torch.bfloat16
        assert layer(image[..., :3, :3]).dtype == torch.float32
    assert layer(image).dtype == torch.float32


def test_an_inferer_in_half_precision_gives_maps_in_float32_also_under_deep_supervision() -> None:
    network = DynUNet(2, 1, 2, [3, 3, 3], [1, 2, 2], [2, 2], filters=[4, 8, 8], deep_supervision=True, deep_supr_num=1)
    run = PrecisionInferer(None, choose_precision("bf16", CPU))
    assert run(torch.randn(1, 1, 16, 16), network).dtype == torch.float32
    assert run(torch.randn(1, 1, 16, 16), network.eval()).dtype == torch.float32


def test_trainers_of_monai_take_its_own_mixed_precision_on_a_gpu() -> None:
    assert supervised_precision("auto", torch.device("cuda")).name == "fp16"
    assert supervised_precision("fp32", torch.device("cuda")).name == "fp32"
    assert supervised_precision("auto", CPU).name == "fp32"


@pytest.mark.parametrize("native", [True, False])
def test_half_precision_on_a_cpu_that_does_not_compute_in_it_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, native: bool
) -> None:
    monkeypatch.setattr(module, "computes_in_bf16", lambda: native)
    with caplog.at_level(logging.WARNING, "monai_cl"):
        assert choose_precision("auto", CPU).name == "fp32"
        assert choose_precision("fp32", CPU).name == "fp32"
        assert not caplog.text
        assert choose_precision("bf16", CPU).name == "bf16"
    assert ("precision bf16 is many times slower than fp32 on this CPU" in caplog.text) is not native


@pytest.mark.parametrize(("avx", "amx"), [(False, False), (True, False), (False, True)])
def test_a_processor_computes_in_half_precision_by_avx512_or_amx(
    monkeypatch: pytest.MonkeyPatch, avx: bool, amx: bool
) -> None:
    monkeypatch.setattr(module.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    assert computes_in_bf16() is (avx or amx)
