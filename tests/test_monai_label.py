"""The calls that MONAI Label makes of a bundle, in this process: inference and training with no edit of a config."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from bundle_gate import _wrong_items, network
from conftest import write_volume
from monai.bundle import ConfigParser, run

from monai_cl import bundles, weights
from monai_cl.engine.run_record import read_run_record

NAMES = bundles.names()
OVERLAYS = ("multi_gpu", "multi_gpu_train")  # the second by the name that MONAI Label looks for
ASKED = ("network_def", "preprocessing", "inferer", "postprocessing", "displayable_configs")  # ids that it looks up


def small_window(name: str) -> list[int]:
    """A window that is quick on a CPU: of slices, where a bundle's network is for slices."""
    parser = ConfigParser()
    parser.read_config(str(bundles.path(name) / "configs" / "inference.yaml"))
    return [32, 32] if len(parser["roi_size"]) == 2 else [16] * 3


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, where a server may have been started."""
    folder = tmp_path / "server"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def served(name: str, root: Path) -> ConfigParser:
    """``inference.yaml`` as MONAI Label reads it: nothing is set but the root of the bundle."""
    parser = ConfigParser()
    parser.read_config(str(bundles.path(name) / "configs" / "inference.yaml"))
    parser.config.update(bundle_root=str(root))
    return parser


def segment(parser: ConfigParser, request: Mapping[str, Any], net: torch.nn.Module) -> dict[str, Any]:
    """A request as it goes through a server: each transform alone, one volume, no initialisation of the bundle."""
    item = {**request, "image_path": request["image"]}
    for step in parser.get_parsed_content("preprocessing").transforms:
        item = step(item)
    with torch.no_grad():
        item["pred"] = parser.get_parsed_content("inferer")(item["image"][None], net)[0]
    for step in parser.get_parsed_content("postprocessing").transforms:
        item = step(item)
    return item


@pytest.mark.parametrize("name", NAMES)
def test_what_a_server_builds_asks_for_no_data_and_writes_nothing(name: str, nowhere: Path) -> None:
    parser = served(name, nowhere / "bundle")
    for key in ASKED:
        assert parser.get_parsed_content(key, instantiate=True) is not None
    assert list(nowhere.iterdir()) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_request_gives_whole_labels_on_the_grid_of_the_scan(name: str, nowhere: Path, tmp_path: Path) -> None:
    scan = tmp_path / "scan.nii.gz"
    write_volume(scan, 0)
    parser = served(name, nowhere / "bundle")
    parser["roi_size"], parser["recipe"] = small_window(name), "body_mr"  # a window that is quick on a CPU
    parser["recipe_options"] = {"spacing": 2.0}
    torch.manual_seed(0)
    net = parser.get_parsed_content("network_def").eval()
    found = segment(parser, {"image": str(scan), "model": name, "device": "cpu"}, net)["pred"]
    image, classes = nib.load(scan), net(torch.zeros(1, 1, *small_window(name))).shape[1]
    assert tuple(found.shape[1:]) == image.shape
    np.testing.assert_allclose(found.affine.numpy(), image.affine, atol=1e-5)
    assert set(np.unique(found.numpy())) <= set(range(classes))
    assert list(nowhere.iterdir()) == []


@pytest.mark.parametrize("name", NAMES)
def test_options_of_a_request_reach_the_inferer_and_the_postprocessing(name: str, nowhere: Path) -> None:
    parser = served(name, nowhere)
    before = len(parser.get_parsed_content("postprocessing").transforms)
    parser["displayable_configs"].update({"overlap": 0.25, "sw_batch_size": 3, "largest_alone": True})
    parser.parse()  # as the server does for each request
    inferer = parser.get_parsed_content("inferer")
    assert (inferer.overlap, inferer.sw_batch_size) == (0.25, 3)
    assert len(parser.get_parsed_content("postprocessing").transforms) == before + 1


@pytest.mark.parametrize("name", NAMES)
def test_classes_are_named_for_the_client(name: str) -> None:
    metadata = json.loads((bundles.path(name) / "configs" / "metadata.json").read_text(encoding="utf-8"))
    outputs = next(iter(metadata["network_data_format"]["outputs"].values()))
    assert outputs["channel_def"]["0"] == "background"
    assert len(set(outputs["channel_def"].values())) == outputs["num_channels"]


# --- training


def labelled(folder: Path, count: int) -> list[dict[str, str]]:
    """Items as a datastore lists them: two paths and nothing else."""
    items = []
    for number in range(count):
        item = {"image": str(folder / f"{number}.nii.gz"), "label": str(folder / f"{number}_label.nii.gz")}
        write_volume(Path(item["image"]), number)
        write_volume(Path(item["label"]), number, label=True)
        items.append(item)
    return items


def overrides(root: Path, training: list[Any], validation: list[Any]) -> dict[str, Any]:
    """What ``BundleTrainTask`` sets in ``train.yaml``."""
    handlers = ConfigParser.load_config_file(str(root / "configs" / "train.yaml"))["train"]["handlers"]
    loader = {
        "_target_": "CheckpointLoader", "load_path": str(root / "models" / "model.pt"),
        "load_dict": {"model": "$@network"}, "strict": False,
    }  # fmt: skip
    return {
        "bundle_root": str(root), "train#trainer#max_epochs": 1, "train#dataset#data": training,
        "validate#dataset#data": validation, "device": "cpu", "train#handlers": [loader, *handlers],
    }  # fmt: skip


def quick(name: str) -> dict[str, Any]:
    """Settings that make a step quick."""
    return {
        "recipe": "small_mr", "roi_size": small_window(name), "finetune_epoch_length": 1, "finetune_batch_size": 2,
        "num_workers": 0,
    }  # fmt: skip


def train(name: str, root: Path, training: list[Any], validation: list[Any], **others: Any) -> None:
    """One epoch as ``BundleTrainTask`` starts it, with its overrides alone but for what makes a step quick."""
    configs = root / "configs"
    run(
        run_id="run", init_id=None, final_id=None, meta_file=str(configs / "metadata.json"),
        config_file=str(configs / "train.yaml"), **overrides(root, training, validation), **quick(name), **others,
    )  # fmt: skip


def for_several_gpus(root: Path, values: Mapping[str, Any]) -> list[str]:
    """The two configs of a training on several GPUs: ``train.yaml`` with its overrides as JSON, and the overlay."""
    parser = ConfigParser()
    parser.read_config(str(root / "configs" / "train.yaml"))
    for key, value in values.items():
        parser.set(value, key)
    written = root / "configs" / "monailabel_train.json"
    ConfigParser.export_config_file(parser.config, str(written), indent=2)
    return [str(written), str(root / "configs" / "multi_gpu_train.yaml")]


@pytest.fixture
def trained(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A bundle with a network that was trained already, and no pretrained one."""
    root = bundles.copy(request.param, tmp_path / request.param)
    torch.manual_seed(0)
    weights.save_network(network(root, "train"), root / "models" / "model.pt")
    return root


