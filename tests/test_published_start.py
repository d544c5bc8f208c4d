"""Pretraining that begins with a published file, through the command that users give, and what goes on from it."""

import json
from pathlib import Path

import torch
from monai.networks.nets import SegResNet
from test_bundle_runs import command, finish, fork
from test_random_anatomy_bundle import pretrain

from monai_cl import bundles, weights
from monai_cl.engine import read_run_record


def suprem(folder: Path) -> tuple[SegResNet, Path]:
    """A file with the names and shapes of SuPreM's SegResNet, the default network of the bundle."""
    torch.manual_seed(5)
    net = SegResNet(init_filters=16, blocks_down=(1, 2, 2, 4), blocks_up=(1, 1, 1), out_channels=32)
    torch.save({"net": {f"module.{name}": t for name, t in net.state_dict().items()}}, folder / "suprem.pth")
    return net, folder / "suprem.pth"


def test_pretraining_goes_on_from_a_published_file_and_hands_its_licence_on(tmp_path: Path, study: Path) -> None:
    root = bundles.copy("volume_contrast", tmp_path / "bundle")
    net, file = suprem(tmp_path)
    given = command(root, "pretrain", study, init_filters=16, start=str(file), learning_rate=0.0)
    log = finish(fork(given, tmp_path / "log"), tmp_path / "log")
    assert "the licence of SuPreM (arXiv 2501.11253), SegResNet restricts their use: CC BY-NC-ND 4.0" in log
    assert "images are prepared otherwise than the weights expect: " in log
    record = read_run_record(root / "runs/pretrain")
    assert record["start"]["taken"] == "file"
    assert record["settings"]["start"] == record["start"]["sha256"]
    assert record["receipt"]["key_map"] == "suprem_segresnet"
    assert record["receipt"]["encoder_matched"] == record["receipt"]["encoder_total"]

    state = torch.load(root / "models/pretrained.pt", weights_only=True)  # a learning rate of 0: as in the file
    assert torch.equal(state["convInit.conv.weight"], net.convInit.conv.weight)
    contract = json.loads((root / "models/pretrained.json").read_text())
    assert [(one["licence"], one["citation"]) for one in contract["origins"]] == [
        ("CC BY-NC-ND 4.0", ["arXiv 2501.11253"])
    ]
    target = SegResNet(init_filters=16, blocks_down=(1, 2, 2, 4), blocks_up=(1, 1, 1), out_channels=3)
    receipt = weights.start_from(target, "auto", bundle_root=root)
    assert receipt is not None
    assert "begun from   SuPreM" in str(receipt)


def test_random_anatomies_go_on_from_a_file_too(tmp_path: Path) -> None:
    root = tmp_path / "bundle"
    net = SegResNet(init_filters=8, blocks_down=(1, 2, 2, 4), blocks_up=(1, 1, 1), out_channels=3)
    weights.save_network(net, tmp_path / "mine.pt", contract={"touched": ["convInit.conv.weight"]})
    pretrain(root, "segresnet", start=str(tmp_path / "mine.pt"), anatomy_learning_rate=0.0)
    record = read_run_record(root / "runs/pretrain_random_anatomy")
    assert (record["start"]["taken"], record["start"]["name"]) == ("file", "mine.pt")
    state = torch.load(root / "models/pretrained_random_anatomy.pt", weights_only=True)
    assert torch.equal(state["convInit.conv.weight"], net.convInit.conv.weight)
