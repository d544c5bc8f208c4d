from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from forks import in_two_processes
from torch import Tensor

from monai_cl.losses import (
    AttributeLoss,
    CACRLoss,
    ClassContrastiveLoss,
    ClipLoss,
    CrossDomainSupConLoss,
    CrossVolumeLocalContrastiveLoss,
    DecoupledContrastiveLoss,
    DenseContrastiveLoss,
    KernelInfoNCELoss,
    KernelJointEntropyLoss,
    LocalRegionContrastiveLoss,
    MeanShiftedContrastiveLoss,
    NTXentLoss,
    PartitionContrastiveLoss,
    PositionalContrastiveLoss,
    SelfDistillationLoss,
    SepCLRLoss,
    SepVAELoss,
    SigLipLoss,
    SupConLoss,
    SymmetricInfoNCELoss,
    VICRegLoss,
    VolumeContrastLoss,
)

Loss = Callable[[Tensor, Tensor], Tensor]
COUNTS = {"equal": (6, 6), "unequal": (7, 5), "one row": (11, 1)}
PART, VOLUME = torch.arange(12) % 3, torch.arange(12) // 3
VALID = torch.rand(12, 8, 8, generator=torch.Generator().manual_seed(1)) < torch.linspace(0.2, 1, 12)[:, None, None]
LABELS = torch.randint(0, 3, (12, 8, 8), generator=torch.Generator().manual_seed(3))
LABELS[11], LABELS[:3] = LABELS[11] % 2, LABELS[:3] + (LABELS[:3] > 0)  # classes that one process alone has, or lacks
OVERLAP = torch.rand(12, 5, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64).softmax(2)
PARTNER = torch.tensor([1, 2, 3, 4, 5, 0, 7, 8, 9, 10, 11, 6])  # of the volume's own process
ONLY_EQUAL = {"volume"}  # a mean over volumes, which compares volumes of one process


