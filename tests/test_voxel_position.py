"""Places of voxels: the loss against a loop, invariances, learning, and the bundle's overlay."""

import re
from pathlib import Path

import pytest
import torch
from monai.networks.nets import SegResNet, SwinUNETR, UNet
from test_bundle_runs import run, user_sees
from torch import Tensor, nn

from monai_cl import bundles, weights
from monai_cl.engine import adamw, read_history
from monai_cl.methods import VoxelPosition


def small() -> SegResNet:
    return SegResNet(
        init_filters=4, out_channels=3, blocks_down=(1, 1), blocks_up=(1,), norm=("group", {"num_groups": 2})
    )


def batch(b: int = 2, v: int = 2, size: tuple[int, ...] = (8, 8, 8), seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    coords = 30 * torch.randn(b, v, len(size), *size, generator=generator)
    valid = torch.rand(b, v, *size, generator=generator) > 0.3
    return {"image": torch.rand(b, v, 1, *size, generator=generator), "coords": coords, "valid": valid}


@pytest.mark.parametrize("relative", [False, True])
def test_the_loss_equals_a_loop_over_voxels(relative: bool) -> None:
    torch.manual_seed(0)
    method, given = VoxelPosition(small(), scale=15.0, beta=0.4, relative=relative), batch(size=(4, 4, 4))
    losses = method(given)
    with torch.no_grad():
        found = method.terms["place"].predicted(method._extractors()["image"], given["image"])
    total, distance, count = 0.0, 0.0, 0
    for b in range(2):
        where = [(v, i, j, k) for v in range(2) for i in range(4) for j in range(4) for k in range(4)]
        where = [w for w in where if given["valid"][b][w]]
        errors = [
            [float(found[b, v, a, i, j, k]) - float(given["coords"][b, v, a, i, j, k]) / 15 for a in range(3)]
            for v, i, j, k in where
        ]
        shift = [sum(e[a] for e in errors) / len(errors) if relative else 0.0 for a in range(3)]
        for e in errors:
            d = [abs(e[a] - shift[a]) for a in range(3)]
            total += sum(x * x / 0.8 if x < 0.4 else x - 0.2 for x in d)
            distance += sum(x * x for x in d) ** 0.5 * 15
            count += 1
    assert losses["loss"].item() == pytest.approx(total / count / 3, rel=1e-4)
    assert losses["position_error_mm"].item() == pytest.approx(distance / count, rel=1e-4)


def test_relative_places_do_not_know_where_a_volume_begins() -> None:
    given = batch()
    shift = torch.tensor([40.0, -5.0, 12.0]).reshape(1, 1, 3, 1, 1, 1)
    moved = {**given, "coords": given["coords"] + shift}
    torch.manual_seed(0)
    relative, centred = VoxelPosition(small(), relative=True), VoxelPosition(small())
    assert relative(given)["loss"].item() == pytest.approx(relative(moved)["loss"].item(), rel=1e-4)
    assert centred(given)["loss"].item() != pytest.approx(centred(moved)["loss"].item(), rel=1e-2)
    one = {name: value[:, :1] for name, value in given.items()}
    with pytest.raises(ValueError, match="relative needs at least 2 views of each volume, got 1"):
        relative(one)


def test_padding_does_not_count() -> None:
    given = batch()
    wrong = {**given, "coords": torch.where(given["valid"][:, :, None], given["coords"], torch.tensor(1e6))}
    torch.manual_seed(0)
    method = VoxelPosition(small())
    assert method(given)["loss"].item() == pytest.approx(method(wrong)["loss"].item(), rel=1e-6)
    nothing = {**given, "valid": torch.zeros_like(given["valid"])}
    loss = method(nothing)["loss"]
    loss.backward()
    assert loss.item() == 0.0
    assert all(p.grad is None or not p.grad.any() for p in method.parameters())


def test_encoder_and_decoder_learn_and_the_probe_sees_it() -> None:
    torch.manual_seed(0)
    method = VoxelPosition(small(), scale=10.0)
    optimizer = adamw(method, 1e-2)
    axes = torch.meshgrid(*[torch.linspace(-10, 10, 8)] * 3, indexing="ij")
    coords = torch.stack(axes)[None, None].expand(2, 1, 3, 8, 8, 8)
    # intensity tells the first axis; the others have to come from the rim
    given = {"image": coords[:, :, :1] / 10, "coords": coords, "valid": torch.ones(2, 1, 8, 8, 8, dtype=torch.bool)}
    before = method.probe([given])
    for _ in range(60):
        loss = method(given)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = method.probe([given])
    assert before["chance_error_mm"] == after["chance_error_mm"] == pytest.approx(float(coords[0].norm(dim=1).mean()))
    assert after["position_error_mm"] < 0.5 * before["position_error_mm"]
    assert after["position_error_mm"] < after["chance_error_mm"]
    assert method.training
    names = {name for name, _ in method.network.named_parameters()}
    assert set(method.touched()) == {name for name in names if not name.startswith("conv_final.2.conv")}
    assert method.probe([]) == {}


def test_every_network_is_taken(five_channel_network: nn.Module) -> None:
    edge = 64 if isinstance(five_channel_network, SwinUNETR) else 32
    losses = VoxelPosition(five_channel_network)(batch(b=1, v=1, size=(edge,) * 3))
    losses["loss"].backward()
    assert losses["loss"].isfinite()


def test_half_precision_and_two_dimensions() -> None:
    network = UNet(2, 1, 3, channels=(4, 8), strides=(2,))
    method, given = VoxelPosition(network), batch(size=(16, 16))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = method(given)
    assert losses["loss"].dtype == torch.float32
    assert losses["loss"].item() == pytest.approx(method(given)["loss"].item(), rel=0.05)


@pytest.mark.parametrize("options", [{"scale": 0.0}, {"beta": -1.0}, {"hidden": 0}])
def test_settings_out_of_range_are_refused(options: dict) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be above 0"):
        VoxelPosition(small(), **options)


@pytest.mark.parametrize("settings", [{}, {"num_views": 2, "relative": True}])
def test_the_bundle_pretrains_and_fine_tuning_starts_from_it(study: Path, tmp_path: Path, settings: dict) -> None:
    root = bundles.copy("volume_contrast", tmp_path / "bundle")
    run(root, "pretrain", study, ("voxel_position.yaml",), max_epochs=2, epoch_length=2, **settings)
    touched = weights.read_contract(root / "models/pretrained_position.pt")["touched"]
    assert any(name.startswith("up_layers") for name in touched)
    first = read_history(root / "runs/pretrain_position/history.csv")[0]
    assert {"loss", "position_error_mm", "step"} <= set(first)
    assert float(first["position_error_mm"]) > 0
    health = read_history(root / "runs/pretrain_position/health.csv")
    assert {"position_error_mm", "chance_error_mm"} <= set(health[-1])
    changed = {**settings, "position_scale": 10.0}
    said = user_sees(root, "pretrain", study, ("voxel_position.yaml",), max_epochs=3, epoch_length=2, **changed)
    assert re.search(r"position_scale: 20\.0 -> 10\.0", said)
    run(root, "train", study, pretrained=str(root / "models/pretrained_position.pt"))
    assert (root / "models/model.pt").exists()
