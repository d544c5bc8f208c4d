"""Files of weights as others write them: their kinds, wrappers, precision, and what is no file of weights."""

import pickle
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.networks.nets import DynUNet
from safetensors.torch import save_file
from torch import Tensor, nn

from monai_cl.weights import (
    NonFiniteWeightsError,
    WeightsMismatchError,
    load_network,
    save_network,
    start_from,
    transfer,
)


class Small(nn.Module):
    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.encoder = nn.Sequential(nn.Conv3d(1, 4, 3), nn.BatchNorm3d(4))
        self.head = nn.Conv3d(4, 2, 1)


def values(network: nn.Module) -> list[Tensor]:
    return [tensor.clone() for tensor in network.state_dict().values()]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_safetensors_are_read(tmp_path: Path) -> None:
    source, target = Small(1), Small(2)
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    assert transfer(target, tmp_path / "w.safetensors").share == 1.0
    assert same(values(source), values(target))
    load_network(Small(3), tmp_path / "w.safetensors")


def test_safetensors_are_told_by_their_content(tmp_path: Path) -> None:
    save_file(Small(1).state_dict(), tmp_path / "w.pt")
    assert transfer(Small(2), tmp_path / "w.pt").share == 1.0


def test_values_of_safetensors_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    state = Small(1).state_dict()
    state["head.bias"][0] = float("nan")
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(NonFiniteWeightsError, match=r"head\.bias \(1 of 2 values NaN\)"):
        transfer(Small(2), tmp_path / "w.safetensors")


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.99])
@pytest.mark.parametrize("kind", ["safetensors", "torch"])
def test_half_a_download_is_refused_and_loads_nothing(share: float, kind: str, tmp_path: Path) -> None:
    whole, cut, target = tmp_path / "whole", tmp_path / "cut.safetensors", Small(2)
    before = values(target)
    save_file(Small(1).state_dict(), whole) if kind == "safetensors" else torch.save(Small(1).state_dict(), whole)
    content = whole.read_bytes()
    cut.write_bytes(content[: int(share * len(content))])
    said = r"cut\.safetensors (is cut short: it has|cannot be read as).*(bytes; download|is it complete)"
    with pytest.raises(ValueError, match=said):
        transfer(target, cut)
    assert same(before, values(target))


NO_WEIGHTS: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", r"is empty; download or copy it again"),
    "pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
        r"pointer of Git LFS.*git lfs pull",
    ),
    "page": (
        b"<!DOCTYPE html>\n<html><body>Log in</body></html>",
        r"is a web page and no file.*gated weights",
    ),
    "message": (b'{"error": "Access to this model is restricted"}', r"is text and no file of weights.*logged in"),
    "noise": (bytes(range(256)) * 8, r"cannot be read as weights.*is it complete"),
}


@pytest.mark.parametrize("what", NO_WEIGHTS)
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ckpt", ".safetensors"])
def test_what_comes_in_place_of_weights_is_named(what: str, suffix: str, tmp_path: Path) -> None:
    content, said = NO_WEIGHTS[what]
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=said):
        transfer(Small(), path)


def test_a_program_is_refused_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    with pytest.warns(DeprecationWarning, match=r"torch\.jit"):
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), path)
    with pytest.raises(ValueError, match=r"TorchScript program, which runs code.*torch\.jit\.load\(old\)\.state_dict"):
        transfer(nn.Linear(2, 2), path)


def test_a_whole_module_is_refused_by_its_class(tmp_path: Path) -> None:
    torch.save(nn.Sequential(nn.Linear(2, 2)), tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"got objects of .*torch\.nn\.modules\.linear\.Linear.*run code"):
        transfer(nn.Linear(2, 2), tmp_path / "w.pt")


def test_objects_in_files_older_than_zip_archives_are_named_too(tmp_path: Path) -> None:
    torch.save({"state_dict": {}, "args": Namespace(lr=1)}, tmp_path / "w.tar", _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match=r"got objects of argparse\.Namespace, which run code"):
        transfer(Small(), tmp_path / "w.tar")
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({"args": Namespace(lr=1)}))
    with pytest.raises(ValueError, match=r"holds only tensors and plain values, or of safetensors"):
        transfer(Small(), tmp_path / "w.pkl")


def test_a_folder_is_answered_with_the_files_in_it(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "model.safetensors")
    for begin in (transfer, start_from):
        with pytest.raises(FileNotFoundError, match=r"must be a file, got the folder .*; it holds model\.safetensors"):
            begin(Small(), tmp_path)


def test_a_contract_cut_short_is_named(tmp_path: Path) -> None:
    save_network(Small(), tmp_path / "w.pt", contract={"recipe": "small_mr"})
    beside = tmp_path / "w.json"
    beside.write_text(beside.read_text()[:9])
    with pytest.raises(ValueError, match=r"the contract beside .*w\.pt, w\.json, must be JSON: .*; copy it again"):
        transfer(Small(), tmp_path / "w.pt")


