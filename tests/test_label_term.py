"""Contrast by label in a decoder: value against loops, draws, blocks of terms side by side, two processes, refusals."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from forks import in_two_processes
from monai.networks.nets import SegResNet
from torch import Tensor

from monai_cl.methods import DenseTerm, LabelTerm, Method, RegionTerm, draw_by_label
from monai_cl.networks import decoder_features, encoder_features


def network() -> SegResNet:
    torch.manual_seed(0)
    return SegResNet(spatial_dims=2, init_filters=8, out_channels=2, blocks_down=(1, 1, 1), blocks_up=(1, 1))


def batch(b: int = 2, size: int = 8, labels: int = 3) -> dict[str, Any]:
    g = torch.Generator().manual_seed(0)
    return {
        "image": torch.rand(b, 2, 1, size, size, generator=g),
        "label": torch.randint(0, labels, (b, 2, size, size), generator=g),
        "valid": torch.rand(b, 2, size, size, generator=g) < 0.8,
        "coords": torch.stack(torch.meshgrid(*[torch.arange(size).float()] * 2, indexing="ij"))
        .expand(b, 2, 2, size, size)
        .clone(),
    }


def method(**options: Any) -> Method:
    return Method(network(), {"label": LabelTerm(**options)})


def loops(made: Method, given: dict[str, Any], *, blocks: int) -> Tensor:
    """Supervised contrast over all valid voxels, written as loops over rows."""
    images = given["image"].flatten(0, 1)
    maps = decoder_features(made.network, encoder_features(made.network, images))[blocks - 1]
    step = images.shape[-1] // maps.shape[-1]
    features, marks = [], []
    for image, one in enumerate(maps):
        label, valid = (given[key].flatten(0, 1)[image] for key in ("label", "valid"))
        for i in range(one.shape[1]):
            for j in range(one.shape[2]):
                at = (i * step + step // 2, j * step + step // 2)
                if valid[at]:
                    features.append(one[:, i, j])
                    marks.append((image // 2, int(label[at])))
    z = torch.nn.functional.normalize(made.terms["label"].head(torch.stack(features)), dim=1)
    similar = z @ z.T / 0.15
    costs = []
    for a, mark in enumerate(marks):
        positives = [p for p, other in enumerate(marks) if other == mark and p != a]
        others = [k for k in range(len(marks)) if k != a]
        if positives:
            below = torch.logsumexp(similar[a, others], 0)
            costs.append(torch.stack([below - similar[a, p] for p in positives]).mean())
    return torch.stack(costs).mean()


@pytest.mark.parametrize("blocks", [1, 2])
def test_value_and_gradient_are_those_of_loops(blocks: int) -> None:
    made, given = method(blocks=blocks, voxels=None).double().eval(), batch()
    given["image"] = given["image"].double()
    found, expected = made(given)["loss"], loops(made, given, blocks=blocks)
    torch.testing.assert_close(found, expected)
    learnt = [p for p in made.parameters() if p.requires_grad]
    for one, other in zip(torch.autograd.grad(found, learnt), torch.autograd.grad(expected, learnt), strict=True):
        torch.testing.assert_close(one, other)


def test_what_may_learn_has_a_gradient() -> None:
    made = method(blocks=1, voxels=20)
    made(batch())["loss"].backward()
    reached = {name for name, p in made.named_parameters() if p.grad is not None}
    assert reached == {name for name, p in made.named_parameters() if p.requires_grad}
    assert not any("up_layers.1" in name for name in reached)


def test_terms_of_one_pass_look_at_their_own_blocks() -> None:
    given, net = batch(size=16), network()
    terms = {
        "fine": LabelTerm(blocks=2, voxels=None),
        "coarse": LabelTerm(blocks=1, voxels=None),
        "dense": DenseTerm(blocks=1, num_anchors=None),
        "region": RegionTerm(blocks=1, region_size=1),
    }
    together = Method(net, terms).eval()
    found = together(given)
    assert terms["coarse"].head[0].in_features == 16
    for name in ("coarse", "dense", "region"):
        alone = Method(net, {name: terms[name]}).eval()
        torch.testing.assert_close(alone(given)["loss"], found[name])


def test_labels_of_different_volumes_are_different() -> None:
    made, given = method(voxels=None).eval(), batch()
    given["label"] = torch.zeros_like(given["label"])
    two = made(given)["loss"]
    one = torch.stack([made({k: v[i : i + 1] for k, v in given.items()})["loss"] for i in range(2)]).mean()
    assert two > one  # the other volume's voxels are negatives
    given["label"] = torch.arange(2).reshape(2, 1, 1, 1).expand_as(given["label"]) + 7
    torch.testing.assert_close(made(given)["loss"], two)


def test_draws_are_weighted_by_the_root_of_the_size_and_never_repeat() -> None:
    labels = torch.cat([torch.zeros(900), torch.ones(100)]).long()
    valid = torch.ones(1000, dtype=torch.bool)
    generator = torch.Generator().manual_seed(0)
    draws = [draw_by_label(labels, valid, 20, generator=generator) for _ in range(300)]
    assert all(len(draw.unique()) == 20 for draw in draws)
    share = labels[torch.cat(draws)].float().mean()
    assert float(share) == pytest.approx(0.25, abs=0.03)  # sqrt(100) to sqrt(900)


def test_voxels_that_do_not_count_are_not_drawn() -> None:
    valid = torch.zeros(50, dtype=torch.bool)
    valid[10:14] = True
    assert draw_by_label(torch.arange(50), valid, 20).tolist() == [10, 11, 12, 13]
    assert set(draw_by_label(torch.arange(50), valid, 2).tolist()) <= {10, 11, 12, 13}
    assert draw_by_label(torch.arange(50), valid, None).tolist() == [10, 11, 12, 13]


def test_a_probe_tells_how_often_the_most_similar_voxel_has_the_label() -> None:
    made, given = method(voxels=40), batch()
    given["label"] = given["label"][:, :1].expand(-1, 2, -1, -1).clone()
    given["image"] = given["label"][:, :, None].float()  # both views show their labels
    given["valid"] = torch.ones_like(given["valid"])
    found = made.probe([given, given])
    assert 0.4 < found["label_match"] <= 1
    assert found == made.probe([given, given])


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"label": None}, r"a batch must hold 'label' of each voxel for the contrast of labels, got \['coords', "),
        ({"label": torch.zeros(2, 2, 4, 4)}, r"label must have shape \(2, 2, 8, 8\) of the views, got \(2, 2, 4, 4\)"),
        ({"label": torch.full((2, 2, 8, 8), -1)}, "label must be from 0 to 65535, got values from -1 to -1"),
    ],
)
def test_labels_that_do_not_fit_are_refused(change: dict[str, Any], match: str) -> None:
    given = {key: value for key, value in {**batch(), **change}.items() if value is not None}
    with pytest.raises(ValueError, match=match):
        method()(given)


@pytest.mark.parametrize("option", ["voxels", "hidden", "embedding"])
def test_options_below_one_are_refused(option: str) -> None:
    with pytest.raises(ValueError, match=f"{option} must be at least 1, got 0"):
        LabelTerm(**{option: 0})


def test_blocks_that_the_decoder_has_not_are_refused() -> None:
    with pytest.raises(ValueError, match="blocks must be between 1 and 2 for this SegResNet, got 3"):
        method(blocks=3)


def learn(given: dict[str, Any]) -> list[Tensor]:
    made = method(voxels=None, gather=True).double().eval()
    loss = made({**given, "image": given["image"].double()})["loss"]
    learnt = [p for p in made.parameters() if p.requires_grad]
    return [loss.detach(), *torch.autograd.grad(loss, learnt)]


def run_process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    mine = {key: value[2 * rank : 2 * rank + 2] for key, value in batch(4, size=4).items()}
    found = learn(mine)
    dist.barrier()
    dist.destroy_process_group()
    torch.save(found, Path(folder) / f"{rank}.pt")


def test_two_processes_have_the_loss_and_gradient_of_one(tmp_path: Path) -> None:
    in_two_processes(run_process, str(tmp_path))
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    loss, *gradients = learn(batch(4, size=4))
    torch.testing.assert_close(first[0], loss)
    torch.testing.assert_close(second[0], loss)
    for one, other, expected in zip(first[1:], second[1:], gradients, strict=True):
        torch.testing.assert_close((one + other) / 2, expected)  # averaged over processes
