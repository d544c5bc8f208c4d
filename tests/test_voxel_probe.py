"""The look at what frozen features know of the labels, and the bound on the gradient of fine-tuning."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.engines import SupervisedTrainer
from monai.networks.nets import SegResNet
from torch import Tensor, nn

from monai_cl import recipes
from monai_cl.data import probe_patches
from monai_cl.engine import ClipGradients, HealthProbe, PretrainTrainer, adamw, label_probe, read_history
from monai_cl.engine.voxel_probe import NEAR, draw_voxels, voxel_features
from monai_cl.methods import Method, VolumeContrast


class Pyramid(SegResNet):
    """An encoder whose finest map is the image and whose coarser one its average over cells of two."""

    def encode(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        return x, [x, nn.functional.avg_pool3d(x, 2)]


def labelled(count: int = 4, *, told: bool = True) -> list[dict[str, Any]]:
    """Patches whose two channels tell the class, or are noise."""
    g = torch.Generator().manual_seed(0)
    patches = []
    for _ in range(count):
        label = torch.zeros(1, 12, 12, 8)
        label[:, 2:6, 3:9, 2:6], label[:, 6:10, 3:9, 2:6] = 1, 2
        truth = nn.functional.one_hot(label[0].long(), 3).movedim(-1, 0)[1:].float()
        patches.append({"image": truth if told else torch.rand(2, 12, 12, 8, generator=g), "label": label})
    return patches


def test_nothing_is_drawn_from_voxels_of_no_class() -> None:
    patches = labelled(3)
    patches[0]["label"][:] = -1
    patches[1]["label"][:, :4] = -1
    _, classes = draw_voxels(patches[1]["label"], torch.Generator().manual_seed(0))
    assert set(classes.tolist()) == {0, 1, 2}
    assert label_probe(Pyramid(in_channels=2), patches)["label_knn_accuracy"] > 0.9


def test_patches_leave_out_what_the_list_names_no_class(study: Path, tmp_path: Path) -> None:
    content = json.loads((study / "datalist.json").read_text())
    content["labels"] = {"0": "background", "2": "right"}
    (tmp_path / "list.json").write_text(json.dumps(content))
    patches = probe_patches(
        tmp_path / "list.json", "validation", recipes.load("small_mr"), [16] * 3, dataset_dir=study, count=2
    )
    assert set(torch.unique(torch.cat([patch["label"] for patch in patches])).tolist()) == {-1, 0, 2}


def test_the_same_number_of_each_class_is_drawn_and_background_from_around_them() -> None:
    label = labelled(1)[0]["label"]
    places, classes = draw_voxels(label, torch.Generator().manual_seed(0), count=10)
    assert classes.tolist() == [0] * 10 + [1] * 10 + [2] * 10
    assert all(int(label[0][tuple(place)]) == c for place, c in zip(places, classes, strict=True))
    foreground = (label[0] > 0).nonzero()
    distance = (places[:10, None] - foreground[None]).abs().amax(-1).amin(1)
    assert int(distance.max()) <= NEAR
    again, _ = draw_voxels(label, torch.Generator().manual_seed(0), count=10)
    assert torch.equal(places, again)


def test_features_are_those_at_the_voxel() -> None:
    """Against indexing for the map of the image's size, and against the mean of the cell at the cells' centres."""
    g = torch.Generator().manual_seed(0)
    image, places = torch.rand(1, 6, 8, 4, generator=g) + 0.5, torch.tensor([[0, 0, 0], [5, 7, 3], [2, 4, 1]])
    network = Pyramid(in_channels=1, out_channels=2)
    seen: list[Tensor] = []

    def keep(x: Tensor, dim: int) -> Tensor:
        seen.append(x)
        return x

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("monai_cl.metrics.correspondence.F.normalize", keep)
        rows = voxel_features(network, image, places)
    assert rows.shape == (3, 2)
    expected = torch.stack([image[0][tuple(place)] for place in places])
    torch.testing.assert_close(rows[:, 0], expected)
    coarse = nn.functional.avg_pool3d(image[None], 2)[0, 0]
    torch.testing.assert_close(rows[1, 1], coarse[2, 3, 1])  # beyond the last centre: the nearest


def test_features_that_tell_the_class_are_right_and_noise_guesses() -> None:
    network = Pyramid(in_channels=2, out_channels=2).eval()
    told, noise = label_probe(network, labelled()), label_probe(network, labelled(told=False))
    assert told["label_knn_accuracy"] > 0.9
    assert told["label_linear_accuracy"] > 0.9
    assert told["label_chance"] == pytest.approx(1 / 3)
    assert noise["label_knn_accuracy"] < 0.5
    assert noise["label_linear_accuracy"] < 0.5
    assert label_probe(network, labelled()) == told


def test_one_volume_or_one_class_tells_nothing() -> None:
    network = Pyramid(in_channels=2, out_channels=2).eval()
    assert label_probe(network, labelled(1)) == {}
    plain = [{**patch, "label": torch.zeros(1, 12, 12, 8)} for patch in labelled(3)]
    assert label_probe(network, plain) == {}


def test_the_teacher_is_looked_at_where_it_has_a_network() -> None:
    network = SegResNet(out_channels=2, blocks_down=(1, 1), blocks_up=(1,))
    method = VolumeContrast(network, 8, hidden=16, embedding=8)
    assert method.steady_network is not method.network
    assert VolumeContrast(network, 8, hidden=16, embedding=8, teacher="projector").steady_network is method.network


def test_labels_are_looked_at_while_pretraining(study: Path, tmp_path: Path) -> None:
    patches = probe_patches(
        study / "datalist.json", "validation", recipes.load("small_mr"), [16, 16, 16], dataset_dir=study
    )
    assert patches
    assert all(patch["image"].shape == patch["label"].shape == (1, 16, 16, 16) for patch in patches)
    assert all(bool((patch["label"] > 0).any()) for patch in patches)
    method = Plain(SegResNet(out_channels=2, blocks_down=(1, 1), blocks_up=(1,)))
    probe = HealthProbe([], tmp_path / "h.csv", patches=[*patches, *patches], budget=1e9)
    data = [{"x": torch.ones(1, 1, 8, 8, 8)}] * 4
    PretrainTrainer("cpu", 2, data, method, adamw(method, 1e-3), epoch_length=2, train_handlers=[probe]).run()
    rows = read_history(tmp_path / "h.csv")
    assert [row["step"] for row in rows] == [2, 4]
    assert all(0 <= row["label_knn_accuracy"] <= 1 for row in rows)


def test_without_labels_there_is_nothing_to_look_at(tmp_path: Path) -> None:
    (tmp_path / "d.json").write_text(json.dumps({"unlabelled": [{"image": "a.nii.gz"}]}))
    for section in ("validation", "unlabelled"):
        assert probe_patches(tmp_path / "d.json", section, dict, [8, 8, 8], dataset_dir=tmp_path) == []
    assert probe_patches(tmp_path / "d.json", "validation", dict, [8, 8, 8], rank=1) == []


class Plain(Method):
    """Makes the network's output small."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        return {"loss": self.network(batch["x"]).square().mean()}


@pytest.mark.parametrize("bound", [1e-3, None])
def test_the_gradient_of_fine_tuning_is_bounded(bound: float | None) -> None:
    torch.manual_seed(0)
    network = nn.Linear(4, 1)
    before = network.weight.detach().clone()
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=[{"image": torch.full((2, 4), 100.0), "label": torch.zeros(2, 1)}],
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=1.0),
        loss_function=nn.MSELoss(),
        train_handlers=[ClipGradients(bound)],
    )
    trainer.run()
    moved = float((network.weight.detach() - before).norm())
    assert moved <= 1.001e-3 if bound else moved > 1


def test_a_bound_must_be_above_zero() -> None:
    with pytest.raises(ValueError, match=r"max_norm must be above 0, or None for no bound, got 0"):
        ClipGradients(0)
