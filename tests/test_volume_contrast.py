"""What only the bundle of volume contrast offers: weights of sources, batches of one group."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from bundle_gate import config_files
from monai.bundle import ConfigParser

from monai_cl import bundles

TINY: dict[str, Any] = {
    "sections": "training",
    "recipe": "small_mr",
    "grid": [2, 2, 2],
    "crop_size": [8, 8, 8],
    "num_crops": 2,
    "batch_size": 2,
    "max_epochs": 1,
    "epoch_length": 12,
    "init_filters": 8,
    "num_workers": 0,
    "device": "cpu",
}


@pytest.fixture
def configured(study: Path, tmp_path: Path) -> Any:
    """Reads the config of pretraining on a study whose volumes come from two sources and regions."""
    folder = Path(shutil.copytree(study, tmp_path / "study"))
    content = json.loads((folder / "datalist.json").read_text())
    for number, entry in enumerate(content["training"]):
        entry.update(source="ours" if number == 0 else "theirs", region="head" if number % 2 else "chest")
    (folder / "datalist.json").write_text(json.dumps(content))
    root = bundles.copy("volume_contrast", tmp_path / "bundle")

    def read(**changes: Any) -> ConfigParser:
        parser = ConfigParser()
        parser.read_config(config_files(root, "pretrain.yaml"))
        places = {"bundle_root": str(root), "dataset_dir": str(folder), "datalist": str(folder / "datalist.json")}
        parser.update({**TINY, **places, **changes})
        return parser

    return read


def test_batches_of_one_group_reach_the_term_across_volumes(configured: Any) -> None:
    parser = configured(group_key="region", **{"loss#variant": "v2"})
    loader, method = parser.get_parsed_content("train#dataloader"), parser.get_parsed_content("method")
    batches = list(loader)
    assert {tuple(batch["region"]) for batch in batches} == {("head", "head"), ("chest", "chest")}
    assert method.terms["position"].group_key == "region"
    assert method(batches[0])["inter"].item() > 0
    batches[0]["region"] = ["head", "chest"]
    with pytest.raises(ValueError, match="draw batches from one group"):
        method(batches[0])


def test_sources_are_drawn_by_their_weights(configured: Any) -> None:
    loader = configured(source_weights={"ours": 30, "theirs": 1}, batch_size=1).get_parsed_content("train#dataloader")
    cases = [case for batch in loader for case in batch["case"]]
    assert cases.count("case_0") >= 9  # of 12; one of four without weights
    assert "region" not in next(iter(loader))
    with pytest.raises(RuntimeError, match="Failed to evaluate") as caught:  # a run shows the cause alone
        configured(source_weights={"our": 1, "theirs": 1}).get_parsed_content("train#dataloader")
    assert "names 'our', no volume has it as 'source'; did you mean 'ours'?" in str(caught.value.__cause__)
