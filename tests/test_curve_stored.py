"""What version 0.1.0 named and wrote stays: names of cells, what they depend on, and the tables of a finished curve."""

import csv
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from test_curve import NETWORK, config, curve_of, measure
from test_curve_files import old

from monai_cl.evaluation._config import read_config
from monai_cl.evaluation._hold_out import kept_apart
from monai_cl.evaluation._launch import Processes
from monai_cl.evaluation._plan import digest_sections, make_plan
from monai_cl.evaluation._settings import short_digest
from monai_cl.evaluation._steps import Step
from monai_cl.evaluation._store import Store
from monai_cl.evaluation._work import Work

__all__ = ["config", "old"]  # fixtures

STORED = json.loads((Path(__file__).parent / "data/curve_names.json").read_text())
_OF_OTHERS = ("configs", "recipe", "versions")  # they follow the package's own configs and recipes


def file_of_a_curve(config: Callable[..., Path], study: Path) -> Path:
    settings = {"dataset_dir": str(study), "datalist": str(study / "datalist.json"), "recipe": "small_mr"}
    steps = {"out_channels": 3, "finetune_epochs": 4, "finetune_epoch_length": 5, "max_epochs": 2, "epoch_length": 10}
    return config(
        settings={**settings, **steps, **NETWORK},
        budgets=[1, 2],
        arms={"scratch": {"pretrained": "none"}, "contrast": {"pretrained": {"seeds": [0, 1], "paired": True}}},
        equal_compute={"budgets": [2]},
        convergence={"budgets": [2]},
    )


def own(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without what the package's own configs and recipes say; of configs the names."""
    found = {key: own(value) if isinstance(value, Mapping) else value for key, value in settings.items()}
    named = {"configs": sorted(found["configs"])} if "configs" in found else {}
    return {**{key: value for key, value in found.items() if key not in _OF_OTHERS}, **named}


def rows(text: str) -> list[dict[str, Any]]:
    """Rows of a CSV, numbers as numbers."""

    def cell(value: str) -> Any:
        try:
            return float(value)
        except ValueError:
            return value

    return [{key: cell(value) for key, value in row.items()} for row in csv.DictReader(io.StringIO(text))]


def nearly(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row whose floats may differ by rounding."""
    return {
        key: pytest.approx(value, rel=1e-4, abs=1e-9, nan_ok=True) if isinstance(value, float) else value
        for key, value in row.items()
    }


def test_cells_have_the_names_and_depend_on_what_they_did(old: Path, config: Callable[..., Path]) -> None:
    plan = make_plan(read_config(file_of_a_curve(config, old.parent / "study")))
    work = Work(plan, Store(old), Processes())
    assert [cell.folder for cell in plan.cells] == list(STORED["cells"])
    for cell in plan.cells:
        known = STORED["cells"][cell.folder]
        assert own(work.settings.training(cell)) == known["training"]
        assert own(work.settings.of_0_1_0(cell)) == known["of_0_1_0"]
        if "evaluation" in known:
            assert own(work.settings.evaluation(cell)) == known["evaluation"]


def test_digests_are_made_as_they_were(old: Path, tmp_path: Path, config: Callable[..., Path]) -> None:
    (tmp_path / "train.yaml").write_text("# a comment\nseed: 0\nnetwork_def: {_target_: UNet, channels: [8, 16]}\n")
    known = STORED["digests"]
    assert Step(tmp_path, (tmp_path / "train.yaml",), base=1).digest() == known["config"]
    datalist = old.parent / "study/datalist.json"
    assert digest_sections(datalist, "training") == known["training"]
    assert digest_sections(datalist, "training+validation") == known["training+validation"]
    assert (
        short_digest({"section": "validation", "overrides": {"a": [1, 2.5]}, "versions": {"torch": "9"}})
        == known["name"]
    )
    settings = {"dataset_dir": str(datalist.parent), "datalist": str(datalist)}
    path = config(settings=settings, evaluation={"hold_out": 2})
    with kept_apart(read_config(path), write=False) as (settled, _):
        lists = json.loads(Path(settled.settings["datalist"]).read_text())
    assert {name: [item["image"] for item in lists[name]] for name in ("training", "validation")} == known["hold_out"]


def test_the_tables_of_a_finished_curve_are_written_as_they_were(old: Path, config: Callable[..., Path]) -> None:
    result = measure(file_of_a_curve(config, old.parent / "study"))
    assert curve_of(result)
    for name in ("curve.csv", "summary.csv"):
        text = (result.folder / name).read_text()
        assert text.splitlines()[0] == STORED["tables"][name].splitlines()[0]
        assert rows(text) == [nearly(row) for row in rows(STORED["tables"][name])]
    content = json.loads((result.folder / "summary.json").read_text())
    for name, kept in STORED["summary"].items():
        assert content[name][: len(kept)] == [nearly(row) for row in kept]
