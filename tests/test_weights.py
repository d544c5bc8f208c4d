import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.networks.nets import SegResNet
from torch import Tensor, nn

from monai_cl.weights import (
    NonFiniteWeightsError,
    Receipt,
    WeightsMismatchError,
    load_network,
    read_contract,
    require_finite,
    save_network,
    start_digest,
    start_from,
    transfer,
)


def networks() -> tuple[SegResNet, SegResNet]:
    torch.manual_seed(0)
    return SegResNet(out_channels=3), SegResNet(out_channels=3)


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize(
    "prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "backbone.", "module.student.network."]
)
@pytest.mark.parametrize("container", [None, "state_dict", "model", "network"])
def test_wrappers_are_taken_off(prefix: str, container: str | None) -> None:
    source, target = networks()
    state = {prefix + name: tensor for name, tensor in source.state_dict().items()}
    receipt = transfer(target, state if container is None else {container: state, "epoch": 3})
    assert same(source, target)
    assert receipt.share == 1.0
    assert not receipt.missing
    assert not receipt.unexpected


@pytest.mark.parametrize("container", ["state_dict", "model", "student"])
def test_a_tensor_beside_the_container_is_no_weight(container: str) -> None:
    source, target = networks()
    content = {"best_metric": torch.tensor(0.8), container: source.state_dict(), "lr": torch.tensor(1e-3)}
    assert transfer(target, content).share == 1.0
    assert same(source, target)


def test_a_container_of_settings_is_passed_over() -> None:
    source, target = networks()
    transfer(target, {"model": {"name": "SegResNet"}, "net": source.state_dict()})
    assert same(source, target)


def test_another_head_keeps_its_values_and_is_named() -> None:
    source = SegResNet(out_channels=5)
    _, target = networks()
    head = target.conv_final[2].conv.weight.clone()
    receipt = transfer(target, source.state_dict())
    assert [name for name, _, _ in receipt.wrong_shape] == ["conv_final.2.conv.weight", "conv_final.2.conv.bias"]
    assert torch.equal(head, target.conv_final[2].conv.weight)
    assert torch.equal(source.convInit.conv.weight, target.convInit.conv.weight)
    assert "conv_final.2.conv.weight [3, 8, 1, 1, 1] <- [5, 8, 1, 1, 1]" in str(receipt)


def test_the_checkpoint_of_another_network_changes_nothing() -> None:
    _, target = networks()
    before = {k: v.clone() for k, v in target.state_dict().items()}
    with pytest.raises(WeightsMismatchError, match=r"at least 90 % .* of SegResNet.*got 0\.0 %") as error:
        transfer(target, nn.Linear(3, 3).state_dict())
    assert error.value.receipt.unexpected == ("weight", "bias")
    assert all(torch.equal(before[k], v) for k, v in target.state_dict().items())


def test_a_floor_of_nothing_still_asks_for_a_tensor() -> None:
    source, target = networks()
    before = [tensor.clone() for tensor in target.state_dict().values()]
    with pytest.raises(WeightsMismatchError, match="some tensor of SegResNet must be in the checkpoint, none of its 2"):
        transfer(target, nn.Linear(3, 3).state_dict(), min_matched=0.0)
    assert all(torch.equal(a, b) for a, b in zip(before, target.state_dict().values(), strict=True))
    first = {"convInit.conv.weight": source.state_dict()["convInit.conv.weight"]}
    assert transfer(target, first, min_matched=0.0).matched == ("convInit.conv.weight",)


def test_the_floor_is_a_share_of_parameters() -> None:
    source, target = networks()
    encoder = {k: v for k, v in source.state_dict().items() if k.startswith(("convInit", "down"))}
    share = sum(v.numel() for v in encoder.values()) / sum(p.numel() for p in target.parameters())
    receipt = transfer(target, encoder, min_matched=share - 1e-6)
    assert receipt.share == pytest.approx(share)
    with pytest.raises(WeightsMismatchError, match="must match"):
        transfer(target, encoder, min_matched=share + 1e-6)