@pytest.mark.filterwarnings("ignore:Divide by zero", "ignore:Num foregrounds")
@pytest.mark.filterwarnings("ignore:.*logging.*", "ignore:.*lr_scheduler.step")
@pytest.mark.parametrize("trained", NAMES, indirect=True)
def test_training_goes_on_from_the_model_and_writes_it_back(trained: Path, nowhere: Path, tmp_path: Path) -> None:
    items = labelled(tmp_path / "studies", 3)
    before = torch.load(trained / "models" / "model.pt", weights_only=True)
    train(trained.name, trained, items[:2], items[2:], finetune_learning_rate=1e-12)
    after = torch.load(trained / "models" / "model.pt", weights_only=True)
    names = [key for key in before if "running" not in key and "num_batches" not in key]
    moved = [name for name in names if not torch.allclose(before[name], after[name], atol=1e-6)]
    assert not moved  # a network that had begun anew would differ everywhere
    record = read_run_record(trained / "runs" / "train")
    assert record["settings"]["finetune_epochs"] == 1
    assert "datalist" not in record["data"]
    assert record["data"]["prepared"] == 2
    assert os.listdir(nowhere) == []


@pytest.mark.filterwarnings("ignore:Divide by zero", "ignore:Num foregrounds")
@pytest.mark.filterwarnings("ignore:.*logging.*", "ignore:.*lr_scheduler.step")
@pytest.mark.parametrize("trained", ["volume_contrast"], indirect=True)
def test_training_needs_no_volume_to_validate_on(trained: Path, nowhere: Path, tmp_path: Path) -> None:
    train(trained.name, trained, labelled(tmp_path / "studies", 1), [])
    record = read_run_record(trained / "runs" / "train")
    assert (record["data"]["prepared"], record["parts"][-1]["to_step"]) == (1, 1)
    assert record["parts"][-1]["finished"]


# --- on several GPUs


@pytest.mark.parametrize("name", NAMES)
def test_a_server_finds_the_overlay_for_several_gpus_by_its_name_and_it_fits_what_it_writes(
    name: str, tmp_path: Path
) -> None:
    root = bundles.copy(name, tmp_path / name)
    own, ours = (yaml.safe_load((root / "configs" / f"{stem}.yaml").read_text()) for stem in OVERLAYS)
    assert ours == own | {"validate#dataset#rank": 0, "validate#dataset#world_size": 1}
    parser = ConfigParser()
    parser.read_config(for_several_gpus(root, overrides(root, [{"image": "a", "label": "b"}], [])))
    assert "monai_cl.engine.distributed" in parser["imports"][-1]
    assert (parser["train"]["dataset"]["rank"], parser["validate"]["dataset"]["rank"]) == ("@rank", 0)
    assert "processes" in str(parser["device"])
    parser.parse()
    assert list(_wrong_items(parser)) == []


@pytest.mark.slow
@pytest.mark.parametrize("trained", ["volume_contrast"], indirect=True)
def test_two_processes_train_as_a_server_starts_them(trained: Path, nowhere: Path, tmp_path: Path) -> None:
    items, name = labelled(tmp_path / "studies", 4), trained.name
    before = torch.load(trained / "models" / "model.pt", weights_only=True)
    steps = {"finetune_epoch_length": 2}  # the first has a learning rate of 0; one volume is to validate on
    files = for_several_gpus(trained, overrides(trained, items[:3], items[3:]) | quick(name) | steps)
    done = subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nnodes=1", "--nproc_per_node=2",
            "-m", "monai.bundle", "run", "run", "--meta_file", str(trained / "configs" / "metadata.json"),
            "--config_file", str(files), "--logging_file", str(trained / "configs" / "logging.conf"),
            "--tracking", "None",
        ],
        capture_output=True, text=True, cwd=nowhere, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=800,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-8000:]
    after = torch.load(trained / "models" / "model.pt", weights_only=True)
    assert any(not torch.equal(before[key], after[key]) for key in before)
    record = read_run_record(trained / "runs" / "train")
    assert record["parts"][-1]["finished"]
    assert record["data"]["processes"] == 2
    assert os.listdir(nowhere) == []