def losses(rows: slice, *, gather: bool) -> dict[str, Loss]:
    part, volume = PART[rows], VOLUME[rows]
    ids = part, torch.arange(12)[rows] // 2, volume, torch.zeros_like(part)
    sick = (torch.arange(12)[rows] < 5).long()  # of two processes the second has healthy alone
    start, maps = rows.start or 0, (-1, 1, 8, 8)
    dense = DenseContrastiveLoss(2, num_anchors=None, exclusion_radius=1, gather=gather)
    cross = CrossVolumeLocalContrastiveLoss(2, 1, gather=gather)
    return {
        "nt_xent": lambda a, b: NTXentLoss(gather=gather)(a, b),
        "nt_xent sum": lambda a, b: NTXentLoss(gather=gather, reduction="sum")(a, b),
        "symmetric": lambda a, b: SymmetricInfoNCELoss(0.3, gather=gather)(a, b),
        "decoupled": lambda a, b: DecoupledContrastiveLoss(gather=gather)(a, b),
        "sup_con": lambda a, b: SupConLoss(gather=gather)(a * b, part),
        "positional": lambda a, b: PositionalContrastiveLoss(gather=gather)(a + b, part / 3),
        "gd-": lambda a, b: PartitionContrastiveLoss("gd-", gather=gather)(a + b, *ids),
        "gd": lambda a, b: PartitionContrastiveLoss("gd", gather=gather)(a + b, *ids),
        "ring": lambda a, b: PartitionContrastiveLoss(gather=gather, pairs="ring")(a + b, *ids),
        "local": lambda a, b: LocalRegionContrastiveLoss(2, 1, gather=gather)(a.reshape(maps), b.reshape(maps) ** 2),
        "cross": lambda a, b: cross(a.reshape(maps), b.reshape(maps) ** 2, part, volume),
        "dense": lambda a, b: dense(
            *(torch.cat([x, x**2], 1) for x in (a.reshape(maps), b.reshape(maps))), valid=VALID[rows]
        ),
        "volume": lambda a, b: VolumeContrastLoss()(
            a[:, :60].reshape(-1, 5, 12), b[:, :36].reshape(-1, 3, 12), OVERLAP[rows], partner=PARTNER[rows] - start
        )["loss"],
        **{
            f"class {form}": lambda a, b, form=form: ClassContrastiveLoss(
                2, num_anchors=None, form=form, gather=gather
            )(torch.stack([a.reshape(-1, 8, 8), b.reshape(-1, 8, 8)], 1), LABELS[rows], VALID[rows])
            for form in ("softmax", "published")
        },
        "distillation": lambda a, b: SelfDistillationLoss(16, teacher_temperature=0.5, gather=gather)(
            *(torch.stack([x[:, :16], y[:, :16]], 1) for x, y in ((a, b), (b, a))),
            *(torch.stack([x, y], 1).unflatten(2, (4, 16)) for x, y in ((a, b), (b, a))),
        )["loss"],
        "cross domain": lambda a, b: CrossDomainSupConLoss(gather=gather)(a * b, part, volume),
        "sep_clr": lambda a, b: SepCLRLoss(gather=gather)(a[:, :9], b[:, :9], a[:, 9:] / 4, b[:, 9:] / 4, sick)["loss"],
        "sep_vae": lambda a, b: SepVAELoss(gather=gather)(
            a.reshape(maps), b.reshape(maps), a[:, :9], b[:, :9], a[:, 9:], b[:, 9:], a[:, 0], sick
        )["loss"],
        "joint entropy": lambda a, b: KernelJointEntropyLoss(gather=gather)(a[:, :9], b[:, 9:] / 4),
        "attribute": lambda a, b: AttributeLoss(gather=gather)(a[:, 0], b[:, 0].detach()) + 0 * b.sum(),
        "vicreg": lambda a, b: VICRegLoss(gather=gather)(a, b),
        "relu": lambda a, b: SupConLoss(gather=gather, relu=True)(a * b, part),
        "cacr": lambda a, b: CACRLoss(gather=gather)(torch.stack([a, b, a * b])),
        "cacr rbf": lambda a, b: CACRLoss(repulsion="rbf", gather=gather)(torch.stack([a, b, a * b])),
        "cacr momentum": lambda a, b: CACRLoss("momentum", gather=gather)(torch.stack([a, b, a * b])),
        "cacr keys": lambda a, b: CACRLoss("momentum", gather=gather)(torch.stack([a, b]), a * b),
        "shifted": lambda a, b: MeanShiftedContrastiveLoss(
            torch.linspace(-0.1, 0.2, 64, dtype=torch.float64), gather=gather, angular=True
        )(a, b),
        **{
            kernel: lambda a, b, kernel=kernel: KernelInfoNCELoss(kernel, gather=gather)(a, b)
            for kernel in ("gaussian", "laplacian", "sum")
        },
        "clip": lambda a, b: ClipLoss(0.3, gather=gather).double()(a, b),
        "sig_lip": lambda a, b: SigLipLoss(0.3, -2, gather=gather).double()(a, b),
    }


def inputs() -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    return torch.randn(12, 64, generator=g, dtype=torch.float64), torch.randn(12, 64, generator=g, dtype=torch.float64)


def learn(loss: Loss, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    a, b = a.clone().requires_grad_(), b.clone().requires_grad_()
    value = loss(a, b)
    return value.detach(), *torch.autograd.grad(value, (a, b))


def run_process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    results = {}
    for name, counts in COUNTS.items():
        rows = slice(sum(counts[:rank]), sum(counts[: rank + 1]))
        a, b = (x[rows] for x in inputs())
        results[name] = {
            key: learn(loss, a, b)
            for key, loss in losses(rows, gather=True).items()
            if name == "equal" or key not in ONLY_EQUAL
        }
    dist.barrier()
    dist.destroy_process_group()
    torch.save(results, Path(folder) / f"{rank}.pt")


def test_every_loss_is_among_them() -> None:
    import inspect

    import monai_cl.losses as room

    every = {name for name in room.__all__ if name.endswith("Loss")}
    assert {name for name in every if name in inspect.getsource(losses)} == every


def test_two_processes_have_the_loss_and_gradient_of_one(tmp_path: Path) -> None:
    in_two_processes(run_process, str(tmp_path))
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for key, loss in losses(slice(None), gather=False).items():
        value, *gradients = learn(loss, *inputs())
        for name in ["equal"] if key in ONLY_EQUAL else COUNTS:
            values = [rank[name][key][0].item() for rank in ranks]
            values = [sum(values) / 2] if key in ONLY_EQUAL else values
            assert values == pytest.approx([value.item()] * len(values), rel=1e-10), (name, key)
            for i, expected in enumerate(gradients):
                found = torch.cat([rank[name][key][i + 1] for rank in ranks]) / 2  # averaged over processes
                torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10, msg=f"{name}: {key}")
