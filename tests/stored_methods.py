"""Named methods on fixed batches, and what version 0.1.0 made of them.

``tests/data/methods_0_1_0`` holds, for each case, the checkpoint of a run of two steps (``NAME.pt.gz``) and, in
``values.json``, losses and gradients from that state and the losses and weights of the two steps that follow. They were
made with version 0.1.0, torch 2.13.0 on a CPU, by ``python tests/stored_methods.py FOLDER``; later versions must give
the same from the same checkpoints.
"""

import gzip
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events
from monai.networks.nets import UNet
from torch import Tensor, nn

from monai_cl.engine import Checkpoint, PretrainTrainer, adamw, warmup_cosine
from monai_cl.losses import DenseContrastiveLoss
from monai_cl.methods import (
    GlobalLocalContrast,
    MaskedReconstruction,
    Method,
    SequenceContrast,
    VolumeContrast,
    VolumeDenseContrast,
    VoxelPosition,
)

STORED = Path(__file__).parent / "data" / "methods_0_1_0"
BEFORE, STEPS = 2, 4  # steps of the stored run, steps of the whole
SIZE = 8


def rand(*shape: int, seed: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def grid(b: int, *, dims: int = 3) -> dict[str, Tensor]:
    """Places of two views of each volume in mm; the second is moved by two voxels along the first axis."""
    axes = torch.stack(torch.meshgrid(*[torch.arange(SIZE).float()] * dims, indexing="ij"))
    moved = axes + torch.tensor([2.0] + [0.0] * (dims - 1)).reshape(dims, *[1] * dims)
    coords = torch.stack([axes, moved]).expand(b, 2, dims, *[SIZE] * dims).clone()
    return {"coords": coords, "valid": torch.ones(b, 2, *[SIZE] * dims, dtype=torch.bool)}


def crops() -> dict[str, Tensor]:
    overlap = rand(2, 3, 4, seed=2) * (rand(2, 3, 4, seed=3) > 0.4)
    return {
        "crops": rand(2, 3, 1, SIZE, SIZE, SIZE, seed=0),
        "bases": rand(2, 4, 1, SIZE, SIZE, SIZE, seed=1),
        "overlap": overlap / overlap.sum(-1, keepdim=True).clamp(min=1e-3),
    }


def pairs(b: int = 2) -> Tensor:
    first = rand(b, 1, 1, SIZE, SIZE, SIZE, seed=4)
    return torch.cat([first, first.roll(-2, dims=3)], dim=1) + 0.05 * rand(b, 2, 1, SIZE, SIZE, SIZE, seed=5)


def of_slices() -> dict[str, Any]:
    return {
        "image": pairs(4),
        **grid(4),
        "partition": torch.tensor([0, 1, 0, 1]),
        "volume": torch.tensor([0, 0, 1, 1]),
        "position": torch.tensor([0.1, 0.6, 0.15, 0.7]),
    }


def network() -> nn.Module:
    return UNet(spatial_dims=3, in_channels=1, out_channels=2, channels=(2, 4, 4), strides=(2, 2), num_res_units=1)


def volume_contrast(**options: Any) -> VolumeContrast:
    return VolumeContrast(network(), SIZE, **{"hidden": 12, "embedding": 6, "dropout": 0.0, **options})


def global_local(**options: Any) -> GlobalLocalContrast:
    small = {"hidden": 12, "embedding": 6, "blocks": 1, "num_anchors": None}
    return GlobalLocalContrast(network(), SIZE, **{**small, **options})


def sequence(**options: Any) -> SequenceContrast:
    dense = DenseContrastiveLoss(3, num_anchors=None)
    small = {"hidden": 12, "embedding": 6, "dense_embedding": 6, "dense_loss": dense}
    return SequenceContrast(network(), SIZE, **{**small, **options})


def sequence_batch() -> dict[str, Any]:
    return {"image": {"views": pairs(), **grid(2), "target": rand(2, 2, 1, SIZE, SIZE, SIZE, seed=6)}}


CASES: dict[str, tuple[Callable[[], Method], Callable[[], dict[str, Any]]]] = {
    **{
        f"volume_contrast_{variant}": (lambda v=variant: volume_contrast(variant=v), lambda: {"image": crops()})
        for variant in ("monai_cl", "cvpr", "10k", "v2")
    },
    "volume_contrast_bases_without_gradient": (
        lambda: volume_contrast(bases_without_gradient=True),
        lambda: {"image": crops()},
    ),
    "volume_dense_contrast": (
        lambda: VolumeDenseContrast(volume_contrast(), SIZE, blocks=1, num_anchors=None, position_weight=0.5),
        lambda: {"image": crops(), "pair": pairs(), **grid(2)},
    ),
    "volume_dense_contrast_alone": (
        lambda: VolumeDenseContrast(volume_contrast(), SIZE, blocks=1, num_anchors=None, position_weight=0.0),
        lambda: {"image": crops(), "pair": pairs(), **grid(2)},
    ),
    "global_gd": (lambda: global_local(contrast="gd", levels="all"), of_slices),
    "global_position": (lambda: global_local(contrast="position"), of_slices),
    "joint": (lambda: global_local(contrast="nt_xent", dense_weight=0.5, exclusion_radius=1.5), of_slices),
    "dense_frozen": (lambda: global_local(global_weight=0.0, dense_weight=1.0, freeze_encoder=True), of_slices),
    "sequence_contrast": (sequence, sequence_batch),
    "sequence_contrast_all_maps": (
        lambda: sequence(dense_on="all", global_weight=0.5, reconstruction_weight=0.0),
        sequence_batch,
    ),
    "masked_reconstruction": (lambda: MaskedReconstruction(network(), block_size=2), lambda: {"image": pairs()[:, 0]}),
    "voxel_position": (lambda: VoxelPosition(network(), hidden=6), lambda: {"image": pairs(), **grid(2)}),
}


def trainer(method: Method, batch: dict[str, Any], folder: Path, steps: int) -> PretrainTrainer:
    optimizer = adamw(method, 1e-2)
    return PretrainTrainer(
        "cpu",
        steps // BEFORE,
        [batch] * BEFORE,
        method,
        optimizer,
        epoch_length=BEFORE,
        scheduler=warmup_cosine(optimizer, STEPS),
        train_handlers=[Checkpoint(folder, folder / "network.pt")],
    )


def unpacked(checkpoint: Path) -> bytes:
    return gzip.decompress(checkpoint.read_bytes())


def measured(name: str, checkpoint: Path, folder: Path) -> dict[str, Any]:
    """Losses and gradients from the state of a checkpoint, then losses and weights of the steps that follow."""
    make, views = CASES[name]
    torch.manual_seed(1)
    method = make()
    content = torch.load(io.BytesIO(unpacked(checkpoint)), weights_only=True)
    method.load_state_dict(content["method"])
    method.train()
    torch.manual_seed(2)  # for the mask of the reconstruction
    losses = method(views())
    losses["loss"].backward()
    network = {n: p for n, p in method.network.named_parameters() if p.grad is not None}
    mine = {id(p) for p in method.network.parameters()}
    heads = [p.grad for p in method.parameters() if p.grad is not None and id(p) not in mine]
    return {
        "losses": {key: float(value.detach()) for key, value in losses.items()},
        "gradients": {n: float(p.grad.norm()) for n, p in network.items() if p.grad is not None},
        "heads": float(torch.stack([g.norm() for g in heads]).norm()) if heads else 0.0,
        **_followed(name, checkpoint, folder),
    }


def _followed(name: str, checkpoint: Path, folder: Path) -> dict[str, Any]:
    make, views = CASES[name]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "checkpoint.pt").write_bytes(unpacked(checkpoint))
    torch.manual_seed(3)
    engine = trainer(make(), views(), folder, STEPS)
    steps: list[float] = []
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda e: steps.append(float(e.state.output["loss"])))
    engine.run()
    state = engine.inner_method.network.state_dict()
    return {"steps": steps, "weights": {n: float(t.double().norm()) for n, t in state.items() if t.is_floating_point()}}


def main(folder: Path) -> None:
    """Make the stored values: with the version that later ones must equal."""
    values = {}
    for name, (make, views) in CASES.items():
        work = folder / "work" / name
        torch.manual_seed(0)
        trainer(make(), views(), work, BEFORE).run()
        target = folder / f"{name}.pt.gz"
        target.write_bytes(gzip.compress((work / "checkpoint.pt").read_bytes(), mtime=0))
        values[name] = measured(name, target, work / "again")
    (folder / "values.json").write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
