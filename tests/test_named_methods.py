"""What holds of every named method: teacher, gradients, resumed runs, two processes, refused sizes, causes, probes."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from forks import in_two_processes
from ignite.engine import Engine, Events
from stored_methods import (
    BEFORE,
    CASES as STORED_CASES,
    SIZE,
    STEPS,
    crops,
    grid,
    network,
    of_slices,
    pairs,
    rand,
    trainer,
)
from study_batches import missing_sequences, studies
from test_engine import identical
from torch import Tensor, nn

from monai_cl.engine import adamw
from monai_cl.engine.distributed import parallel
from monai_cl.losses import DenseContrastiveLoss, NTXentLoss, SepVAELoss
from monai_cl.methods import (
    AnatomicalInvariance,
    CasesAndControls,
    CrossDomainTerm,
    GlobalLocalContrast,
    MaskedReconstruction,
    Method,
    MissingSequences,
    SeparateVAETerm,
    SequenceContrast,
    VolumeContrast,
    VolumeDenseContrast,
    VoxelPosition,
    missing_sequences as of_studies,
    restoration_terms,
    separate_vae_term,
)
from monai_cl.networks import ModalityTemplates


def anatomical(**options: Any) -> AnatomicalInvariance:
    small = {"heads": 2, "head_features": 3, "hidden": 12, "bottleneck": 6, "prototypes": 5}
    return AnatomicalInvariance(network(), SIZE, **{**small, **options})


def across_sites(**options: Any) -> Method:
    term = CrossDomainTerm(hidden=12, embedding=6, **options)
    return Method(network(), {"across": term}, image_size=SIZE)


def of_sites(labels: list[int], domains: list[int]) -> dict[str, Any]:
    return {"image": pairs(4), "patient": torch.tensor(labels), "domain": torch.tensor(domains)}


def separate_vae(**options: Any) -> SeparateVAETerm:
    return SeparateVAETerm([SIZE] * 3, hidden=12, common=6, salient=4, width=2, doublings=1, **options)


CASES: dict[str, tuple[Callable[[], Method], Callable[[], dict[str, Any]]]] = {
    **STORED_CASES,
    "masked_curriculum": (
        lambda: MaskedReconstruction(network(), block_size=2, curriculum="error", image_size=SIZE),
        lambda: {"image": pairs()[:, 0]},
    ),
    "anatomical_invariance": (anatomical, lambda: {"image": pairs(), "rejected": torch.tensor([0, 3])}),
    "anatomical_invariance_alone": (
        lambda: anatomical(reconstruction_weight=0.0, loss={"teacher_temperature": 0.04}),
        lambda: {"image": pairs()},
    ),
    "missing_sequences": (missing_sequences, studies),
    "missing_sequences_skips": (lambda: missing_sequences(skips=True, contrast_start=0.5, donor_start=0.3), studies),
    "separate_vae": (
        lambda: Method(network(), {"separation": separate_vae()}, image_size=SIZE),
        lambda: {"image": pairs(4), "patient": torch.tensor([0, 1, 1, 0])},
    ),
    "cases_and_controls": (
        lambda: CasesAndControls(network(), SIZE, hidden=12, common=6, salient=4),
        lambda: {"image": pairs(4), "patient": torch.tensor([0, 1, 1, 0])},
    ),
    "across_sites": (across_sites, lambda: of_sites([0, 1, 1, 0], [0, 0, 1, 1])),
}
WITH_TEACHER = {name for name in CASES if name.startswith("volume_") and "cvpr" not in name and "alone" not in name}
WITH_TEACHER |= {name for name in CASES if name.startswith("anatomical")}


def made(name: str) -> tuple[Method, dict[str, Any]]:
    torch.manual_seed(0)
    make, views = CASES[name]
    return make(), views()


@pytest.mark.parametrize("name", CASES)
def test_what_may_learn_has_a_gradient_and_nothing_else_is_touched(name: str) -> None:
    method, batch = made(name)
    method(batch)["loss"].backward()
    reached = {n for n, p in method.named_parameters() if p.grad is not None}
    assert reached == {n for n, p in method.named_parameters() if p.requires_grad}
    assert {f"network.{n}" for n in method.touched()} == {n for n in reached if n.startswith("network.")}


@pytest.mark.parametrize("name", CASES)
def test_a_teacher_is_a_copy_outside_of_gradients_and_optimiser_that_moves_once_a_step(name: str) -> None:
    method, batch = made(name)
    assert (method.teacher is not None) == (name in WITH_TEACHER)
    assert (method.steady_network is method.network) == (name not in WITH_TEACHER or name.endswith("v2"))
    if method.teacher is None:
        method.after_step(0.5)
        return
    copies = dict(method.teacher.module.named_parameters())
    followed = dict(method._followed().named_parameters())
    assert copies.keys() == followed.keys()
    assert all(torch.equal(copies[n], followed[n]) for n in copies)
    optimised = {id(p) for group in adamw(method, 0.1).param_groups for p in group["params"]}
    assert optimised == {id(p) for p in method.parameters() if p.requires_grad}
    assert not optimised & {id(p) for p in copies.values()}
    before = {n: p.clone() for n, p in copies.items()}
    with torch.no_grad():
        for p in followed.values():
            p.add_(1.0)
    method(batch)["loss"].backward()
    assert all(p.grad is None and torch.equal(p, before[n]) for n, p in copies.items())
    assert not method.teacher.training
    method.after_step(0.0)
    moved = [p - before[n] for n, p in copies.items()]
    assert all(0 < float(m.mean()) < 0.5 for m in moved)


@pytest.mark.parametrize("name", CASES)
def test_a_run_goes_on_bit_for_bit(name: str, tmp_path: Path) -> None:
    def cut(engine: Engine) -> None:
        raise KeyError("power cut")

    trainer(*made(name), tmp_path / "whole", STEPS).run()
    first = trainer(*made(name), tmp_path / "cut", STEPS)
    first.add_event_handler(Events.ITERATION_STARTED(once=BEFORE + 1), cut)
    with pytest.raises(KeyError, match="power cut"):
        first.run()
    torch.rand(100)
    trainer(CASES[name][0](), CASES[name][1](), tmp_path / "cut", STEPS).run()
    whole, again = (torch.load(tmp_path / f / "checkpoint.pt", weights_only=True) for f in ("whole", "cut"))
    assert identical(whole, again)


@pytest.mark.parametrize("name", CASES)
def test_a_probe_leaves_no_trace(name: str) -> None:
    method, batch = made(name)
    method.train()
    state = {k: v.clone() for k, v in method.state_dict().items()}
    modes = {n: m.training for n, m in method.named_modules()}
    random = torch.get_rng_state()
    if "volume_" in name:
        centers = torch.rand(2, 4, 3, generator=torch.Generator().manual_seed(0))
        overlap = (10 * batch["image"]["overlap"]).softmax(-1)  # no crop lies outside of the grid
        batch = {**batch, "image": {**batch["image"], "base_centers": centers, "overlap": overlap}}
    values = method.probe([batch, batch])
    assert all(isinstance(v, Tensor) or v == v for v in values.values())
    assert torch.equal(random, torch.get_rng_state())
    assert modes == {n: m.training for n, m in method.named_modules()}
    assert all(torch.equal(v, state[k]) for k, v in method.state_dict().items())
    assert method.probe([]) == {}
    assert not [h for m in method.network.modules() for h in m._forward_pre_hooks]


SIZED: dict[str, tuple[Callable[[nn.Module, int], Method], str]] = {
    "volume contrast": (VolumeContrast, "crop_size"),
    "sequence contrast": (SequenceContrast, "crop_size"),
    "cases and controls": (CasesAndControls, "crop_size"),
    "global contrast": (GlobalLocalContrast, "image_size"),
    "dense contrast": (lambda n, s: GlobalLocalContrast(n, s, dense_weight=1.0, blocks=1), "image_size"),
    "volume and dense": (lambda n, s: VolumeDenseContrast(VolumeContrast(n, SIZE), s, blocks=1), "patch_size"),
    "anatomical invariance": (AnatomicalInvariance, "patch_size"),
    "missing sequences": (lambda n, s: MissingSequences(n, ["a"], s, template_size=(8, 8, 8)), "crop_size"),
}


@pytest.mark.parametrize("name", SIZED)
def test_a_size_that_cannot_pass_is_refused_at_the_start_by_its_name(name: str) -> None:
    make, called = SIZED[name]
    with pytest.raises(ValueError, match=rf"{called} \(9, 9, 9\) cannot pass through UNet: .*multiples .* \(12, 12, 1"):
        make(network(), 9)
    with pytest.raises(ValueError, match=f"{called} must be one positive number or 3 of them for this UNet .* got 0"):
        make(network(), 0)
    with pytest.raises(ValueError, match=r"network must be one of MONAI's .* got Conv3d"):
        make(nn.Conv3d(1, 1, 3), 8)


@pytest.mark.parametrize("name", sorted(name for name in CASES if not name.startswith(("masked", "missing"))))
def test_images_of_other_channels_are_refused_by_name(name: str) -> None:
    method, batch = made(name)

    def doubled(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: doubled(v) if k in ("image", "pair", "views", "crops", "bases") else v for k, v in value.items()}
        return torch.cat([value, value], dim=2)

    with pytest.raises(ValueError, match=r"must have the 1 input channels of UNet, got 2; .* in_channels=2"):
        method(doubled(batch))


CAUSES = {
    "volume contrast": (lambda: VolumeContrast(network(), SIZE, variant="cvpr"), ["pool_size=1"]),
    "global contrast": (lambda: GlobalLocalContrast(network(), SIZE, pool_size=1), ["pool_size=1"]),
    "frozen": (
        lambda: GlobalLocalContrast(
            network(), SIZE, global_weight=0.0, dense_weight=1.0, freeze_encoder=True, blocks=1
        ),
        ["a frozen encoder"],
    ),
    "sequence contrast": (lambda: SequenceContrast(network(), SIZE, pool_size=1), ["pool_size=1"]),
    "cases and controls": (
        lambda: CasesAndControls(network(), SIZE, pool_size=1, information_less_weight=1000.0),
        ["pool_size=1", "information_less_weight=1000"],
    ),
    "across sites": (lambda: across_sites(pool_size=1), ["pool_size=1", "labels alone draw"]),
    "separate vae": (
        lambda: Method(network(), {"s": separate_vae(loss=SepVAELoss(0.1), pool_size=1)}, image_size=SIZE),
        ["pool_size=1", "common_weight=0.1"],
    ),
    "voxels": (lambda: SequenceContrast(network(), SIZE, global_weight=0.0, dense_stride=1), ["dense_stride=1"]),
    "reconstruction": (lambda: MaskedReconstruction(network()), []),
    "distillation": (anatomical, []),
    "flat targets": (
        lambda: anatomical(loss={"teacher_temperature": 0.1, "center_momentum": 1.0}),
        ["center_momentum=1", "teacher_temperature=0.1"],
    ),
}


@pytest.mark.parametrize("name", CAUSES)
def test_settings_that_make_embeddings_alike_are_named(name: str) -> None:
    make, expected = CAUSES[name]
    causes = make().causes_of_collapse()
    assert len(causes) == len(expected)
    assert all(cause.startswith(start) for cause, start in zip(causes, expected, strict=True))


# --- two processes: four volumes in one, or two in each of two

HALVES: dict[str, tuple[Callable[[], Method], Callable[[], dict[str, Any]]]] = {
    **{
        f"volume contrast {variant}": (
            lambda v=variant: VolumeContrast(
                network(), SIZE, variant=v, hidden=12, embedding=6, dropout=0.0, norm="layer", group_key="group"
            ),
            lambda: {"image": four(crops()), "group": torch.tensor([0, 0, 1, 1])},
        )
        for variant in ("monai_cl", "cvpr", "10k", "v2")
    },
    "volume and dense": (
        lambda: VolumeDenseContrast(
            VolumeContrast(network(), SIZE, hidden=12, embedding=6, dropout=0.0, norm="layer", group_key="group"),
            SIZE, blocks=1, num_anchors=None,
        ),
        lambda: {"image": four(crops()), "group": torch.tensor([0, 0, 1, 1]), "pair": pairs(4), **grid(4)},
    ),
    **{
        f"global contrast {contrast}": (
            lambda c=contrast: GlobalLocalContrast(
                network(), SIZE, contrast=c, hidden=12, embedding=6, norm="layer", dense_weight=0.5, blocks=1,
                num_anchors=None,
            ),
            of_slices,
        )
        for contrast in ("gd", "gd-", "nt_xent", "position")
    },
    "sequence contrast": (
        lambda: SequenceContrast(
            network(), SIZE, hidden=12, embedding=6, norm="layer", global_loss=NTXentLoss(0.5, gather=True),
            dense_loss=DenseContrastiveLoss(3, num_anchors=None),
        ),
        lambda: {"image": {"views": pairs(4), **grid(4), "target": rand(4, 2, 1, SIZE, SIZE, SIZE, seed=6)}},
    ),
    "masked reconstruction": (lambda: MaskedReconstruction(network()), lambda: {"image": pairs(4)[:, 0]}),
    "separate vae": (
        lambda: Method(network(), {"separation": separate_vae(norm="layer")}, image_size=SIZE),
        lambda: {"image": pairs(4), "patient": torch.tensor([0, 1, 1, 1])},
    ),
    "cases and controls": (
        lambda: CasesAndControls(network(), SIZE, hidden=12, common=6, salient=4, norm="layer"),
        lambda: {"image": pairs(4), "patient": torch.tensor([0, 0, 0, 1])},  # of two processes one has healthy alone
    ),
    "across sites": (  # of one process all patients are of one site
        lambda: across_sites(norm="layer"), lambda: of_sites([0, 1, 1, 0], [0, 0, 1, 1])
    ),
    "voxel position": (lambda: VoxelPosition(network(), hidden=6), lambda: {"image": pairs(4), **grid(4)}),
    "anatomical invariance": (lambda: anatomical(mask=SecondColumns()), lambda: {"image": pairs(4)}),
    "missing sequences": (missing_sequences, studies),
    "missing sequences with skips": (lambda: missing_sequences(skips=True), studies),
    "missing sequences by gradients": (lambda: missing_sequences(template_rule="gradient"), studies),
}  # fmt: skip


class SecondColumns(nn.Module):
    """The same mask for each image."""

    def forward(self, images: Tensor) -> Tensor:
        hidden = torch.arange(images.shape[2], device=images.device) % 4 < 2
        return hidden.reshape(1, 1, -1, 1, 1).expand(len(images), 1, *images.shape[2:])


def four(two: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.cat([value, value.flip(1)]) for name, value in two.items()}


def half(value: Any, rank: int) -> Any:
    if isinstance(value, dict):
        return {key: half(one, rank) for key, one in value.items()}
    return value[2 * rank : 2 * rank + 2]


def double(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: double(one) for key, one in value.items()}
    return value.double() if value.is_floating_point() else value


def every_second_block(image: Tensor, *, ratio: float, block_size: int) -> Tensor:
    """The same mask for each image, so that it does not matter which process draws it."""
    flat = torch.arange(image[0, 0].numel(), device=image.device) // block_size % 2 == 0
    return flat.reshape(1, 1, *image.shape[2:]).expand(len(image), 1, *image.shape[2:])


def alternating_blocks(shape: Sequence[int], *, device: torch.device, **_: Any) -> Tensor:
    """The same for the operator on batches of :mod:`monai_cl.transforms.block_replace`."""
    flat = torch.arange(math.prod(shape[2:]), device=device) // 4 % 2 == 0
    return flat.reshape(1, 1, *shape[2:])


def learn(name: str, batch: dict[str, Any]) -> dict[str, Tensor]:
    """Two steps; the gradients of the first and the state after the second."""
    torch.manual_seed(1)
    method = HALVES[name][0]().double()
    wrapped = parallel(method, torch.device("cpu"))
    for module in (method, wrapped):
        module.eval()  # norms of a head take the statistics of a process' batch in training
    for module in method.modules():
        if isinstance(module, ModalityTemplates):
            module.train()  # their means are of all processes
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1)
    found: dict[str, Tensor] = {}
    for step in range(2):
        optimizer.zero_grad()
        wrapped(batch)["loss"].backward()
        if step == 0:
            found = {f"grad {n}": p.grad.clone() for n, p in method.named_parameters() if p.grad is not None}
        optimizer.step()
        method.after_step(step / 2)
    if wrapped is not method:
        bucketed = wrapped._get_ddp_logging_data()["num_parameter_tensors"]  # type: ignore[operator]
        assert bucketed == sum(p.requires_grad for p in method.parameters())
    return {**found, **method.state_dict()}


def run_process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    restoration_terms.block_mask = every_second_block
    of_studies.kept_blocks = alternating_blocks
    separate_vae_term.noise_like = torch.zeros_like
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    results = {name: learn(name, half(double(views()), rank)) for name, (_, views) in HALVES.items()}
    dist.barrier()
    dist.destroy_process_group()
    torch.save(results, Path(folder) / f"{rank}.pt")


def test_two_processes_learn_what_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restoration_terms, "block_mask", every_second_block)
    monkeypatch.setattr(of_studies, "kept_blocks", alternating_blocks)
    monkeypatch.setattr(separate_vae_term, "noise_like", torch.zeros_like)
    in_two_processes(run_process, str(tmp_path))
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for name, (_, views) in HALVES.items():
        expected = learn(name, double(views()))
        assert any(key.startswith("grad network") for key in expected)
        for rank in ranks:
            assert rank[name].keys() == expected.keys()
            for key, value in expected.items():
                torch.testing.assert_close(rank[name][key], value, rtol=1e-8, atol=1e-11, msg=f"{name}: {key}")
