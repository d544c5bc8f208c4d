"""Self-training with a mean teacher, step by step against loops."""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from forks import in_two_processes
from ignite.engine import Events
from monai.data import MetaTensor
from monai.losses import DiceCELoss
from monai.networks.nets import BasicUNet, DynUNet
from monai.transforms import Compose, RandGaussianNoised, RandSpatialCropd
from torch import Tensor, nn

from monai_cl.data import MixedBatches, mixed_loader, without_labels
from monai_cl.engine import (
    Checkpoint,
    CheckpointMismatchError,
    History,
    PartsLoss,
    PseudoLabelSignals,
    SelfTrainer,
    SelfTraining,
    read_history,
)
from monai_cl.networks import segmenter
from monai_cl.transforms import Pseudo, PseudoLabels
from monai_cl.transforms.copy_paste import draw_box, outside_of

SIZE = (16, 16)
STEPS = 6


def unet(norm: Any = "batch") -> nn.Module:
    torch.manual_seed(0)
    return BasicUNet(
        spatial_dims=2, in_channels=2, out_channels=3, features=(4, 4, 4, 4, 4, 4), norm=norm
    )  # two channels, three classes


def volumes(number: int, seed: int) -> list[dict[str, Any]]:
    g = torch.Generator().manual_seed(seed)
    items = []
    for n in range(number):
        label = torch.zeros(1, 20, 20)
        label[:, 4:12, 5:10], label[:, 8:16, 11:17] = 1, 2
        image = label.expand(2, -1, -1) + 0.3 * torch.randn(2, 20, 20, generator=g)
        items.append({"image": image, "label": label, "case": f"v{seed}{n}"})
    return items


def alter(*keys: str) -> Compose:
    return Compose([RandSpatialCropd(keys, SIZE, random_size=False), RandGaussianNoised("image", prob=1.0)])


def batches(unlabelled: list[dict[str, Any]] | None = None, **options: Any) -> MixedBatches:
    return MixedBatches(
        volumes(3, 1), volumes(4, 2) if unlabelled is None else unlabelled,
        alter_labelled=alter("image", "label"), alter_unlabelled=alter("image"), **{"batch_size": 2, **options},
    )  # fmt: skip


def trainer(
    network: nn.Module | None = None, data: Any = None, *, handlers: Any = (), epochs: int = 3, **options: Any
) -> SelfTrainer:
    network = unet() if network is None else network
    method = SelfTraining(network, PseudoLabels(3), **{"supervised": 0.0, "ramp_up": 0.0, **options})
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    return SelfTrainer(
        method, mixed_loader(batches(), STEPS) if data is None else data, max_epochs=epochs, epoch_length=2,
        loss=DiceCELoss(to_onehot_y=True, softmax=True, include_background=False), optimizer=optimizer,
        scheduler=torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9), train_handlers=handlers,
    )  # fmt: skip


def certainly(labels: Tensor) -> Pseudo:
    return Pseudo(labels, torch.ones_like(labels, dtype=torch.bool), torch.ones_like(labels, dtype=torch.float))


def dice_ce(logits: Tensor, label: Tensor, part: Tensor) -> Tensor:
    """Loss of one image (K, *S) on the voxels of a part, written out."""
    share = logits.softmax(0)
    voxels = part.nonzero().tolist()
    if not voxels:
        return logits.sum() * 0
    entropy = torch.stack([-share[int(label[i, j]), i, j].log() for i, j in voxels]).mean()
    dice = []
    for k in range(1, len(logits)):
        p = torch.stack([share[k, i, j] for i, j in voxels])
        y = torch.tensor([float(label[i, j] == k) for i, j in voxels])
        dice.append(1 - (2 * (p * y).sum() + 1e-5) / (p.sum() + y.sum() + 1e-5))
    return torch.stack(dice).mean() + entropy


