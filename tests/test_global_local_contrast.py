"""Global and local contrast: what is compared, what learns, and what must stay bit for bit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.networks.nets import BasicUNet, DynUNet, SegResNet, UNet, VNet
from torch import Tensor, nn

from monai_cl import weights
from monai_cl.engine import adamw
from monai_cl.losses import (
    CrossVolumeLocalContrastiveLoss,
    DenseContrastiveLoss,
    LocalRegionContrastiveLoss,
    NTXentLoss,
    PartitionContrastiveLoss,
    PositionalContrastiveLoss,
)
from monai_cl.methods import GlobalLocalContrast, views_of
from monai_cl.methods.map_terms import places
from monai_cl.networks import decoder_blocks, decoder_features, decoder_modules, encoder_features, encoder_modules

NETWORKS: dict[str, tuple[Callable[[], nn.Module], int, int]] = {  # network, spatial dimensions, decoder blocks
    "DynUNet in 2-D": (
        lambda: DynUNet(2, 1, 3, [3] * 4, [1, 2, 2, 2], [2] * 3, filters=[8, 8, 16, 16], norm_name="batch"), 2, 3
    ),
    "DynUNet": (lambda: DynUNet(3, 1, 3, [3] * 3, [1, 2, (2, 2, 1)], [2, (2, 2, 1)], filters=[4, 8, 8]), 3, 2),
    "SegResNet": (lambda: SegResNet(3, 8, out_channels=3, blocks_down=(1, 1, 1), blocks_up=(1, 1)), 3, 2),
    "BasicUNet": (lambda: BasicUNet(2, 1, 3, features=(4,) * 6), 2, 4),
    "UNet": (lambda: UNet(2, 1, 3, (4, 8, 8, 8), (2, 2, 2), num_res_units=1), 2, 2),
    "UNet without residuals": (lambda: UNet(3, 1, 3, (4, 8, 8), (2, 2)), 3, 1),
}  # fmt: skip
SIZE = 32


def flat_network(norm: Any = "batch") -> nn.Module:
    return NETWORKS["DynUNet in 2-D"][0]() if norm == "batch" else DynUNet(
        2, 1, 3, [3] * 4, [1, 2, 2, 2], [2] * 3, filters=[8, 8, 16, 16], norm_name=norm
    )  # fmt: skip


def views(volumes: int = 2, parts: int = 3, count: int = 2, dims: int = 2, seed: int = 0) -> dict[str, Any]:
    g = torch.Generator().manual_seed(seed)
    n = volumes * parts
    return {
        "image": torch.rand(n, count, 1, *[SIZE] * dims, generator=g),
        "partition": torch.arange(parts).repeat(volumes),
        "volume": torch.arange(volumes).repeat_interleave(parts),
        "position": torch.rand(n, generator=g),
    }


def method(**options: Any) -> GlobalLocalContrast:
    torch.manual_seed(0)
    return GlobalLocalContrast(flat_network(), SIZE, hidden=16, embedding=8, **options)


# --- the decoder's maps


@pytest.mark.parametrize("name", NETWORKS)
def test_decoder_maps_are_those_of_the_full_forward_pass(name: str) -> None:
    make, dims, count = NETWORKS[name]
    network = make().eval()
    assert decoder_blocks(network) == count
    seen: list[Tensor] = []
    for number in range(1, count + 1):
        last = decoder_modules(network, blocks=number)[-1]
        last.register_forward_hook(lambda module, inputs, output: seen.append(output))
    x = torch.rand(1, 1, *[SIZE] * dims)
    with torch.no_grad():
        network(x)
        full, seen = list(seen), []
        found = decoder_features(network, encoder_features(network, x))
    assert len(found) == len(full) == count
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(found, full, strict=True))


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_of_a_map_reach_the_blocks_below_it_alone(name: str) -> None:
    make, dims, _ = NETWORKS[name]
    network = make()
    maps = [m.detach() for m in encoder_features(network, torch.rand(2, 1, *[SIZE] * dims))]
    decoder_features(network, maps, blocks=1)[-1].square().sum().backward()
    reached = {id(p) for p in network.parameters() if p.grad is not None}
    assert reached == {id(p) for module in decoder_modules(network, blocks=1) for p in module.parameters()}


def test_blocks_that_are_not_there_and_unknown_decoders_are_named() -> None:
    with pytest.raises(ValueError, match="blocks must be between 1 and 3 for this DynUNet, got 4"):
        method(local_weight=1.0, blocks=4)
    with pytest.raises(ValueError, match=r"the decoder of VNet is not known; .*BasicUNet, DynUNet, .*SegResNetDS"):
        decoder_blocks(VNet())


# --- the terms


def test_the_loss_is_the_weighted_sum_of_the_losses_of_the_embeddings() -> None:
    chosen = {"global_weight": 0.5, "local_weight": 2.0, "across_weight": 3.0, "dense_weight": 0.25}
    ours, batch = method(**chosen, num_anchors=None, exclusion_radius=2.0).eval(), views()
    found = ours(batch)
    extract = ours._extractors()["image"]
    z, f = ours.terms["global"].embed(extract, batch), ours.terms["dense"].embed(extract, views_of(batch, "image"))
    v = 2
    part, volume = (batch[key].repeat_interleave(v) for key in ("partition", "volume"))
    image, view = torch.arange(6).repeat_interleave(v), torch.arange(v).repeat(6)
    expected = {
        "global": PartitionContrastiveLoss("gd")(z.flatten(0, 1), part, image, volume, view),
        "local": LocalRegionContrastiveLoss(2)(f[:, 0], f[:, 1]),
        "across": CrossVolumeLocalContrastiveLoss(2)(f[:, 0], f[:, 1], batch["partition"], batch["volume"]),
        "dense": DenseContrastiveLoss(2, num_anchors=None, exclusion_radius=2.0)(f[:, 0], f[:, 1]),
    }
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value.detach(), rtol=1e-5, atol=1e-6, msg=name)
    total = sum(chosen[f"{name}_weight"] * value for name, value in expected.items())
    torch.testing.assert_close(found["loss"], total, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("contrast", ["nt_xent", "position", "gd-"])
def test_the_other_global_contrasts_are_the_losses_of_their_names(contrast: str) -> None:
    ours, batch = method(contrast=contrast).eval(), views()
    z = ours.terms["global"].embed(ours._extractors()["image"], batch)
    rows, twice = z.flatten(0, 1), {k: batch[k].repeat_interleave(2) for k in ("partition", "volume", "position")}
    image, view = torch.arange(6).repeat_interleave(2), torch.arange(2).repeat(6)
    expected = {
        "nt_xent": lambda: NTXentLoss()(z[:, 0], z[:, 1]),
        "position": lambda: PositionalContrastiveLoss()(rows, twice["position"]),
        "gd-": lambda: PartitionContrastiveLoss("gd-")(rows, twice["partition"], image, twice["volume"], view),
    }[contrast]()
    torch.testing.assert_close(ours(batch)["loss"], expected)


def test_any_number_of_views_for_partitions_and_two_for_nt_xent() -> None:
    assert torch.isfinite(method(contrast="gd-")(views(count=3))["loss"])
    with pytest.raises(ValueError, match="nt_xent contrasts two views of each image, got 3; set num_views to 2"):
        method(contrast="nt_xent")(views(count=3))


def test_the_order_of_the_batch_does_not_matter() -> None:
    ours, batch = method(local_weight=1.0, across_weight=1.0).eval(), views()
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    shuffled = {key: value[order] for key, value in batch.items()}
    torch.testing.assert_close(ours(shuffled)["loss"], ours(batch)["loss"], rtol=1e-5, atol=1e-5)


def test_dense_contrast_finds_a_flipped_view_by_its_coordinates() -> None:
    ours, batch = method(global_weight=0.0, dense_weight=1.0, num_anchors=None, blocks=2).eval(), views()
    grid = torch.stack(torch.meshgrid(*[torch.arange(SIZE).float()] * 2, indexing="ij")).expand(6, -1, -1, -1)
    valid = torch.ones(6, 2, SIZE, SIZE, dtype=torch.bool)
    same = {"coords": torch.stack([grid, grid], 1), "valid": valid}
    torch.testing.assert_close(ours({**batch, **same})["dense"], ours(batch)["dense"], rtol=1e-4, atol=1e-4)
    # a map in which every voxel knows its place is found again wherever it was turned
    place = grid[:, :, ::2, ::2]
    wave = torch.cat([torch.sin(place / 10), torch.cos(place / 10), torch.ones_like(place[:, :1])], 1)
    term = ours.terms["dense"]
    f = torch.stack([wave, wave.flip(2)], 1)
    there = {"coords": torch.stack([grid, grid.flip(2)], 1), "valid": valid}

    def loss(place: dict[str, Tensor]) -> Tensor:
        coords, valid = places(views_of({**batch, **place}, "image"), f.shape[3:], f.device)
        assert coords is not None
        found: Tensor = term.loss(f[:, 0], f[:, 1], coords[:, 0], coords[:, 1], valid)
        return found

    right, wrong = loss(there), loss(same)
    assert right < wrong - 1


def test_regions_of_views_that_differ_in_geometry_are_refused() -> None:
    grid = torch.stack(torch.meshgrid(*[torch.arange(SIZE).float()] * 2, indexing="ij")).expand(6, -1, -1, -1)
    there = {"coords": torch.stack([grid, grid.flip(2)], 1), "valid": torch.ones(6, 2, SIZE, SIZE).bool()}
    with pytest.raises(ValueError, match=r"regions are compared at the same index, .* or use the dense term"):
        method(local_weight=1.0)({**views(), **there})


def test_a_batch_without_partitions_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a batch must hold 'partition' of each image .*got \['image'\]"):
        method()({"image": torch.rand(2, 2, 1, SIZE, SIZE)})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"global_weight": 0.0}, "one of global_weight, local_weight, .* must be above 0, all are 0"),
        ({"local_weight": -1.0}, r"local_weight must be at least 0, got -1\.0"),
        ({"freeze_encoder": True, "local_weight": 1.0}, r"global_weight must be 0 with freeze_encoder, got 1\.0"),
        ({"contrast": "simclr"}, r"contrast must be one of \('gd', 'gd-', 'nt_xent', 'position'\) or a loss"),
        ({"local_weight": 1.0, "region_size": 6, "blocks": 1}, "map of size .8, 8. is too small"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        method(**options)


# --- what learns


def step(ours: nn.Module, batch: dict[str, Any], lr: float = 0.1, times: int = 2) -> None:
    optimizer = adamw(ours, lr)
    for _ in range(times):
        optimizer.zero_grad()
        ours(batch)["loss"].backward()
        optimizer.step()


def names(network: nn.Module, modules: list[nn.Module]) -> set[str]:
    wanted = {id(p) for module in modules for p in module.parameters()}
    return {name for name, p in network.named_parameters() if id(p) in wanted}


def test_a_frozen_encoder_stays_bit_for_bit_with_its_running_statistics() -> None:
    network = flat_network()
    encoder_features(network.train(), torch.rand(4, 1, SIZE, SIZE) * 3 + 1)  # statistics of its own
    ours = GlobalLocalContrast(
        network, SIZE, global_weight=0.0, local_weight=1.0, freeze_encoder=True, blocks=2
    ).train()
    encoder = nn.ModuleList(encoder_modules(network))
    then = {key: value.clone() for key, value in encoder.state_dict().items()}
    before = {key: value.clone() for key, value in network.state_dict().items()}
    assert not any(part.training for module in encoder for part in module.modules())
    assert ours.terms["local"].training
    step(ours, views())
    assert any("running_mean" in key for key in then)
    assert all(torch.equal(value, then[key]) for key, value in encoder.state_dict().items())
    changed = {key for key, value in network.state_dict().items() if not torch.equal(value, before[key])}
    decoder = {id(p) for m in decoder_modules(network, blocks=2) for p in [*m.parameters(), *m.buffers()]}
    assert changed == {k for k, v in network.state_dict(keep_vars=True).items() if id(v) in decoder}
    assert set(ours.touched()) == names(network, decoder_modules(network, blocks=2))


def test_the_frozen_encoder_is_outside_of_the_optimiser() -> None:
    ours = method(global_weight=0.0, local_weight=1.0, freeze_encoder=True)
    inside = {id(p) for group in adamw(ours, 0.1).param_groups for p in group["params"]}
    assert not inside & {id(p) for module in encoder_modules(ours.network) for p in module.parameters()}


def test_the_global_term_leaves_the_decoder_as_it_is() -> None:
    ours = method()
    before = {key: value.clone() for key, value in ours.network.state_dict().items()}
    step(ours, views())
    encoder = names(ours.network, encoder_modules(ours.network))
    assert set(ours.touched()) == encoder
    changed = {n for n, p in ours.network.named_parameters() if not torch.equal(p, before[n])}
    assert encoder >= changed
    assert len(changed) > 0.8 * len(encoder)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_parameter_that_may_learn_has_a_gradient(name: str) -> None:
    make, dims, count = NETWORKS[name]
    terms = {"global_weight": 1.0, "dense_weight": 1.0}
    ours = GlobalLocalContrast(make(), SIZE, **terms, blocks=count, hidden=8, embedding=4, num_anchors=16)
    ours(views(dims=dims, parts=2))["loss"].backward()
    assert {n for n, p in ours.named_parameters() if p.requires_grad} == {
        n for n, p in ours.named_parameters() if p.grad is not None
    }


def test_a_second_stage_says_that_the_encoder_was_pretrained_too(tmp_path: Path) -> None:
    first = method()
    weights.save_network(first.network, tmp_path / "first.pt", contract={"touched": first.touched()})
    second = method(global_weight=0.0, local_weight=1.0, freeze_encoder=True, blocks=2)
    own = set(second.touched())
    weights.start_from(second.network, tmp_path / "first.pt")
    assert set(second.touched()) == own | set(first.touched())


# --- health


def test_a_probe_tells_partitions_and_places_from_chance() -> None:
    ours = method(dense_weight=1.0)
    batch = views(volumes=4)
    found = ours.probe([batch, views(volumes=4, seed=1)])
    assert {
        "alignment",
        "uniformity",
        "effective_rank",
        "dead_dimensions",
        "partition_accuracy",
        "place_accuracy",
    } < set(found)
    assert found["chance_partition"] == pytest.approx(1 / 3)
    batch["image"][:, 1] = batch["image"][:, 0]  # the very same image is found again
    alike = ours.probe([batch])
    assert alike["place_accuracy"] > 0.95 > 0.5 > found["place_accuracy"]
    assert alike["place_error"] == 0.0 < found["place_error"]
    assert ours.training


def test_partitions_that_embeddings_know_are_found() -> None:
    ours, batch = method(), views(volumes=4)
    place = torch.nn.functional.one_hot(batch["partition"], 8).float()

    ours.terms["global"].embed = lambda extract, batch: place[:, None].repeat(1, 2, 1)
    assert ours.probe([batch])["partition_accuracy"] == 1.0