def test_files_are_read_restricted(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return (print, ("code from a checkpoint",))

    torch.save({"state_dict": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match=r"must hold only tensors and plain values, got objects of builtins\.print"):
        transfer(networks()[0], tmp_path / "evil.pt")


def test_an_optimiser_in_a_published_file_is_named_with_the_way_out(tmp_path: Path) -> None:
    source, target = networks()
    content = {"state_dict": source.state_dict(), "optimizer": torch.optim.AdamW(source.parameters())}
    torch.save(content, tmp_path / "published.pt")
    told = r"got objects of .*torch\.optim\.adamw\.AdamW.*torch\.save\(\{'state_dict': content\['state_dict'\]\}, new\)"
    with pytest.raises(ValueError, match=told):
        transfer(target, tmp_path / "published.pt")
    trusted = torch.load(tmp_path / "published.pt", weights_only=False)
    torch.save({"state_dict": trusted["state_dict"]}, tmp_path / "new.pt")
    assert transfer(target, tmp_path / "new.pt").share == 1.0


def test_a_file_cut_short_is_named(tmp_path: Path) -> None:
    source, target = networks()
    save_network(source, tmp_path / "a.pt")
    content = (tmp_path / "a.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"cut\.pt cannot be read as weights.*is it complete"):
        transfer(target, tmp_path / "cut.pt")


def test_absent_and_empty_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no file of weights at"):
        transfer(networks()[0], tmp_path / "absent.pt")
    torch.save({"epoch": 3}, tmp_path / "empty.pt")
    with pytest.raises(ValueError, match=r"holds no tensors; its entries are \['epoch'\]"):
        transfer(networks()[0], tmp_path / "empty.pt")
    torch.save([1], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="must hold a state dict, got list"):
        transfer(networks()[0], tmp_path / "list.pt")


def test_saved_networks_come_back_whole_with_their_contract(tmp_path: Path) -> None:
    source, target = networks()
    path = tmp_path / "models" / "model.pt"
    save_network(source, path, contract={"recipe": "small_mr"})
    assert read_contract(path) == {"recipe": "small_mr"}
    assert same(load_network(target, path), source)
    assert sorted(p.name for p in path.parent.iterdir()) == ["model.json", "model.pt"]
    assert set(torch.load(path, weights_only=True)) == set(source.state_dict())


def test_a_trained_network_must_fit_entirely(tmp_path: Path) -> None:
    save_network(SegResNet(out_channels=5), tmp_path / "m.pt", contract={"out_channels": 5})
    with pytest.raises(WeightsMismatchError, match=r"does not fill the network(.|\n)*out_channels=5"):
        load_network(networks()[1], tmp_path / "m.pt")


def test_receipts_count_what_pretraining_touched(tmp_path: Path) -> None:
    source, target = networks()
    touched = [n for n, _ in source.named_parameters() if n.startswith(("convInit", "down"))]
    save_network(source, tmp_path / "m.pt", contract={"touched": touched})
    receipt = transfer(target, tmp_path / "m.pt")
    assert receipt.touched == tuple(touched)
    assert f"{len(touched)} of the" in str(receipt)


@pytest.mark.parametrize("nothing", [None, "none", "None", "null"])
def test_from_scratch_loads_nothing(nothing: str | None) -> None:
    assert start_from(networks()[0], nothing) is None


def test_an_option_that_transfer_does_not_have_is_refused_from_scratch_too() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'min_match'"):
        start_from(networks()[0], None, min_match=0.5)


def test_the_file_that_a_network_began_with_is_read_once(tmp_path: Path) -> None:
    source, target = networks()
    save_network(source, tmp_path / "m.pt")
    expected = hashlib.sha256((tmp_path / "m.pt").read_bytes()).hexdigest()
    assert start_digest(target, tmp_path / "m.pt") == expected
    start_from(target, tmp_path / "m.pt")
    (tmp_path / "m.pt").unlink()
    assert start_digest(target, tmp_path / "m.pt") == expected


def test_starting_from_weights_logs_the_receipt(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source, target = networks()
    save_network(source, tmp_path / "m.pt")
    with caplog.at_level("INFO", logger="monai_cl.weights"):
        receipt = start_from(target, tmp_path / "m.pt")
    assert isinstance(receipt, Receipt)
    assert "100.0 % of parameters" in caplog.text


def test_the_floor_must_be_a_share() -> None:
    with pytest.raises(ValueError, match="min_matched must be between 0 and 1, got 90"):
        transfer(networks()[0], {}, min_matched=90)


WRAPPERS: dict[str, Callable[[dict[str, Tensor]], dict[str, Any]]] = {
    "bare": dict,
    "state_dict": lambda state: {"state_dict": state, "epoch": 3},
    "module": lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
    "model in model": lambda state: {"model": {"network": state}},
    "a run": lambda state: {"method": {f"student.network.{name}": tensor for name, tensor in state.items()}},
    "ema alone": lambda state: {"ema_state_dict": state},
}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("wrap", WRAPPERS)
def test_values_that_are_not_finite_are_refused_by_the_name_of_the_tensor(
    wrap: str, value: float, tmp_path: Path
) -> None:
    source, target = networks()
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    state = source.state_dict()
    state["conv_final.2.conv.bias"][1] = value
    torch.save(WRAPPERS[wrap](state), tmp_path / "w.pt")
    said = r"weights must be finite, got .*conv_final\.2\.conv\.bias \(1 of 3 values .*w\.pt.*lower learning rate"
    for load in (lambda: transfer(target, tmp_path / "w.pt"), lambda: load_network(target, tmp_path / "w.pt")):
        with pytest.raises(NonFiniteWeightsError, match=said):
            load()
    with pytest.raises(NonFiniteWeightsError, match="in the checkpoint: "):
        start_from(target, WRAPPERS[wrap](state))  # type: ignore[arg-type]
    assert all(torch.equal(tensor, before[name]) for name, tensor in target.state_dict().items())


def test_many_bad_tensors_are_counted_and_the_first_named() -> None:
    source, target = networks()
    state = {name: torch.full_like(tensor, float("nan")) for name, tensor in source.state_dict().items()}
    with pytest.raises(NonFiniteWeightsError, match=rf"convInit\.conv\.weight \(.* and {len(state) - 3} more in"):
        transfer(target, state)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_every_kind_of_float_is_looked_at_and_large_values_are_no_infinities(dtype: torch.dtype) -> None:
    large = torch.full((1000,), torch.finfo(dtype).max, dtype=torch.float64).to(dtype)
    require_finite({"w": large, "count": torch.tensor(3), "mask": torch.tensor([True]), "none": large[:0]}, "a test")
    large[7] = float("nan")
    with pytest.raises(NonFiniteWeightsError, match=r"w \(1 of 1000 values NaN\)"):
        require_finite({"w": large}, "a test")


def test_a_negative_variance_is_refused() -> None:
    norm = nn.BatchNorm1d(2)
    state = {**norm.state_dict(), "running_var": torch.tensor([1.0, -0.5])}
    with pytest.raises(NonFiniteWeightsError, match=r"running_var \(a variance of -0\.5\)"):
        transfer(norm, state)


def test_a_network_that_has_diverged_is_not_written(tmp_path: Path) -> None:
    network = nn.Linear(2, 1)
    network.weight.data.fill_(float("nan"))
    with pytest.raises(NonFiniteWeightsError, match=r"weight \(2 of 2 values NaN\) in the network for .*w\.pt"):
        save_network(network, tmp_path / "w.pt")
    assert not list(tmp_path.iterdir())


AVERAGES = ["ema_state_dict", "state_dict_ema", "model_ema", "ema_model", "ema", "teacher", "module_ema", "swa_model"]


@pytest.mark.parametrize("key", AVERAGES)
@pytest.mark.parametrize("flat", [False, True])
def test_an_average_beside_the_network_is_said_and_can_be_taken(
    key: str, flat: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (source, target), average = networks(), SegResNet(out_channels=3)
    content: dict[str, Any] = {"state_dict": source.state_dict(), key: average.state_dict()}
    if flat:
        content = {
            f"{k.replace('state_dict', 'model')}.{n}": t for k, state in content.items() for n, t in state.items()
        }
    torch.save(content, tmp_path / "w.pt")
    receipt = start_from(target, tmp_path / "w.pt", weights_key=None)
    name = key.replace("state_dict", "model") if flat else key
    assert receipt is not None
    assert receipt.beside == (name,)
    assert same(target, source)
    assert f"not {name}" in str(receipt).splitlines()[0]
    assert f"not {name}; weights_key takes another" in caplog.text
    receipt = start_from(target, tmp_path / "w.pt", weights_key=name)
    assert receipt is not None
    assert receipt.weights_key == name
    assert same(target, average)


def test_a_runs_own_teacher_is_said_and_can_be_taken() -> None:
    source, target = networks()
    teacher = SegResNet(out_channels=3)
    both = {"student.network": source, "teacher.network": teacher}
    content = {"method": {f"{k}.{n}": t for k, net in both.items() for n, t in net.state_dict().items()}, "step": 3}
    assert transfer(target, content).beside == ("method.teacher",)
    assert same(target, source)
    transfer(target, content, weights_key="teacher.network")
    assert same(target, teacher)


def test_momenta_of_an_optimiser_are_no_network() -> None:
    source, target = networks()
    slots = {0: {"momentum_buffer": torch.ones(3), "exp_avg": torch.ones(3)}}
    receipt = transfer(target, {"state_dict": source.state_dict(), "optimizer": {"state": slots}})
    assert (receipt.weights_key, receipt.beside) == ("state_dict", ())
    assert str(receipt).startswith("matched")


def test_a_key_that_is_not_there_is_answered_with_those_that_are() -> None:
    source, target = networks()
    content = {"state_dict": source.state_dict(), "ema": source.state_dict()}
    with pytest.raises(ValueError, match=r"weights_key must name .* got 'emma'; it has state_dict, ema$"):
        transfer(target, content, weights_key="emma")


@pytest.mark.benchmark
def test_looking_for_nan_costs_little_beside_reading(tmp_path: Path) -> None:
    state = {f"w{i}": torch.randn(10_000_000) for i in range(10)}
    torch.save(state, tmp_path / "w.pt")
    began = time.perf_counter()
    read = torch.load(tmp_path / "w.pt", weights_only=True)
    loaded = time.perf_counter()
    require_finite(read, "a test")
    assert time.perf_counter() - loaded < 2 * (loaded - began)