def step_of(method: SelfTraining, batch: dict[str, Any], step: int, pseudo: Tensor, weight: float) -> Tensor:
    """Loss of a step with some pseudo-labels, written out over images."""
    image, label, other = batch["image"], batch["label"][:, 0], batch["unlabelled"]
    outside = outside_of(draw_box(SIZE, method.ratio, np.random.default_rng([method.seed, step])), SIZE)
    mixed = [torch.where(outside, x, u) for x, u in zip(image, other, strict=True)]
    mixed += [torch.where(outside, u, x) for x, u in zip(image, other, strict=True)]
    logits = method.student(torch.stack(mixed))
    terms = []
    for n in range(len(image)):
        for which, true in ((n, outside), (len(image) + n, ~outside)):
            terms.append(dice_ce(logits[which], label[n], true) + weight * dice_ce(logits[which], pseudo[n, 0], ~true))
    return torch.stack(terms).mean()


def first_step(run: SelfTrainer) -> tuple[float, dict[str, Tensor]]:
    batch = run.data_loader.dataset[0]
    run.data_loader = [batch]
    run.state.max_epochs, run.state.epoch_length = 1, 1
    losses: list[float] = []
    from monai.engines.utils import IterationEvents

    run.add_event_handler(IterationEvents.BACKWARD_COMPLETED, lambda: losses.append(run.state.output["loss"].item()))
    run.run()
    return losses[0], {n: p.grad.clone() for n, p in run.method.student.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("u_weight", [0.0, 0.5, 1.0])
def test_loss_and_gradient_are_those_of_loops_with_true_labels_for_pseudo_labels(u_weight: float) -> None:
    run = trainer(u_weight=u_weight)
    truth = torch.randint(0, 3, (2, 1, *SIZE), generator=torch.Generator().manual_seed(5))
    run.method.pseudo_labels = lambda logits: certainly(truth)  # type: ignore[assignment]
    twin = trainer(u_weight=u_weight).method.train()
    expected = step_of(twin, run.data_loader.dataset[0], 1, truth, u_weight)
    expected.backward()
    loss, gradient = first_step(run)
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    for name, parameter in twin.student.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(gradient[name], parameter.grad, rtol=1e-4, atol=1e-6)


def test_without_weight_pseudo_labels_change_nothing() -> None:
    found = []
    for shift in (0, 1):
        run = trainer(u_weight=0.0)
        label = torch.full((2, 1, *SIZE), shift)
        run.method.pseudo_labels = lambda logits, label=label: certainly(label)  # type: ignore[assignment]
        run.run()
        found.append(run.method.state_dict())
    assert all(torch.equal(found[0][key], found[1][key]) for key in found[0])


def test_targets_of_both_mixes_say_which_part_is_whose() -> None:
    method = trainer().method
    batch = batches()[0]
    truth = torch.randint(0, 3, (2, 1, *SIZE))
    certain = torch.rand(2, 1, *SIZE) < 0.5
    method.pseudo_labels = lambda logits: Pseudo(truth, certain, torch.ones(()))  # type: ignore[assignment]
    images, targets = method.mix(batch, 4, 0.9)
    outside = outside_of(draw_box(SIZE, 2 / 3, np.random.default_rng([0, 4])), SIZE)
    for n in range(2):
        inward, outward = targets[n], targets[2 + n]
        assert torch.equal(inward[0], torch.where(outside, batch["label"][n, 0].long(), -1))
        assert torch.equal(outward[0], torch.where(outside, -1, batch["label"][n, 0].long()))
        pseudo = torch.where(certain[n, 0], truth[n, 0], -1)
        assert torch.equal(inward[1], torch.where(outside, -1, pseudo))
        assert torch.equal(outward[1], torch.where(outside, pseudo, -1))
        assert torch.equal(images[n], torch.where(outside, batch["image"][n], batch["unlabelled"][n]))
        assert torch.equal(images[2 + n], torch.where(outside, batch["unlabelled"][n], batch["image"][n]))


@pytest.mark.parametrize("progress", [0.2, 0.9])
def test_a_box_of_the_whole_patch_pastes_nothing(progress: float) -> None:
    method = trainer(supervised=0.5, ratio=1.0).method
    batch = {**batches()[0], "unlabelled_changed": torch.rand(2, 2, *SIZE)}
    truth = torch.randint(0, 3, (2, 1, *SIZE))
    method.pseudo_labels = lambda logits: certainly(truth)  # type: ignore[assignment]
    images, targets = method.mix(batch, 4, progress)
    label = batch["label"].long()
    if progress < 0.5:
        assert torch.equal(images, batch["image"].flip(0))
        assert torch.equal(targets, torch.cat([label.flip(0), torch.full_like(label, -1)], 1))
    else:
        none = torch.full_like(label, -1)
        assert torch.equal(images, torch.cat([batch["unlabelled_changed"], batch["image"]]))
        assert torch.equal(targets, torch.cat([torch.cat([none, truth], 1), torch.cat([label, none], 1)]))


@pytest.mark.parametrize("labels_one_hot", [False, True])
def test_class_weights_scale_the_cross_entropy_of_one_hot_labels_alone(labels_one_hot: bool) -> None:
    loss = PartsLoss(DiceCELoss(softmax=True, to_onehot_y=not labels_one_hot, lambda_dice=0.0,
                                weight=torch.tensor([0.4, 1.0])))  # fmt: skip
    logits, label = torch.randn(1, 2, 5), torch.tensor([[[0, 0, 1, 0, -1]]])
    target = torch.cat([label, torch.full_like(label, -1)], 1)
    weight = torch.tensor([0.4, 0.4, 1.0, 0.4])
    costs = -weight * logits[0, :, :4].log_softmax(0).gather(0, label[0, :, :4])[0]
    divisor = 4 if labels_one_hot else weight.sum()
    assert loss(logits, target).item() == pytest.approx((costs.sum() / divisor).item(), rel=1e-5)


def test_one_hot_labels_have_the_same_loss_over_maps_of_several_sizes() -> None:
    maps = [torch.randn(2, 3, 8, 8), torch.randn(2, 3, 4, 4)]
    label = torch.randint(-1, 3, (2, 1, 8, 8))
    target = torch.cat([label, label.flip(2)], 1)
    ends = []
    for numbers in (False, True):
        loss = PartsLoss(DiceCELoss(softmax=True, to_onehot_y=numbers))
        loss.weight = 0.5
        ends.append(loss(maps, target).item())
    assert ends[0] == pytest.approx(ends[1], rel=1e-5)


def test_the_teacher_labels_the_easy_patch_and_the_student_learns_from_the_changed_one() -> None:
    run = trainer()
    batch = run.data_loader.dataset[0]
    batch["unlabelled_changed"] = 3 - 2 * batch["unlabelled"]
    asked: list[Tensor] = []
    label = run.method.label
    run.method.label = lambda images: asked.append(images) or label(images)  # type: ignore[method-assign, assignment, func-returns-value]
    mixed, targets = run.method.mix(batch, 1, 0.5)
    (seen,) = asked
    assert torch.equal(seen, batch["unlabelled"])
    outside = outside_of(draw_box(SIZE, run.method.ratio, np.random.default_rng([run.method.seed, 1])), SIZE)
    other, image = batch["unlabelled_changed"], batch["image"]
    assert torch.equal(mixed, torch.cat([torch.where(outside, image, other), torch.where(outside, other, image)]))
    del batch["unlabelled_changed"]
    assert torch.equal(run.method.mix(batch, 1, 0.5)[1], targets)


def test_at_first_labelled_images_are_mixed_with_each_other_and_the_teacher_is_not_asked() -> None:
    method = trainer(supervised=0.5).method
    method.teacher.forward = None  # type: ignore[assignment]
    batch = batches()[0]
    images, targets = method.mix(batch, 1, 0.49)
    outside = outside_of(draw_box(SIZE, 2 / 3, np.random.default_rng([0, 1])), SIZE)
    for n in range(2):
        assert torch.equal(images[n], torch.where(outside, batch["image"][n], batch["image"][1 - n]))
        assert torch.equal(targets[n, 0], torch.where(outside, batch["label"][n, 0], batch["label"][1 - n, 0]).long())
    assert bool((targets[:, 1] == -1).all())
    assert method.weight(0.49) == 0


def test_ignored_voxels_stay_without_a_target() -> None:
    method = trainer(supervised=1.0, ignore_index=255).method
    batch = batches()[0]
    batch["label"][:, :, :5] = 255
    targets = method.mix(batch, 1, 0.0)[1]
    assert torch.equal(targets[:, 0] == -1, batch["label"][:, 0] == 255)


def test_the_teacher_is_the_moving_average_with_buffers_and_never_has_a_gradient() -> None:
    run = trainer(momentum=0.7)
    expected = {key: value.clone() for key, value in run.method.student.state_dict().items()}
    names = {name for name, _ in run.method.student.named_parameters()}
    counts = {key for key in expected if key.endswith("num_batches_tracked")}  # integers have no average

    def follow() -> None:
        m = min(0.7, 1 - 1 / (run.state.iteration + 1))
        for key, value in run.method.student.state_dict().items():
            expected[key] = value.clone() if key in counts else m * expected[key] + (1 - m) * value

    run.add_event_handler(Events.ITERATION_COMPLETED, follow)
    run.run()
    found = run.method.teacher.module.state_dict()
    assert any("running_mean" in key for key in found)
    assert counts
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value)
    assert all(p.grad is None and not p.requires_grad for p in run.method.teacher.parameters())
    assert not all(torch.equal(found[key], run.method.student.state_dict()[key]) for key in names)


