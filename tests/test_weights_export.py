"""Networks for other programs, read back by them."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.networks.nets import DynUNet, SegResNet
from safetensors import safe_open
from torch import Tensor, nn

from monai_cl.networks import encoder_features
from monai_cl.weights import (
    load_network,
    read_contract,
    save_encoder,
    save_for_nnunet,
    save_network,
    save_safetensors,
    start_from,
    transfer,
)


def dynunet(seed: int = 0, **options: Any) -> DynUNet:
    torch.manual_seed(seed)
    usual: dict[str, Any] = {"trans_bias": True, "strides": [1, (2, 2, 1), 2], "filters": [4, 8, 8]}
    return DynUNet(3, 1, 2, [3] * 3, upsample_kernel_size=[(2, 2, 1), 2], **{**usual, **options})


def turned(image: Tensor) -> Tensor:
    return image.permute(0, 1, 4, 3, 2)


def test_safetensors_hold_contract_and_receipt_and_each_tensor_once(tmp_path: Path) -> None:
    source = dynunet(1)
    torch.save(dynunet(2).state_dict(), tmp_path / "w.pt")
    start_from(source, tmp_path / "w.pt")
    save_safetensors(source, tmp_path / "out" / "w.safetensors", contract={"recipe": "small_mr", "touched": ["a"]})
    assert read_contract(tmp_path / "out" / "w.safetensors") == {"recipe": "small_mr", "touched": ["a"]}
    save_safetensors(source, tmp_path / "own.safetensors", contract={"recipe": Path("/home/mueller/mine.yaml")})
    assert read_contract(tmp_path / "own.safetensors") == {"recipe": "mine.yaml"}
    assert b"mueller" not in (tmp_path / "own.safetensors").read_bytes()
    with safe_open(tmp_path / "out" / "w.safetensors", framework="pt") as file:
        inside = json.loads(file.metadata()["monai_cl"])
        assert not [name for name in file.keys() if name.startswith("skip_layers")]  # noqa: SIM118
    assert inside["network"] == "DynUNet"
    assert inside["receipt"]["matched"] == len(list(source.parameters()))
    target = load_network(dynunet(3), tmp_path / "out" / "w.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(source.parameters(), target.parameters(), strict=True))


def test_nnunet_reads_the_plain_unet_and_gives_the_same_output(tmp_path: Path) -> None:
    pytest.importorskip("dynamic_network_architectures", reason="needs the extra `nnunet`")
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    source, path = dynunet(1).eval(), tmp_path / "w.pth"
    save_for_nnunet(source, path, patch_size=(32, 32, 16), recipe="ct_chest")
    content = torch.load(path, weights_only=True)
    plan = content["nnssl_adaptation_plan"]
    arguments = dict(plan["architecture_plans"]["arch_kwargs"])
    assert plan["architecture_plans"]["arch_class_name"] == "PlainConvUNet"
    for key in plan["architecture_plans"]["arch_kwargs_requiring_import"]:
        arguments[key] = getattr(nn, arguments[key].rsplit(".", maxsplit=1)[-1])
    target = PlainConvUNet(input_channels=1, num_classes=2, **arguments).eval()
    target.load_state_dict(content["network_weights"])  # strictly: nnU-Net loads its parts so
    image = torch.rand(1, 1, 32, 16, 8)
    with torch.no_grad():
        torch.testing.assert_close(turned(target(turned(image))), source(image), rtol=1e-4, atol=1e-5)
    assert target.key_to_encoder == plan["key_to_encoder"]
    assert target.key_to_stem == plan["key_to_stem"]
    assert list(target.keys_to_in_proj) == plan["keys_to_in_proj"]
    assert plan["pretrain_num_input_channels"] == 1
    assert plan["recommended_downstream_patchsize"] == [16, 32, 32]
    assert plan["pretrain_plan"]["configurations"]["pretrained"]["spacing"] == [5.0, 1.25, 1.25]
    assert "monai_cl" in content["citations"][0]["apa_citations"][0]
    assert {key for entry in content["citations"] for key in entry} == {"type", "name", "apa_citations"}


def test_a_file_for_nnunet_that_comes_back_is_called_ours_and_names_what_it_began_from(tmp_path: Path) -> None:
    source, path = dynunet(1), tmp_path / "w.pth"
    origin = {"source": "a lab", "licence": "CC BY 4.0", "free": True, "citation": ["arXiv 1"], "trained": "encoder"}
    save_network(source, tmp_path / "begun.pt", contract={"touched": ["a"], "origins": [origin]})
    start_from(source, tmp_path / "begun.pt")
    save_for_nnunet(source, path, patch_size=(32, 32, 16))
    citations = torch.load(path, weights_only=True)["citations"]
    assert citations[1]["name"] == "a lab"
    assert citations[1]["apa_citations"] == ["arXiv 1", "licence of these weights: CC BY 4.0"]
    receipt = transfer(dynunet(2), path)
    assert receipt.key_map == "nnunet_plain"
    assert [one.source for one in receipt.origins] == ["a pretraining by monai_cl, written for nnU-Net", "a lab"]


def test_nnunet_reads_the_residual_encoder(tmp_path: Path) -> None:
    pytest.importorskip("dynamic_network_architectures", reason="needs the extra `nnunet`")
    from dynamic_network_architectures.architectures.unet import ResidualEncoderUNet

    usual: dict[str, Any] = {"norm_op_kwargs": {"eps": 1e-5, "affine": True}, "nonlin_kwargs": {"inplace": True}}
    source = ResidualEncoderUNet(
        1, 3, [4, 8, 8], nn.Conv3d, 3, [1, (2, 2, 1), 2], [1, 2, 1], 2, 1, True, nn.InstanceNorm3d, nonlin=nn.LeakyReLU,
        **usual,
    )  # fmt: skip
    save_for_nnunet(source.eval(), tmp_path / "w.pth", patch_size=(16, 16, 8))
    content = torch.load(tmp_path / "w.pth", weights_only=True)
    arguments = dict(content["nnssl_adaptation_plan"]["architecture_plans"]["arch_kwargs"])
    for key in ("conv_op", "norm_op", "nonlin"):
        arguments[key] = getattr(nn, arguments[key].rsplit(".", maxsplit=1)[-1])
    target = ResidualEncoderUNet(input_channels=1, num_classes=2, **arguments).eval()
    target.load_state_dict(content["network_weights"])
    image = torch.rand(1, 1, 16, 16, 8)
    with torch.no_grad():
        torch.testing.assert_close(turned(target(turned(image))), source(image), rtol=1e-4, atol=1e-5)
    assert content["nnssl_adaptation_plan"]["pretrain_plan"]["configurations"]["pretrained"]["spacing"] is None
    assert transfer(source, content).key_map == "nnssl_resenc"


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (SegResNet(), r"fine-tunes its own networks, got SegResNet; pretrain a DynUNet"),
        (dynunet(trans_bias=False), "trans_bias must be True"),
        (dynunet(res_block=True), "res_block must be False"),
        (dynunet(norm_name="batch"), "norm_name must be"),
    ],
    ids=["class", "bias", "residual", "norm"],
)
def test_a_network_that_nnunet_has_not_is_refused(network: nn.Module, said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=said):
        save_for_nnunet(network, tmp_path / "w.pth", patch_size=(32, 32, 32))
    assert not list(tmp_path.iterdir())


def test_an_encoder_becomes_a_program(tmp_path: Path) -> None:
    network = SegResNet(2, 8, blocks_down=(1, 1), blocks_up=(1,), out_channels=2).train()
    save_encoder(network, tmp_path / "e.pt2", size=(16, 16))
    assert network.training
    program = torch.export.load(tmp_path / "e.pt2").module()
    image = torch.rand(1, 1, 16, 16)
    with torch.no_grad():
        wanted = encoder_features(network.eval(), image)
        for mine, theirs in zip(program(image), wanted, strict=True):
            torch.testing.assert_close(mine, theirs)
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    pytest.importorskip("onnxscript", reason="needs onnxscript")
    save_encoder(network, tmp_path / "e.onnx", size=(16, 16))
    session = onnxruntime.InferenceSession((tmp_path / "e.onnx").read_bytes(), providers=["CPUExecutionProvider"])
    for mine, theirs in zip(session.run(None, {"image": image.numpy()}), wanted, strict=True):
        np.testing.assert_allclose(mine, theirs.numpy(), rtol=1e-4, atol=1e-5)
    for file in tmp_path.iterdir():  # and no path of this machine is in it
        parts = [file.read_bytes()]
        if file.suffix == ".pt2":
            with zipfile.ZipFile(file) as archive:
                parts = [archive.read(name) for name in archive.namelist()]
        assert not any(b".py" in part for part in parts), file.name
    with pytest.raises(ValueError, match=r"an encoder is written as one of \('\.onnx', '\.pt2'\), got '\.pt'"):
        save_encoder(network, tmp_path / "e.pt", size=(16, 16))
