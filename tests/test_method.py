"""A method as a network and terms: shared passes, weights, a hybrid, a term of one's own, and what is refused."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from monai.networks.nets import SegResNet, VNet
from torch import Tensor, nn

from monai_cl.methods import (
    DenseTerm,
    FeatureExtractor,
    InstanceTerm,
    Maps,
    MaskedReconstructionTerm,
    Method,
    PartitionTerm,
    PositionTerm,
    ReconstructionTerm,
    RegionTerm,
    Teacher,
    Term,
)
from monai_cl.networks import Projector, encoder_features, network_features, pool_pyramid


def net(**options: Any) -> SegResNet:
    return SegResNet(init_filters=8, out_channels=2, blocks_down=(1, 1, 1), blocks_up=(1, 1), **options)


def views(b: int = 2, size: int = 16) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    axes = torch.meshgrid(*[torch.arange(size).float()] * 3, indexing="ij")
    return {
        "image": torch.rand(b, 2, 1, size, size, size, generator=generator),
        "coords": torch.stack(axes).expand(b, 2, 3, size, size, size).clone(),
        "valid": torch.ones(b, 2, size, size, size, dtype=torch.bool),
        "target": torch.rand(b, 2, 1, size, size, size, generator=generator),
        "partition": torch.arange(b) % 2,
        "volume": torch.arange(b) // 2,
    }


def counted(network: SegResNet) -> list[int]:
    """Number of images of each pass."""
    seen: list[int] = []
    network.convInit.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    return seen


class Likeness(Term):
    """Twice the mean cosine of two views, less the teacher's, as a term of a user's own might have it."""

    follows = True

    def build(self, network: nn.Module, maps: Maps) -> None:
        self.projector = Projector(pool_pyramid(maps.encoder, 2).shape[1], 8, 4, norm="layer")

    def forward(self, extract: FeatureExtractor, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        images = batch[self.key]
        z = self.projector(pool_pyramid(extract(images).encoder, 2)).unflatten(0, images.shape[:2])
        twin = extract.twin(self)
        known = z.detach()
        if twin is not None:
            with torch.no_grad():
                maps = extract.fixed(images) if extract.has_teacher else extract(images)
                known = twin.projector(pool_pyramid(maps.encoder, 2)).unflatten(0, images.shape[:2])
        return -F.cosine_similarity(z[:, 0], known[:, 1], dim=1).mean(), {"length": z.detach().norm()}


def test_terms_of_one_key_share_a_pass_and_others_have_their_own() -> None:
    network = net()
    seen = counted(network)
    terms = {
        "global": InstanceTerm(hidden=8, embedding=4),
        "dense": DenseTerm(on="all", num_anchors=None),
        "block": DenseTerm(blocks=1, num_anchors=None),
        "region": RegionTerm(blocks=2),
        "restored": ReconstructionTerm(),
        "masked": MaskedReconstructionTerm(key="other"),
    }
    method = Method(network, terms, image_size=16)
    seen.clear()
    losses = method({**views(), "other": torch.rand(3, 1, 16, 16, 16)})
    assert seen == [4, 3]
    assert losses.keys() >= {"loss", *terms}
    losses["loss"].backward()
    with_gradient = {n for n, p in method.named_parameters() if p.grad is not None}
    assert with_gradient == {n for n, p in method.named_parameters() if p.requires_grad}


def test_the_loss_is_the_weighted_sum_and_a_term_of_weight_zero_is_not_there() -> None:
    torch.manual_seed(0)
    terms = {"a": InstanceTerm(hidden=8, embedding=4), "b": ReconstructionTerm(), "c": DenseTerm()}
    method = Method(net(), terms, weights={"a": 2.0, "c": 0.0}).eval()
    losses = method(views())
    assert losses["loss"].item() == pytest.approx(2 * losses["a"].item() + losses["b"].item(), rel=1e-6)
    assert "c" not in losses
    assert not [name for name in method.state_dict() if name.startswith("terms.c")]


def test_maps_of_a_shared_pass_are_those_of_the_network() -> None:
    torch.manual_seed(0)
    method = Method(net(), {"dense": DenseTerm(on="all"), "block": DenseTerm(blocks=1)}).eval()
    images = views()["image"]
    maps = method._extractors()["image"](images)
    expected = network_features(method.network, images.flatten(0, 1), blocks=True)
    assert all(torch.equal(a, b) for a, b in zip(maps.encoder, expected.encoder, strict=True))
    assert torch.equal(maps.decoder, expected.decoder)
    assert len(maps.blocks) == 1
    assert torch.equal(maps.blocks[0], expected.blocks[0])


@pytest.mark.parametrize("terms", [{"a": ("encoder",)}, {"a": ("blocks",)}, {"a": ("decoder",)}])
def test_no_more_of_the_network_runs_or_learns_than_is_needed(terms: dict[str, tuple[str, ...]]) -> None:
    made = {
        "encoder": PartitionTerm(hidden=8, embedding=4),
        "blocks": DenseTerm(blocks=1),
        "decoder": DenseTerm(on="decoder"),
    }
    network = net()
    kind = terms["a"][0]
    method = Method(network, {"a": made[kind]}, image_size=16)
    ran: list[str] = []
    for name in ("up_layers.0", "up_layers.1", "conv_final"):
        network.get_submodule(name).register_forward_hook(lambda *unused, name=name: ran.append(name))
    method(views(4))["loss"].backward()
    assert (
        ran == {"encoder": [], "blocks": ["up_layers.0"], "decoder": ["up_layers.0", "up_layers.1", "conv_final"]}[kind]
    )
    learns = {
        name for name in ("up_layers.0", "up_layers.1", "convInit") if any(n.startswith(name) for n in method.touched())
    }
    assert learns == {"convInit", *[name for name in ran if name != "conv_final"]}


@pytest.mark.parametrize(("of", "passes"), [(None, [4]), ("heads", [4]), ("all", [4, 4])])
def test_a_term_of_ones_own_has_a_teacher_for_the_asking(of: str | None, passes: list[int]) -> None:
    torch.manual_seed(0)
    network = net()
    teacher = None if of is None else Teacher(of, momentum=0.5, schedule="constant")
    method = Method(network, {"likeness": Likeness()}, teacher=teacher, image_size=16)
    seen = counted(network)
    if method.teacher is not None and of == "all":
        method.steady_network.convInit.register_forward_hook(lambda m, i, o: seen.append(len(i[0])))  # type: ignore[union-attr]
    losses = method(views())
    assert seen == passes
    assert {"loss", "likeness", "length"} == losses.keys()
    losses["loss"].backward()
    assert (method.steady_network is network) == (of != "all")
    assert {n.split(".")[0] for n in method.touched()} == {"convInit", "down_layers"}


def test_only_terms_that_follow_a_teacher_are_copied() -> None:
    terms = {"likeness": Likeness(), "restored": ReconstructionTerm()}
    method = Method(net(), terms, teacher=Teacher("heads"))
    assert {name.split(".")[3] for name in method.state_dict() if name.startswith("teacher.")} == {"likeness"}


@pytest.mark.parametrize("trains", ["encoder", "decoder"])
def test_one_half_of_the_network_may_stay_as_it_is(trains: str) -> None:
    method = Method(net(norm="batch"), {"dense": DenseTerm(on="decoder")}, trains=trains, image_size=16).train()
    before = {name: value.clone() for name, value in method.network.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1)
    method(views())["loss"].backward()
    optimizer.step()
    changed = {
        name.split(".")[0]
        for name, value in method.network.state_dict().items()
        if not torch.equal(value, before[name])
    }
    if trains == "decoder":  # bit for bit, running statistics as well
        assert changed.isdisjoint({"convInit", "down_layers"})
        assert changed >= {"up_layers", "up_samples"}
    else:
        assert {n.split(".")[0] for n in method.touched()} == {"convInit", "down_layers"}
        assert "convInit" in changed


def test_health_keeps_its_names_for_the_first_term_that_has_one() -> None:
    terms = {
        "restored": ReconstructionTerm(), "global": InstanceTerm(hidden=8, embedding=4), "dense": DenseTerm(blocks=1),
    }  # fmt: skip
    method = Method(net(), terms, image_size=16)
    found = method.probe([views(4), views(4)])
    assert {
        "reconstruction",
        "retrieval",
        "uniformity",
        "dense_uniformity",
        "dense_effective_rank",
        "place_error",
    } <= found.keys()
    assert "global_uniformity" not in found
    silent = DenseTerm(blocks=1)
    silent.probed = False
    assert Method(net(), {"dense": silent}).probe([views()]) == {}


def test_a_term_that_was_built_goes_on_in_another_method() -> None:
    term = PositionTerm(hidden=8, embedding=4)
    network = net()
    Method(network, {"position": term}, image_size=8)
    projector = term.projector
    second = Method(network, {"position": term, "dense": DenseTerm(key="pair", blocks=1)}, image_size={"pair": 16})
    assert second.terms["position"].projector is projector


REFUSED: dict[str, tuple[Any, str]] = {
    "no term": (
        lambda: Method(net(), {"a": DenseTerm()}, weights={"a": 0.0}),
        "one of weight of term 'a' must be above",
    ),
    "negative": (
        lambda: Method(net(), {"a": DenseTerm()}, weights={"a": -1.0}),
        "weight of term 'a' must be at least 0",
    ),
    "unknown": (lambda: Method(net(), {"a": DenseTerm()}, weights={"b": 1.0}), r"weights must be of terms \['a'\]"),
    "trains": (lambda: Method(net(), {"a": DenseTerm()}, trains="head"), r"trains must be one of .* got 'head'"),
    "teacher": (lambda: Teacher("some"), r"of of a teacher must be one of \('all', 'heads'\), got 'some'"),
    "momentum": (lambda: Teacher(momentum=1.5), "momentum must be between 0 and 1, got 1.5"),
    "size": (
        lambda: Method(net(), {"a": DenseTerm()}, image_size=9),
        r"image_size \(9, 9, 9\) cannot pass through Seg",
    ),
    "network": (lambda: Method(VNet(), {"a": DenseTerm()}), "network must be one of MONAI's .* got VNet"),
    "blocks": (lambda: Method(net(), {"a": DenseTerm(blocks=3)}), "blocks must be between 1 and 2 for this SegResNet"),
    "on": (lambda: DenseTerm(on="head"), r"on must be one of \('block', 'decoder', 'encoder', 'all'\), got 'head'"),
    "levels": (lambda: InstanceTerm(levels="some"), "levels must be 'all' or 'deepest', got 'some'"),
    "region": (
        lambda: Method(net(), {"a": RegionTerm(blocks=1, region_size=6)}, image_size=16),
        r"decoder's map of size \(8, 8, 8\) is",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_options_out_of_range_are_refused(name: str) -> None:
    make, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        make()


def test_needs_that_are_not_known_and_maps_that_were_not_needed_are_named() -> None:
    class Wrong(Likeness):
        needs = frozenset({"head"})

    class Short(Likeness):
        needs = frozenset({"encoder"})

        def forward(self, extract: FeatureExtractor, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
            return extract(batch["image"]).decoder.mean(), {}

    with pytest.raises(ValueError, match=r"needs of term 'a' must be among .* got \['head'\]"):
        Method(net(), {"a": Wrong()})
    with pytest.raises(ValueError, match=r"this pass has no 'decoder' maps, it has \['encoder'\]; add 'decoder' to"):
        Method(net(), {"a": Short()})(views())
    with pytest.raises(ValueError, match=r"a batch must hold 'image', got \['other'\]"):
        Method(net(), {"a": DenseTerm()})({"other": 0})


def test_deepest_maps_are_those_of_the_encoder() -> None:
    network = net().eval()
    method = Method(network, {"a": PartitionTerm(hidden=8, embedding=4)})
    images = views()["image"]
    found = method._extractors()["image"](images).encoder
    assert len(found) == 1
    assert torch.equal(found[0], encoder_features(network, images.flatten(0, 1))[-1])