@pytest.mark.parametrize(("weight", "labelled_foreground"), [(1.0, False), (0.4, True)])
def test_a_background_that_weighs_less_lets_the_teacher_label_what_is_likelier_background(
    weight: float, labelled_foreground: bool
) -> None:
    # the optimum of cross-entropy with weights w is w_k p_k / sum_j w_j p_j: 0.4 / (0.4 + 0.6 w) at p = 0.4
    truth = torch.tensor([[0.6], [0.4]]).expand(2, 5)[None]  # two of five such voxels are foreground
    logits = torch.zeros(1, 2, 5, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], lr=0.5, max_iter=200)
    weights = torch.tensor([weight, 1.0])

    def cost() -> Tensor:
        optimizer.zero_grad()
        loss = -(weights[:, None] * truth * logits.log_softmax(1)).sum()
        loss.backward()
        return loss

    optimizer.step(cost)
    expected = 0.4 / (0.4 + 0.6 * weight)
    torch.testing.assert_close(logits.softmax(1)[0, 1].detach(), torch.full((5,), expected), rtol=1e-3, atol=0)
    assert bool(PseudoLabels(2, largest=[])(logits.detach()[:, :, None]).labels.all()) == labelled_foreground


def test_the_weight_rises_after_the_labelled_start() -> None:
    method = SelfTraining(unet(), PseudoLabels(3), u_weight=0.5, supervised=0.2, ramp_up=0.4)
    weights = [method.weight(p) for p in (0.0, 0.19, 0.2, 0.4, 0.6, 1.0)]
    assert weights == pytest.approx([0, 0, 0.5 * math.exp(-5), 0.5 * math.exp(-1.25), 0.5, 0.5])


