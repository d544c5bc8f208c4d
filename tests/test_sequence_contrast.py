"""Sequence contrast as a method: its terms, what they train, what a probe sees."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from monai.networks.nets import BasicUNet, SegResNet, UNet
from test_methods import NETWORKS
from torch import Tensor, nn

from monai_cl.engine import adamw
from monai_cl.losses import DecoupledContrastiveLoss, DenseContrastiveLoss, NTXentLoss
from monai_cl.methods import SequenceContrast
from monai_cl.methods._dense_maps import dense_rows, hypercolumns
from monai_cl.networks import encoder_features, network_features, output_module, pool_pyramid, resized

SMALL = {"hidden": 16, "embedding": 8, "dense_embedding": 8}


def views(b: int = 2, size: int = 16, channels: int = 1, dims: int = 3, *, seed: int = 0) -> dict[str, Tensor]:
    """Two random images of each volume that claim to show the same places."""
    generator = torch.Generator().manual_seed(seed)
    shape = (size,) * dims
    axes = torch.meshgrid(*[torch.arange(size).float()] * dims, indexing="ij")
    return {
        "views": torch.rand(b, 2, channels, *shape, generator=generator),
        "coords": torch.stack(axes).expand(b, 2, dims, *shape).clone(),
        "valid": torch.ones(b, 2, *shape, dtype=torch.bool),
        "target": torch.rand(b, 2, 1, *shape, generator=generator),
    }


def network(**options: Any) -> SegResNet:
    return SegResNet(out_channels=3, blocks_down=(1, 1, 1), blocks_up=(1, 1), **options)


def mean_cosine(rows: Tensor) -> float:
    """Of any two different rows (N, C)."""
    unit = F.normalize(rows.detach(), dim=1)
    n = len(unit)
    return float((unit.sum(0).square().sum() - n) / (n * (n - 1)))


def test_voxels_start_out_less_alike_than_without_a_norm() -> None:
    torch.manual_seed(0)
    method = SequenceContrast(network(), 16)
    maps = network_features(method.network, views(4)["views"].flatten(0, 1)).decoder
    head = method.terms["dense"].head
    first, _, _, last = head
    alike, without = (mean_cosine(q.movedim(1, -1).flatten(0, -2)) for q in (head(maps), last(F.relu(first(maps)))))
    assert alike < without - 0.1


@pytest.mark.parametrize("name", NETWORKS)
def test_features_of_one_run_are_those_of_the_encoder_and_what_the_output_is_made_of(name: str) -> None:
    make, size = NETWORKS[name]
    net = make(1).eval()
    x = torch.rand(1, 1, *(size,) * (2 if "2-D" in name else 3))
    found = network_features(net, x)
    assert all(torch.equal(a, b) for a, b in zip(found.encoder, encoder_features(net, x), strict=True))
    made = output_module(net)(found.decoder)
    assert torch.equal(made, net(x))
    assert not [h for module in net.modules() for h in (*module._forward_hooks, *module._forward_pre_hooks)]


def test_the_terms_are_those_losses_of_what_the_network_gives() -> None:
    torch.manual_seed(0)
    method = SequenceContrast(network(), 16, dense_loss=DenseContrastiveLoss(3, num_anchors=None), **SMALL)
    batch = views()
    losses = method({"image": batch})
    features = network_features(method.network, batch["views"].flatten(0, 1))  # view 1, view 2 of a volume in turn
    z = method.terms["global"].projector(pool_pyramid(features.encoder, 2))
    q = method.terms["dense"].head(F.avg_pool3d(features.decoder, 2))
    places = F.avg_pool3d(batch["coords"].flatten(0, 1), 2).unflatten(0, (2, 2))
    restored = method.terms["reconstruction"].head(features.decoder)
    expected = {
        "global": NTXentLoss(temperature=0.5)(z[0::2], z[1::2]),
        "dense": DenseContrastiveLoss(3, num_anchors=None)(q[0::2], q[1::2], places[:, 0], places[:, 1]),
        "reconstruction": (restored - batch["target"].flatten(0, 1)).abs().mean(),
    }
    for name, value in expected.items():
        assert losses[name].item() == pytest.approx(value.item(), rel=1e-5), name
    assert losses["loss"].item() == pytest.approx(sum(v.item() for v in expected.values()), rel=1e-5)


def test_weights_scale_the_terms() -> None:
    torch.manual_seed(0)
    method = SequenceContrast(network(), 16, global_weight=2.0, dense_weight=0.0, reconstruction_weight=0.5, **SMALL)
    losses = method({"image": views()})
    assert "dense" not in losses
    assert losses["loss"].item() == pytest.approx(2 * losses["global"].item() + 0.5 * losses["reconstruction"].item())


TERMS = {
    "all": {},
    "global alone": {"dense_weight": 0.0, "reconstruction_weight": 0.0},
    "dense on the decoder alone": {"global_weight": 0.0, "reconstruction_weight": 0.0},
    "dense on the encoder alone": {"global_weight": 0.0, "reconstruction_weight": 0.0, "dense_on": "encoder"},
    "reconstruction alone": {"global_weight": 0.0, "dense_weight": 0.0},
}


@pytest.mark.parametrize("terms", TERMS)
def test_exactly_what_the_terms_depend_on_learns(terms: str) -> None:
    method = SequenceContrast(network(), 16, **TERMS[terms], **SMALL)
    method({"image": views()})["loss"].backward()
    with_gradient = {n for n, p in method.named_parameters() if p.grad is not None}
    assert with_gradient == {n for n, p in method.named_parameters() if p.requires_grad}
    learns = {n.split(".")[0] for n in method.touched()}
    assert {"convInit", "down_layers"} <= learns
    assert ("up_layers" in learns) == ("global" not in terms and "encoder" not in terms)
    assert not any(n.startswith("conv_final.2") for n in method.touched())
    assert any(n.startswith("conv_final.0") for n in method.touched()) == ("up_layers" in learns)


@pytest.mark.parametrize("name", NETWORKS)
def test_other_networks_need_no_further_settings(name: str) -> None:
    make, size = NETWORKS[name]
    dims = 2 if "2-D" in name else 3
    method = SequenceContrast(make(1), size, dense_stride=4, **SMALL)
    losses = method({"image": views(2, size, dims=dims)})
    losses["loss"].backward()
    assert bool(losses["loss"].isfinite())
    assert all(p.grad is not None for p in method.parameters() if p.requires_grad)
    state = method.network.state_dict()
    assert state.keys() == make(1).state_dict().keys()


def test_the_network_is_the_one_that_was_given() -> None:
    net = network()
    assert SequenceContrast(net, 16, **SMALL).network is net


def test_losses_fall_and_voxels_are_found_again() -> None:
    torch.manual_seed(0)
    method = SequenceContrast(network(spatial_dims=2), 16, **SMALL)
    batch = views(3, dims=2)
    smooth = F.interpolate(torch.rand(3, 1, 4, 4), (16, 16), mode="bilinear")
    batch["views"] = torch.stack([smooth, 1 - smooth.square()], dim=1)  # another contrast of the same
    batch["target"] = batch["views"].clone()
    before = method.probe([{"image": batch}])
    optimizer = adamw(method, 1e-2)
    for _ in range(25):
        optimizer.zero_grad()
        method({"image": batch})["loss"].backward()
        optimizer.step()
    after = method.probe([{"image": batch}])
    assert after["alignment"] < before["alignment"]
    assert after["voxel_error_mm"] < before["voxel_error_mm"]
    assert after["voxel_within_5_mm"] > before["voxel_within_5_mm"]
    assert after["reconstruction"] < 0.7 * before["reconstruction"]


def test_a_probe_leaves_no_trace() -> None:
    method = SequenceContrast(network(), 16, **SMALL).train()
    state = {k: v.clone() for k, v in method.state_dict().items()}
    random = torch.get_rng_state()
    values = method.probe([{"image": views(3)}, {"image": views(2)}])
    assert method.training
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(v, state[k]) for k, v in method.state_dict().items())
    assert values["chance_retrieval"] == pytest.approx(1 / 5)
    assert {"alignment", "uniformity", "effective_rank", "dead_dimensions", "voxel_error_mm"} <= values.keys()
    assert values["blind_voxel_error_mm"] == 0  # both views show the same places at the same voxels


def test_of_few_crops_no_rank_is_told_which_might_seem_a_collapse() -> None:
    values = SequenceContrast(network(), 16, **SMALL).probe([{"image": views(2)}])
    assert "alignment" in values
    assert not {"effective_rank", "uniformity", "dead_dimensions"} & values.keys()


def test_without_the_global_term_the_health_is_that_of_voxels() -> None:
    method = SequenceContrast(network(), 16, global_weight=0.0, **SMALL)
    values = method.probe([{"image": views()}])
    assert "retrieval" not in values
    assert values["effective_rank"] > 1


def test_reconstruction_alone_has_no_embedding_to_judge() -> None:
    method = SequenceContrast(network(), 16, global_weight=0.0, dense_weight=0.0, **SMALL)
    assert set(method.probe([{"image": views()}])) == {"reconstruction"}


def test_voxels_that_know_their_place_are_found_without_error() -> None:
    coords = views()["coords"].clone()
    coords[:, 1] = coords[:, 1].flip(2)  # the second view is mirrored
    valid = torch.ones(2, 2, 16, 16, 16, dtype=torch.bool)
    # places on a sphere: their cosine falls with their distance
    maps = [F.normalize(torch.cat([c - 7.5, torch.full_like(c[:, :1], 8.0)], 1), dim=1) for c in coords.unbind(1)]
    found = dense_rows(maps, coords, valid, count=200)
    assert len(found.error) == 400
    assert found.error.max() == 0
    assert torch.allclose(found.first, found.second)
    lost = dense_rows([maps[0], maps[1].flip(2)], coords, valid, count=200)
    assert lost.error.median() > 3
    first = coords[0, 0, 0].flatten()[torch.linspace(0, 16**3 - 1, 200).long()]  # mirrored: x lies where 15 - x did
    assert torch.equal(found.blind, (15 - 2 * first).abs().repeat(2))


def test_voxels_that_the_other_view_does_not_show_are_not_asked_for() -> None:
    coords = views()["coords"].clone()
    coords[:, 1, 0] += 10  # mm along the first axis
    valid = torch.ones(2, 2, 16, 16, 16, dtype=torch.bool)
    maps = [torch.rand(2, 4, 16, 16, 16), torch.rand(2, 4, 16, 16, 16)]
    assert 0 < len(dense_rows(maps, coords, valid, count=4096).error) < 2 * 4096 * 0.5
    assert len(dense_rows(maps, coords, torch.zeros_like(valid), count=100).error) == 0


def test_maps_are_averaged_to_a_coarser_grid_and_interpolated_to_a_finer_one() -> None:
    x = torch.rand(1, 2, 8, 8, 8)
    assert torch.allclose(resized(x, (4, 4, 4)), F.avg_pool3d(x, 2))
    assert resized(x, (8, 8, 8)) is x
    assert torch.allclose(
        resized(x, (16, 8, 4)), F.interpolate(F.avg_pool3d(x, (1, 1, 2)), (16, 8, 4), mode="trilinear")
    )
    joined = hypercolumns([x, torch.rand(1, 3, 4, 4, 4)], (4, 4, 4))
    assert torch.allclose(joined[:, :2].norm(dim=1), torch.ones(1, 4, 4, 4))
    assert torch.allclose(joined[:, 2:].norm(dim=1), torch.ones(1, 4, 4, 4))


def test_another_loss_may_take_the_place_of_nt_xent() -> None:
    method = SequenceContrast(network(), 16, global_loss=DecoupledContrastiveLoss(0.5), **SMALL)
    assert bool(method({"image": views(3)})["loss"].isfinite())


REFUSED = {
    "no term": ({"global_weight": 0, "dense_weight": 0, "reconstruction_weight": 0}, "must be above 0, all are 0"),
    "negative": ({"dense_weight": -1.0}, "dense_weight must be at least 0, got -1.0"),
    "not finite": ({"global_weight": float("nan")}, "global_weight must be at least 0, got nan"),
    "tap": ({"dense_on": "head"}, "dense_on must be 'decoder', 'encoder' or 'all', got 'head'"),
    "stride": ({"dense_stride": 0}, "dense_stride must be at least 1, got 0"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_options_out_of_range_are_refused(name: str) -> None:
    options, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        SequenceContrast(network(), 16, **options)


def test_a_crop_the_network_cannot_take_stops_at_the_start() -> None:
    with pytest.raises(ValueError, match=r"crop_size \(16, 16, 16\) cannot pass through BasicUNet"):
        SequenceContrast(BasicUNet(3, 1, 2), 16)


def test_targets_of_other_channels_are_refused() -> None:
    method = SequenceContrast(network(), 16, target_channels=3, **SMALL)
    with pytest.raises(ValueError, match="target_channels must be that of the targets, 1, got 3"):
        method({"image": views()})


def test_a_batch_of_one_is_refused_only_where_crops_are_told_apart() -> None:
    method = SequenceContrast(network(), 16, **SMALL)
    told = r"batch_size must be at least 2 with the global term, .* got 1; .*global_weight to 0"
    with pytest.raises(ValueError, match=told):
        method({"image": views(1)})
    assert bool(SequenceContrast(network(), 16, global_weight=0.0, **SMALL)({"image": views(1)})["loss"].isfinite())


def test_half_size_decoders_are_restored_at_the_size_of_the_image() -> None:
    net: nn.Module = UNet(3, 1, 2, channels=(8, 8, 8), strides=(2, 2))
    method = SequenceContrast(net, 16, global_weight=0.0, dense_weight=0.0, **SMALL)
    assert bool(method({"image": views()})["loss"].isfinite())
