"""A term of a user's own, in the two files that the tutorial shows, is pretrained, probed and gone on with too."""

import json
from pathlib import Path
from typing import Any

import nbformat
import pytest
import torch
from conftest import ROOT
from test_bundle_runs import run, study, undisturbed, user_sees

from monai_cl import bundles
from monai_cl.engine import read_history

__all__ = ["study", "undisturbed"]  # fixtures
FILES = ("my_simsiam.py", "simsiam.yaml")
TINY: dict[str, Any] = {"view_size": [16, 16, 16], "epoch_length": 2, "probe_budget": 1.0, "on_collapse": "warn"}


def written() -> dict[str, str]:
    """Files that the notebook writes."""
    notebook = nbformat.read(ROOT / "tutorials" / "08_your_own_method.ipynb", as_version=4)
    cells = [cell.source.partition("\n") for cell in notebook.cells if cell.source.startswith("%%writefile ")]
    return {first.split()[1]: rest for first, _, rest in cells}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = bundles.copy("volume_contrast", tmp_path / "bundle")
    monkeypatch.syspath_prepend(str(tmp_path))
    module, overlay = (written()[name] for name in FILES)
    (tmp_path / FILES[0]).write_text(module)
    (root / "configs" / FILES[1]).write_text(overlay)
    return root


def test_it_is_two_files_of_under_a_hundred_lines() -> None:
    files = written()
    assert sorted(files) == sorted(FILES)
    assert sum(len(text.splitlines()) for text in files.values()) < 100


@pytest.mark.filterwarnings("ignore:Divide by zero")  # a view of a small phantom may be flat
def test_it_pretrains_is_probed_and_goes_on(root: Path, study: Path) -> None:
    run(root, "pretrain", study, ("simsiam.yaml",), **TINY, max_epochs=1)
    wider = {"method#terms#simsiam#hidden": 32}
    said = user_sees(root, "pretrain", study, ("simsiam.yaml",), **TINY, max_epochs=2, **wider)
    assert "predictor.parameters: 4256 -> 1104" in said
    run(root, "pretrain", study, ("simsiam.yaml",), **TINY, max_epochs=2)
    made = root / "runs" / "pretrain_simsiam"
    assert torch.load(made / "checkpoint.pt", weights_only=True)["step"] == 4
    assert {"loss", "spread"} <= set(read_history(made / "history.csv")[0])
    record = json.loads((made / "run.json").read_text())
    assert record["resolved"]["method"]["terms"]["simsiam"]["class"] == "my_simsiam.SimSiam"
    assert [part["from_step"] for part in record["parts"]] == [0, 2]
    touched = json.loads((root / "models" / "pretrained_simsiam.json").read_text())["touched"]
    assert touched
    assert not [name for name in touched if name.startswith("up_")]
    run(root, "train", study, pretrained=str(root / "models" / "pretrained_simsiam.pt"))