def test_no_label_of_an_unlabelled_volume_is_ever_read() -> None:
    class Planted(dict[str, Any]):
        def __getitem__(self, key: str) -> Any:
            if key == "label":
                raise AssertionError("the label of an unlabelled volume was read")
            return super().__getitem__(key)

    clean, planted = without_labels(volumes(4, 2)), [Planted(one) for one in volumes(4, 2)]
    for one in planted:
        one["label"] = torch.full((1, 20, 20), 99.0)
    ends = []
    for unlabelled in (clean, planted):
        run = trainer(data=mixed_loader(batches(unlabelled), STEPS))
        run.run()
        ends.append(run.method.state_dict())
    assert all("label" not in one for one in clean)
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])


@pytest.mark.parametrize("exports", ["teacher", "student"])
def test_a_run_that_goes_on_ends_bit_for_bit_as_one_without_a_break(tmp_path: Path, exports: str) -> None:
    def run(folder: str, epochs: int) -> SelfTrainer:
        checkpoint = Checkpoint(tmp_path / folder, tmp_path / folder / "model.pt")
        files = [
            History(tmp_path / folder / "history.csv", every=4),
            PseudoLabelSignals(tmp_path / folder / "signals.csv"),
        ]
        made = trainer(handlers=[checkpoint, *files], exports=exports)
        made.add_event_handler(Events.EPOCH_COMPLETED, lambda: made.terminate() if made.state.epoch == epochs else None)
        made.run()
        return made

    whole = run("whole", 3)
    assert run("broken", 1).state.iteration == 2
    torch.rand(3)
    resumed = run("broken", 3)
    assert resumed.state.iteration == whole.state.iteration == STEPS
    for key, value in whole.method.state_dict().items():
        assert torch.equal(resumed.method.state_dict()[key], value), key
    for name in ("history.csv", "signals.csv"):
        assert (tmp_path / "broken" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    exported = torch.load(tmp_path / "broken/model.pt", weights_only=True)
    expected = whole.method.teacher.module if exports == "teacher" else whole.method.student
    assert all(torch.equal(exported[key], value) for key, value in expected.state_dict().items())
    unet().load_state_dict(exported)


def test_another_option_does_not_go_on(tmp_path: Path) -> None:
    trainer(handlers=[Checkpoint(tmp_path, tmp_path / "model.pt")]).run()
    with pytest.raises(CheckpointMismatchError, match=r"method.u_weight: 0.5 -> 0.4"):
        trainer(handlers=[Checkpoint(tmp_path, tmp_path / "model.pt")], u_weight=0.4).run()


def process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    data = mixed_loader(batches(batch_size=2, rank=rank, world_size=2), STEPS)
    signals = PseudoLabelSignals(f"{folder}/two.csv")
    run = trainer(unet(("group", {"num_groups": 1})), data, handlers=[signals], supervised=0.3)
    run.method.pseudo_labels.confidence = 0.4
    run.run()
    torch.save(run.method.state_dict(), f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def test_two_processes_end_as_one_with_twice_the_batch(tmp_path: Path) -> None:
    in_two_processes(process, str(tmp_path))
    data = mixed_loader(batches(batch_size=4), STEPS)
    signals = PseudoLabelSignals(tmp_path / "one.csv")
    run = trainer(unet(("group", {"num_groups": 1})), data, handlers=[signals], supervised=0.3)
    run.method.pseudo_labels.confidence = 0.4
    run.run()
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt")
        for key, value in run.method.state_dict().items():
            torch.testing.assert_close(found[key], value, rtol=1e-3, atol=1e-4, msg=f"{rank}: {key}")
    for two, one in zip(read_history(tmp_path / "two.csv"), read_history(tmp_path / "one.csv"), strict=True):
        assert two == pytest.approx(one, abs=0.01)


def test_three_dimensions_and_deep_supervision_train() -> None:
    torch.manual_seed(0)
    network = segmenter(
        DynUNet(
            3,
            1,
            2,
            kernel_size=[3, 3, 3],
            strides=[1, 2, 2],
            upsample_kernel_size=[2, 2],
            filters=[4, 4, 4],
            deep_supervision=True,
            deep_supr_num=1,
        )
    )
    batch = {key: torch.rand(1, 1, 8, 12, 8) for key in ("image", "unlabelled")}
    batch["label"] = torch.zeros(1, 1, 8, 12, 8)
    method = SelfTraining(network, PseudoLabels(2), supervised=0.0)
    run = SelfTrainer(
        method, [batch], max_epochs=1, epoch_length=1, loss=DiceCELoss(to_onehot_y=True, softmax=True),
        optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
    )  # fmt: skip
    run.run()
    assert set(run.state.output) == {"image", "label", "pred", "loss"}
    assert run.state.output["image"].shape == (2, 1, 8, 12, 8)
    assert bool(run.state.output["loss"].isfinite())
    assert not any(one.requires_grad for one in (run.state.output["loss"], *run.state.output["pred"]))


def test_batches_follow_from_the_step_and_are_shares_of_one() -> None:
    one = batches(batch_size=4)
    parts = [batches(rank=rank, world_size=2) for rank in range(2)]
    for step in (0, 3, 1):
        for key in ("image", "label", "unlabelled"):
            assert torch.equal(torch.cat([part[step][key] for part in parts]), one[step][key])
    cases = [case for step in range(3) for case in batches()[step]["case"]]
    assert sorted(cases[:3]) == sorted(cases[3:]) == ["v10", "v11", "v12"]


def test_a_changed_patch_lies_at_the_same_places_and_follows_from_the_step() -> None:
    def change(item: dict[str, Any]) -> dict[str, Any]:
        return {**item, "changed": item["image"] + 1}

    both = batches(unlabelled=volumes(4, 2))
    assert "unlabelled_changed" not in both[0]
    both.unlabelled.transform = Compose([both.unlabelled.transform, change])
    for step in (0, 3):
        batch = both[step]
        assert torch.equal(batch["unlabelled_changed"], batch["unlabelled"] + 1)
        assert torch.equal(batch["unlabelled_changed"], both[step]["unlabelled_changed"])


def mixed(known: list[dict[str, Any]], others: list[dict[str, Any]]) -> MixedBatches:
    return MixedBatches(known, others, alter_labelled=alter("image"), alter_unlabelled=alter("image"), batch_size=1)


def test_unlabelled_volumes_of_another_modality_or_number_of_channels_are_refused_by_name() -> None:
    known, others = ([{**one, "modality": "MR"} for one in volumes(number, number)] for number in (2, 4))
    mixed(known, others)
    others[1]["modality"] = "CT"
    text = "must be of the modality of the labelled ones, MR, 1 of 4 are not (v41: CT); take them out of the datalist"
    with pytest.raises(ValueError, match=re.escape(text)):
        mixed(known, others)
    others[1] = {**others[1], "modality": "MR", "image": torch.zeros(1, 20, 20)}
    with pytest.raises(ValueError, match=r"number of channels of the labelled ones, 2, 1 of 4 are not \(v41: 1\)"):
        mixed(known, others)
    for one in known:
        del one["modality"]  # of a list that does not say
    mixed(known, [{**one, "modality": "CT"} for one in volumes(4, 4)])


def test_unlabelled_volumes_of_another_spacing_are_counted_and_named(caplog: pytest.LogCaptureFixture) -> None:
    def spaced(item: dict[str, Any], *size: float) -> dict[str, Any]:
        return {**item, "image": MetaTensor(item["image"], affine=torch.diag(torch.tensor([*size, 1.0, 1.0])))}

    known = [spaced(one, 1.0, 1.5) for one in volumes(2, 1)]
    others = [spaced(one, 1.9, 0.8) for one in volumes(3, 2)]
    mixed(known, others)
    assert not caplog.records
    others[2] = spaced(volumes(3, 2)[2], 2.1, 1.5)
    mixed(known, others)
    assert "1 of 3 unlabelled volumes have voxels more than 2 times as large" in caplog.text
    assert "(v22: 2.1 x 1.5 mm); give the recipe a spacing that suits all" in caplog.text


def test_mixup_has_no_place_in_self_training() -> None:
    with pytest.raises(ValueError, match=r"mixup must be 0 in self-training, got 0\.2; leave it out, or paste patches"):
        SelfTrainer(
            SelfTraining(unet(), PseudoLabels(3)), [], max_epochs=1, epoch_length=1, loss=DiceCELoss(),
            optimizer=torch.optim.SGD(unet().parameters(), lr=0.1), mixup=0.2,
        )  # fmt: skip


@pytest.mark.parametrize("name", ["labelled", "unlabelled"])
def test_without_volumes_of_a_kind_it_is_refused(name: str) -> None:
    given: dict[str, Any] = {"labelled": volumes(1, 1), "unlabelled": volumes(1, 2), name: []}
    with pytest.raises(ValueError, match=f"self-training needs at least one {name} volume, got none"):
        MixedBatches(**given, alter_labelled=alter("image"), alter_unlabelled=alter("image"), batch_size=1)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"ratio": 0.0}, "ratio must be above 0 and at most 1, got 0.0"),
        ({"u_weight": -1.0}, "u_weight must be at least 0, got -1.0"),
        ({"momentum": 1.5}, "momentum must be between 0 and 1, got 1.5"),
        ({"supervised": -0.1}, "supervised must be between 0 and 1, got -0.1"),
        ({"ramp_up": 2.0}, "ramp_up must be between 0 and 1, got 2.0"),
        ({"exports": "both"}, "exports must be one of ('teacher', 'student'), got 'both'"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(text)):
        SelfTraining(nn.Identity(), PseudoLabels(2), **options)


def test_patches_of_another_shape_are_refused() -> None:
    batch = batches()[0]
    batch["unlabelled"] = batch["unlabelled"][:, :1]
    with pytest.raises(
        ValueError, match=re.escape("unlabelled must have the shape of image, (2, 2, 16, 16), got (2, 1")
    ):
        trainer().method.mix(batch, 1, 0.5)
