"""What a receipt says of origin and preparation, and where it goes from there."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.networks.nets import SegResNetDS

from monai_cl.report._facts import receipts
from monai_cl.weights import (
    PUBLISHED,
    ContractMismatchError,
    load_network,
    published_table,
    read_contract,
    receipt_of,
    save_network,
    start_from,
    transfer,
)
from monai_cl.weights._preparation import Preparation, differences, preparation_of


def deep(seed: int) -> SegResNetDS:
    torch.manual_seed(seed)
    return SegResNetDS(init_filters=4, blocks_down=[1, 2, 2, 4, 4], dsdepth=4)


def ct_fm(path: Path) -> Path:
    torch.save(deep(1).state_dict(), path)
    return path


RECIPES: dict[str, tuple[dict[str, Any], str]] = {
    "ct_abdomen": ({"spacing": 2.0}, "RAS, 2 x 2 x 2 mm, -175..250 to 0..1"),
    "ct_chest": ({}, "RAS, 1.25 x 1.25 x 5 mm, -1000..500 to 0..1"),
    "small_mr": ({}, "RAS, scanner's x scanner's x scanner's mm, percentiles to 0..1"),
    "brain_mr": ({}, "RAS, 1 x 1 x 1 mm, z-score"),
    "cardiac_mr": ({}, "1.4 x 1.4 x scanner's mm, percentiles to 0..1"),
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_says_how_it_prepares(recipe: str) -> None:
    options, text = RECIPES[recipe]
    assert str(preparation_of(recipe, options)) == text


def test_edges_of_voxels_are_compared_along_the_axes_of_the_body() -> None:
    expected = Preparation("SPL", (1, 1, 3), "window", (-1024, 2048), (0, 1))
    assert differences(expected, expected) == ()
    assert differences(expected, Preparation(spacing=(1.05, 1, 3))) == ()
    assert differences(expected, Preparation(spacing=(3, 1, 1))) == (
        "voxels of 3 x 1 x 1 mm, pretrained at 1 x 1 x 3 mm",
    )
    assert differences(Preparation(), preparation_of("ct_abdomen")) == ()


def test_a_recipe_that_prepares_otherwise_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, target = ct_fm(tmp_path / "w.pt"), deep(2)
    receipt = start_from(target, path, key_map="ct_fm", recipe="ct_abdomen")
    assert receipt is not None
    assert receipt.differences == (
        "orientation RAS, pretrained with SPL",
        "voxels of 1.5 x 1.5 x 1.5 mm, pretrained at 1 x 1 x 3 mm",
        "intensities by -175..250 to 0..1, pretrained with -1024..2048 to 0..1",
    )
    assert "images are prepared otherwise than the weights expect: orientation RAS" in caplog.text
    assert "prepared     SPL, 1 x 1 x 3 mm, -1024..2048 to 0..1" in str(receipt)
    assert start_from(target, path, key_map="ct_fm", recipe="ct_abdomen", contract="ignore").differences is None


def test_a_strict_contract_refuses_and_loads_nothing(tmp_path: Path) -> None:
    path, target = ct_fm(tmp_path / "w.pt"), deep(2)
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    with pytest.raises(
        ContractMismatchError, match=r"got orientation RAS, pretrained with SPL; voxels .* `contract: w"
    ):
        start_from(target, path, key_map="ct_fm", recipe="ct_abdomen", contract="strict")
    assert all(torch.equal(before[name], tensor) for name, tensor in target.state_dict().items())
    assert receipt_of(target) is None
    with pytest.raises(ValueError, match=r"contract must be one of \('warn', 'strict', 'ignore'\), got 'yes'"):
        transfer(target, path, contract="yes")


def test_ones_own_weights_are_compared_with_the_recipe_they_were_made_with(tmp_path: Path) -> None:
    save_network(deep(1), tmp_path / "own.pt", contract={"recipe": "ct_abdomen", "recipe_options": {"spacing": 3.0}})
    same = {"recipe": "ct_abdomen", "recipe_options": {"spacing": 3.0}}
    assert transfer(deep(2), tmp_path / "own.pt", **same, contract="strict").differences == ()
    with pytest.raises(ContractMismatchError, match=r"voxels of 1\.5 x 1\.5 x 1\.5 mm, pretrained at 3 x 3 x 3 mm"):
        transfer(deep(2), tmp_path / "own.pt", recipe="ct_abdomen", contract="strict")


def test_a_plan_in_the_file_says_more_than_the_card() -> None:
    from monai_cl.weights.families.nnunet import planned

    plan = {"pretrain_plan": {"configurations": {"noresample": {"spacing": None}}}}
    assert planned({"nnssl_adaptation_plan": plan}) == Preparation(scaling="z-score")
    plan["pretrain_plan"]["configurations"] = {"x": {"spacing": [3.0, 1.0, 2.0]}}
    assert planned({"nnssl_adaptation_plan": plan}) == Preparation(None, (2.0, 1.0, 3.0), "z-score")
    assert planned({}) is None


def test_origin_and_citation_go_with_the_network_from_run_to_run(tmp_path: Path) -> None:
    first = deep(2)
    start_from(first, ct_fm(tmp_path / "w.pt"), key_map="ct_fm")
    save_network(first, tmp_path / "second.pt", contract={"recipe": "ct_abdomen", "touched": ["encoder.x"]})
    contract = read_contract(tmp_path / "second.pt")
    assert contract["origins"][0]["licence"] == "Apache-2.0"
    second = deep(3)
    receipt = start_from(second, tmp_path / "second.pt")
    assert receipt is not None
    assert (receipt.key_map, receipt.origins[0].citation) == (None, ("arXiv 2501.09001",))
    assert "begun from   CT-FM (arXiv 2501.09001); licence Apache-2.0" in str(receipt)
    save_network(second, tmp_path / "third.pt")
    assert read_contract(tmp_path / "third.pt")["origins"] == contract["origins"]
    load_network(deep(4), tmp_path / "third.pt")


def test_a_licence_that_restricts_is_said_before_anything_is_trained(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = {f"image_encoder.{name}": t for name, t in deep(1).state_dict().items()}
    target = deep(2)
    start_from(target, {**state, "class_head.w": torch.zeros(1)}, key_map="vista3d", min_matched=0.5)  # type: ignore[arg-type]
    assert "the licence of VISTA3D" in caplog.text
    assert "see to it before you share" in caplog.text


class _Found:
    def __init__(self, *runs: Any) -> None:
        self.runs = runs

    def of(self, *steps: str) -> list[Any]:
        return [run for run in self.runs if run.step in steps]


class _Run:
    def __init__(self, step: str, receipt: Any) -> None:
        self.step, self.name = step, step
        self.record = {"receipt": receipt}


def test_report_and_record_name_source_licence_and_citations(tmp_path: Path) -> None:
    path = ct_fm(tmp_path / "w.pt")
    receipt = transfer(deep(2), path, key_map="ct_fm", recipe="ct_abdomen")
    stored = json.loads(json.dumps({**asdict(receipt), "share": receipt.share}, default=str))
    tables = receipts(_Found(_Run("train", stored), _Run("pretrain", None)))  # type: ignore[arg-type]
    assert [table.caption for table in tables] == ["Weights that fine-tuning began with", "Weights of others"]
    (row,) = tables[1].rows
    assert row[1:4] == ("CT-FM (arXiv 2501.09001)", "Apache-2.0", "arXiv 2501.09001")
    assert "orientation RAS, pretrained with SPL" in str(row[5])
    restricted = {**stored, "origins": [{"source": "S", "licence": "CC BY-NC-ND 4.0", "free": False}]}
    assert "restricts use" in receipts(_Found(_Run("train", restricted)))[1].notes[-1]  # type: ignore[arg-type]


def test_every_contract_of_a_source_can_be_read() -> None:
    assert all(str(one.preparation or "") != "not stated" for one in PUBLISHED.values())


def test_the_table_of_sources_says_what_each_receipt_says() -> None:
    text = (Path(__file__).parents[1] / "tutorials/pages/guides/foreign_weights.md").read_text(encoding="utf-8")
    # to make it anew: python -c "from monai_cl import weights; print(weights.published_table())"
    assert published_table() in text
    assert all(f"| `{name}` | {one.source} | " in published_table() for name, one in PUBLISHED.items())
