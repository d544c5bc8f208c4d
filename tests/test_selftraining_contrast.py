"""Contrast by class as a term of self-training."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from forks import in_two_processes
from ignite.engine import Events
from monai.losses import DiceCELoss
from monai.networks.nets import BasicUNet, DynUNet, SegResNet, SegResNetDS, UNet
from test_selftraining import SIZE, STEPS, batches, unet
from torch import Tensor, nn

from monai_cl.data import mixed_loader
from monai_cl.engine import Checkpoint, SelfTrainer, SelfTraining, class_contrast
from monai_cl.engine.selftraining_contrast import Embedded, EmbeddingHead
from monai_cl.networks import segmenter
from monai_cl.transforms import PseudoLabels

LOSS = DiceCELoss(to_onehot_y=True, softmax=True)
GROUP = ("group", {"num_groups": 1})  # does not depend on the batch


def trainer(
    network: nn.Module, data: Any, weight: float = 0.1, *, handlers: Any = (), epochs: int = 3, **options: Any
) -> SelfTrainer:
    torch.manual_seed(1)
    contrast = class_contrast(network, weight, num_classes=3, num_anchors=options.pop("num_anchors", 16))
    steps = options.pop("optimizer", torch.optim.AdamW)
    labels = PseudoLabels(3, confidence=0.35)
    method = SelfTraining(network, labels, contrast=contrast, **{"supervised": 0.3, "ramp_up": 0.0, **options})
    optimizer = steps(method.learner.parameters(), lr=0.01)
    return SelfTrainer(
        method, data, max_epochs=epochs, epoch_length=2, loss=LOSS, optimizer=optimizer, train_handlers=handlers
    )


def one_batch(dims: int, size: int = 16, channels: int = 1) -> dict[str, Tensor]:
    made = torch.Generator().manual_seed(0)
    shape = (2, channels, *(size,) * dims)
    found = {key: torch.rand(shape, generator=made) for key in ("image", "unlabelled")}
    return {**found, "label": torch.randint(0, 3, (2, 1, *shape[2:]), generator=made)}


DEEP: dict[str, Any] = {
    "spatial_dims": 2,
    "in_channels": 1,
    "out_channels": 3,
    "kernel_size": [3, 3, 3],
    "strides": [1, 2, 2],
    "upsample_kernel_size": [2, 2],
    "filters": [4, 4, 4],
    "deep_supervision": True,
    "deep_supr_num": 1,
}
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "SegResNet": lambda: SegResNet(3, 8, 1, 3, blocks_down=(1, 1), blocks_up=(1,)),
    "DynUNet, deep supervision": lambda: segmenter(DynUNet(**DEEP)),
    "SegResNetDS": lambda: segmenter(SegResNetDS(2, 8, 1, 3, blocks_down=(1, 1), dsdepth=2)),
    "UNet": lambda: UNet(3, 1, 3, (4, 8, 8), (2, 2), num_res_units=1),
    "BasicUNet": lambda: BasicUNet(2, 1, 3, (4, 4, 4, 4, 4, 4)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_head_and_network_learn_and_the_network_alone_is_handed_over(name: str) -> None:
    torch.manual_seed(0)
    network = NETWORKS[name]()
    batch = one_batch(3 if name in ("SegResNet", "UNet") else 2, 16 if name != "BasicUNet" else 32)
    run = trainer(network, [batch], epochs=1, supervised=0.0)
    run.state.epoch_length = 1
    contrast = run.method.contrast
    assert contrast is not None
    before = [one.clone() for one in contrast.parameters()]
    run.run()
    assert all(not torch.equal(a, b) for a, b in zip(before, contrast.parameters(), strict=True))
    assert set(run.state.output) == {"image", "label", "pred", "loss", "class_contrast"}
    assert not isinstance(run.state.output["pred"], Embedded)
    assert run.state.output["class_contrast"] > 0
    NETWORKS[name]().load_state_dict(run.method.network.state_dict())


def test_weight_and_form_decide_what_is_added_to_the_loss() -> None:
    batch = one_batch(2, channels=2)
    losses = {}
    for weight in (0.0, 0.1, 0.3):
        run = trainer(unet(), [batch], weight, epochs=1, num_anchors=None, supervised=0.0)
        run.state.epoch_length = 1
        run.run()
        losses[weight] = run.state.output
    added = losses[0.1]["class_contrast"]
    for weight in (0.1, 0.3):
        expected = losses[0.0]["loss"] + weight * added
        assert losses[weight]["loss"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_only_voxels_with_a_label_that_counts_take_part() -> None:
    contrast = class_contrast(unet(), 0.1, num_classes=3, num_anchors=None)
    assert contrast is not None
    targets = torch.full((2, 2, 4, 4), -1)
    targets[:, 0, :2], targets[:, 1, 2:, 1:] = torch.randint(0, 3, (2, 2, 4)), torch.randint(0, 3, (2, 2, 3))
    embedding = torch.randn(2, 5, 4, 4, requires_grad=True)
    for pseudo, counted in ((True, (targets >= 0).any(1)), (False, targets[:, 0] >= 0)):
        (gradient,) = torch.autograd.grad(contrast(embedding, targets, pseudo=pseudo), embedding)
        moved = gradient.abs().sum(1) > 0
        assert not bool(moved[~counted].any())
        assert bool(moved[counted].any())
        label = torch.where(targets[:, 0] < 0, targets[:, 1], targets[:, 0])
        assert contrast(embedding, targets, pseudo=pseudo) == contrast.loss(embedding, label, counted)


def test_without_pseudo_labels_weight_they_change_nothing() -> None:
    ends = []
    for threshold in (0.0, 0.9):
        run = trainer(unet(), mixed_loader(batches(), STEPS), u_weight=0.0)
        run.method.pseudo_labels.confidence = threshold
        run.run()
        ends.append(run.method.state_dict())
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])


def test_without_weight_there_is_no_head_and_no_number_is_drawn() -> None:
    torch.manual_seed(0)
    network = unet()
    state = torch.get_rng_state()
    contrast = class_contrast(network, 0.0, num_classes=3)
    method = SelfTraining(network, PseudoLabels(3), contrast=contrast)
    assert contrast is None
    assert method.learner is network
    assert torch.equal(state, torch.get_rng_state())
    assert not any("contrast" in key for key in method.state_dict())


def test_a_run_that_goes_on_ends_bit_for_bit_with_its_head_and_optimiser(tmp_path: Path) -> None:
    def run(folder: str, epochs: int) -> SelfTrainer:
        checkpoint = Checkpoint(tmp_path / folder, tmp_path / folder / "model.pt")
        made = trainer(unet(), mixed_loader(batches(), STEPS), handlers=[checkpoint])
        made.add_event_handler(Events.EPOCH_COMPLETED, lambda: made.terminate() if made.state.epoch == epochs else None)
        made.run()
        return made

    whole = run("whole", 3)
    assert run("broken", 1).state.iteration == 2
    torch.rand(3)
    resumed = run("broken", 3)
    assert any(key.startswith("contrast.head.") for key in whole.method.state_dict())
    for key, value in whole.method.state_dict().items():
        assert torch.equal(resumed.method.state_dict()[key], value), key
    expected, found = (one.optimizer.state_dict()["state"] for one in (whole, resumed))
    assert len(expected) == len(list(whole.method.learner.parameters()))
    assert all(torch.equal(found[n][key], value) for n, state in expected.items() for key, value in state.items())
    unet().load_state_dict(torch.load(tmp_path / "broken/model.pt", weights_only=True))


def process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    data = mixed_loader(batches(batch_size=2, rank=rank, world_size=2), STEPS)
    run = trainer(unet(GROUP), data, num_anchors=None, optimizer=torch.optim.SGD)
    run.run()
    torch.save((run.method.state_dict(), run.state.output["class_contrast"]), f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def test_two_processes_end_as_one_with_twice_the_batch(tmp_path: Path) -> None:
    in_two_processes(process, str(tmp_path))
    # plain steps: Adam hides the size of a gradient, and makes whole steps of one that is rounding alone
    data = mixed_loader(batches(batch_size=4), STEPS)
    run = trainer(unet(GROUP), data, num_anchors=None, optimizer=torch.optim.SGD)
    run.run()
    for rank in range(2):
        found, contrast = torch.load(tmp_path / f"{rank}.pt")
        torch.testing.assert_close(contrast, run.state.output["class_contrast"], rtol=1e-3, atol=1e-3)
        for key, value in run.method.state_dict().items():
            torch.testing.assert_close(found[key], value, rtol=1e-3, atol=1e-5, msg=f"{rank}: {key}")


def test_head_centres_and_scales_each_channel_over_the_batch() -> None:
    head = EmbeddingHead(2, 3)
    maps = torch.rand(2, 3, *SIZE) + 5
    found = head.first(maps)
    expected = (found - found.mean((0, 2, 3), keepdim=True)) / found.std((0, 2, 3), keepdim=True, correction=0)
    torch.testing.assert_close(head(maps), head.last(expected.relu()), rtol=1e-3, atol=1e-3)


def test_what_cannot_be_contrasted_is_refused() -> None:
    with pytest.raises(ValueError, match=re.escape("class_contrast must be a weight of at least 0, got -0.1")):
        class_contrast(unet(), -0.1, num_classes=3)
    with pytest.raises(ValueError, match=r"class_contrast looks at the network's last map: .*or set class_contrast"):
        class_contrast(nn.Conv2d(1, 3, 1), 0.1, num_classes=3)
    network = unet()
    method = SelfTraining(network, PseudoLabels(3), contrast=class_contrast(network, 0.1, num_classes=3))
    with pytest.raises(ValueError, match=r"optimizer must move the head of class_contrast, which it does not hold"):
        SelfTrainer(
            method, [], max_epochs=1, epoch_length=1, loss=LOSS, optimizer=torch.optim.SGD(network.parameters(), lr=0.1)
        )
