"""Tracking by MLflow keeps the promise on names: no path of a scan in the run folder, none in the database."""

from pathlib import Path
from typing import Any

import monai.bundle
import pytest
from bundle_gate import STEPS, config_files
from conftest import write_study
from monai.bundle import ConfigWorkflow

from monai_cl import bundles

NAME = "Yamada"  # of a patient, in the path of the scans
QUICK: dict[str, dict[str, Any]] = {
    "train": {"finetune_epochs": 2, "finetune_epoch_length": 1, "roi_size": [16] * 3, "pretrained": "none"},
    "pretrain": {
        "max_epochs": 2, "epoch_length": 1, "grid": [2, 2, 2], "crop_size": [8] * 3, "num_crops": 2, "probe_volumes": 0,
    },
}  # fmt: skip
pytestmark = pytest.mark.filterwarnings("ignore:Divide by zero", "ignore:.*lr_scheduler.step")


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    return write_study(tmp_path / NAME)


def settings(step: str, root: Path, scans: Path) -> dict[str, Any]:
    places = {"bundle_root": str(root), "dataset_dir": str(scans), "datalist": str(scans / "datalist.json")}
    return {**places, "recipe": "small_mr", "init_filters": 8, "num_workers": 0, "device": "cpu", **QUICK[step]}


@pytest.mark.parametrize("name", bundles.names())
@pytest.mark.parametrize("step", ["pretrain", "train", "inference"])
def test_no_config_is_written_beside_a_tracked_run(step: str, name: str, tmp_path: Path) -> None:
    kind, files = STEPS[step]
    workflow = ConfigWorkflow(
        config_files(bundles.path(name), *files), logging_file=False, workflow_type=kind, tracking="mlflow",
        bundle_root=str(tmp_path),
    )  # fmt: skip
    assert list(tmp_path.rglob("*")) == []
    handlers = workflow.parser["handlers" if step == "inference" else "train#handlers"]
    assert handlers[-1]["_target_"] == "MLFlowHandler"


@pytest.mark.filterwarnings("ignore")  # MLflow's own
@pytest.mark.parametrize("step", QUICK)
def test_a_tracked_run_logs_its_losses_and_names_no_scan(step: str, tmp_path: Path, scans: Path) -> None:
    mlflow = pytest.importorskip("mlflow", reason="needs the extra mlflow")
    root = bundles.copy("volume_contrast", tmp_path / "bundle")
    monai.bundle.run(
        logging_file=False, tracking="mlflow", experiment_name="trial", config_file=config_files(root, f"{step}.yaml"),
        **settings(step, root, scans),
    )  # fmt: skip
    folder = root / "runs" / step
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlruns.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("trial").experiment_id])
    assert len(client.get_metric_history(run.info.run_id, "train_loss")) == 2
    files = [path for path in root.rglob("*") if path.is_file() and path.name != "run.json"]  # which says so on purpose
    assert [path.name for path in files if NAME.encode() in path.read_bytes()] == []
    assert not list(folder.glob("config_*"))