def test_a_file_of_the_same_names_is_answered_with_what_differs(tmp_path: Path) -> None:
    state = Small(1).state_dict()
    wide = {name: torch.cat([tensor, tensor]) if tensor.ndim else tensor for name, tensor in state.items()}
    with pytest.raises(WeightsMismatchError, match="its names are the network's, its sizes are not: compare"):
        transfer(Small(2), wide)
    first = next(iter(state))
    with pytest.raises(WeightsMismatchError, match=rf"holds a part of the network alone and lacks {len(state) - 1} "):
        transfer(Small(2), {first: state[first]})


def test_numbers_of_a_log_beside_the_weights_are_plain_values(tmp_path: Path) -> None:
    source, target = Small(1), Small(2)
    log = {"mean_fg_dice": [np.float64(0.5), np.float32(0.25)], "epoch": np.int64(3), "device": torch.device("cpu")}
    torch.save({"network_weights": source.state_dict(), "logging": log, "_best_ema": np.float64(0.1)}, tmp_path / "w")
    assert transfer(target, tmp_path / "w").weights_key == "network_weights"
    assert same(values(source), values(target))


WRAPPED: dict[str, Callable[[str], str]] = {
    "compiled": lambda name: f"_orig_mod.{name}",
    "parallel": lambda name: f"module.{name}",
    "compiled in parallel": lambda name: f"module._orig_mod.{name}",
    "a compiled part": lambda name: name.replace("encoder.", "encoder._orig_mod."),
    "sharded": lambda name: f"_fsdp_wrapped_module.{name.replace('encoder.', 'encoder._fsdp_wrapped_module.')}",
    "checkpointed": lambda name: name.replace("encoder.", "encoder._checkpoint_wrapped_module."),
    "lightning": lambda name: f"model.{name}",
    "lightning with a backbone": lambda name: f"model.backbone.{name}",
}


@pytest.mark.parametrize("wrapper", WRAPPED)
def test_wrappers_around_the_network_and_its_parts_come_off(wrapper: str, tmp_path: Path) -> None:
    source, target = Small(1), Small(2)
    state = {WRAPPED[wrapper](name): tensor for name, tensor in source.state_dict().items()}
    content = {"state_dict": state, "epoch": 1, "pytorch-lightning_version": "2.4.0", "hyper_parameters": {"lr": 0.1}}
    torch.save(content, tmp_path / "w.ckpt")
    receipt = transfer(target, tmp_path / "w.ckpt")
    assert (receipt.share, receipt.missing, receipt.unexpected) == (1.0, (), ())
    assert same(values(source), values(target))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_becomes_that_of_the_network_and_is_said(dtype: torch.dtype, tmp_path: Path) -> None:
    source, target = Small(1), Small(2)
    state = {name: t.to(dtype) if t.is_floating_point() else t for name, t in source.state_dict().items()}
    save_file(state, tmp_path / "w.safetensors")
    receipt = transfer(target, tmp_path / "w.safetensors")
    assert receipt.converted == (str(dtype).removeprefix("torch."),)
    assert "precision    " in str(receipt)
    assert target.head.weight.dtype == torch.float32
    assert torch.equal(target.head.weight, source.head.weight.to(dtype).float())


def test_quantised_weights_are_refused() -> None:
    target = Small(2)
    before = values(target)
    state = {name: torch.zeros(t.shape, dtype=torch.int8) for name, t in target.state_dict().items()}
    with pytest.raises(ValueError, match=r"must be floating-point numbers, got int8 for encoder\.0\.weight and 7 more"):
        transfer(target, state)
    assert same(before, values(target))


def dynunet(seed: int) -> DynUNet:
    torch.manual_seed(seed)
    return DynUNet(2, 1, 2, [3] * 3, [1, 2, 2], [2] * 2, filters=[4, 8, 8])


def test_a_tensor_of_several_names_counts_once_and_any_of_them_fills_it() -> None:
    source, target = dynunet(1), dynunet(2)
    state = source.state_dict()
    aliases = {name for name in state if name.startswith("skip_layers.")}
    assert aliases
    first = transfer(target, state)
    assert not set(first.matched) & aliases
    assert same(values(source), values(target))
    alone = dynunet(3)
    kept = {name: t for name, t in state.items() if name in aliases or name.startswith("output_block")}
    receipt = transfer(alone, kept)
    assert (receipt.missing, receipt.unexpected, receipt.share) == ((), (), 1.0)
    assert same(values(source), values(alone))


def test_a_state_dict_of_another_network_loads_nothing(tmp_path: Path) -> None:
    target = Small(2)
    before = values(target)
    torch.save(dynunet(1).state_dict(), tmp_path / "w.pt")
    with pytest.raises(WeightsMismatchError, match=r"at least 90 % of the parameters of Small must match, got 0\.0 %"):
        transfer(target, tmp_path / "w.pt")
    assert same(before, values(target))
