"""Pages about a run folder that somebody else has made: nothing in it is run, nothing outside of it is shown."""

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import write_volume
from typer.testing import CliRunner

from monai_cl import bundles, cli, recipes
from monai_cl.report.card import render_card
from monai_cl.report.html import write_report

SECRET = "a line that is none of the page's business"


class Canary:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


def expression(canary: Path) -> str:
    return f"$__import__('os').mkdir({str(canary)!r})"


def target(canary: Path) -> dict[str, Any]:
    return {"_target_": "os.mkdir", "path": str(canary)}


RECORD = {
    "format": 1, "step": "pretrain", "seed": 0, "receipt": None,
    "parts": [{"started": "2026-01-02T03:04:05", "finished": None, "from_step": 0, "to_step": 3, "seconds": 1.0}],
}  # fmt: skip
SETTINGS = {"grid": [2, 2, 1], "crop_size": [8, 8, 8], "num_crops": 3}


@pytest.fixture
def hostile(tmp_path: Path) -> tuple[Path, Path]:
    """A bundle whose every file tries to make a folder below ``canaries``; and that folder."""
    canaries, root = tmp_path / "canaries", tmp_path / "hostile"
    canaries.mkdir()
    shutil.copytree(bundles.path("volume_contrast"), root)
    (root / "docs/records").rename(root / "docs/no_records")
    run, cases = root / "runs/pretrain", root / "runs/evaluate/cases"
    for folder in (run, cases, root / "models"):
        folder.mkdir(parents=True, exist_ok=True)
    recipe = run / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"purpose": "evil", "preprocessing": target(canaries / "recipe")}))
    settings = {**SETTINGS, "init_filters": expression(canaries / "setting"), "network_def::_target_": "os.mkdir"}
    record = {**RECORD, "settings": {**settings, "extra": expression(canaries / "extra")}}
    record["recipe"] = {"name": str(recipe), "options": {}}
    record["data"] = {"datalist": str(run / "list.json"), "dataset_dir": str(run)}
    (run / "run.json").write_text(json.dumps(record))
    items = [{"image": f"{n}.nii.gz", "subject": f"s{n}"} for n in range(3)]
    for number in range(3):
        write_volume(run / f"{number}.nii.gz", number)
    (run / "list.json").write_text(json.dumps({"training": items, "name": expression(canaries / "list")}))
    torch.save({"step": Canary(canaries / "checkpoint")}, run / "checkpoint.pt")
    (run / "history.csv").write_text("step,loss,$a_b$ <script>\n10,1.0,2.0\n20,0.5,nan\n")
    torch.save({"x": Canary(canaries / "weights")}, root / "models/pretrained.pt")
    contract = {
        "recipe": str(recipe),
        "init_filters": expression(canaries / "contract"),
        "network_def": target(canaries / "c"),
    }
    (root / "models/pretrained.json").write_text(json.dumps(contract))
    config = yaml.safe_load((root / "configs/pretrain.yaml").read_text())
    config["network_def"] = target(canaries / "network")
    config["init_filters"] = expression(canaries / "filters")
    (root / "configs/pretrain.yaml").write_text(
        yaml.safe_dump(config) + f"evil: !!python/object/apply:os.mkdir ['{canaries / 'tag'}']\n"
    )
    np.savez(cases / "case_0001.npz", image=np.array([Canary(canaries / "npz")], dtype=object))
    (cases / "pickle.npz").write_bytes(pickle.dumps(Canary(canaries / "raw")))
    listed = [
        {"file": file, "case": "<script>x</script>", "dice": 0.5, "spacing": [1, 1, 1], "roles": ["best"]}
        for file in ("case_0001.npz", "pickle.npz", "../../../../secret.npz", str(tmp_path / "secret.npz"))
    ]
    (cases / "cases.json").write_text(json.dumps({"classes": {"1": "<b>"}, "cases": listed}))
    (root / "runs/evaluate/val_mean_dice_raw.csv").write_text("filename,class0,mean\na,0.5,0.5\nb,0.6,0.6\n")
    image = np.zeros((4, 4, 4), np.uint8)
    np.savez(tmp_path / "secret.npz", image=image, truth=image, prediction=image)
    (root / "docs/card.md.j2").write_text(
        "{{ ''.__class__.__mro__[1].__subclasses__() }}{{ cycler.__init__.__globals__.os.mkdir('%s') }}"
        % (canaries / "card")
    )
    return root, canaries


def test_a_hostile_folder_runs_nothing_and_the_page_says_what_is_missing(
    hostile: tuple[Path, Path], tmp_path: Path
) -> None:
    root, canaries = hostile
    result = CliRunner().invoke(cli.app, ["report", str(root), "--out", str(tmp_path / "page.html")])
    assert result.exception is None
    text = (tmp_path / "page.html").read_text()
    assert not list(canaries.iterdir())
    assert "<script>x" not in text
    assert "the recipe is none of the gallery but a file" in text
    assert "checkpoint.pt cannot be read without running what is in it" in text
    assert text.count("its volumes cannot be read") == 4


def test_the_network_of_a_hostile_bundle_is_not_made(hostile: tuple[Path, Path], tmp_path: Path) -> None:
    root, canaries = hostile
    record = json.loads((root / "runs/pretrain/run.json").read_text())
    record["recipe"] = {"name": "small_mr", "options": {}}
    (root / "runs/pretrain/run.json").write_text(json.dumps(record))
    config = yaml.safe_load((bundles.path("volume_contrast") / "configs/pretrain.yaml").read_text())
    said = []
    for network in (target(canaries / "network"), config["network_def"]):
        config["network_def"], config["init_filters"] = network, expression(canaries / "filters")
        (root / "configs/pretrain.yaml").write_text(yaml.safe_dump(config))
        said.append(write_report([root], tmp_path / "page.html").read_text())
    assert not list(canaries.iterdir())
    assert "another network than the bundles that come with monai_cl" in said[0]
    assert "Base crops (numbered, dashed)" in said[0]  # views need a recipe of the gallery and its own volumes
    assert "does not take the weights" in said[1]


@pytest.mark.parametrize(
    "value", [expression(Path("x")), "@preprocessing", " $1", "%file::id", [["$1"]], {"_target_": "os.mkdir"}]
)
def test_options_of_a_recipe_are_values(value: Any) -> None:
    with pytest.raises(ValueError, match="which a config would run; give the value itself"):
        recipes.load("small_mr", spacing=value)


def test_a_recorded_option_that_is_code_is_not_run(hostile: tuple[Path, Path], tmp_path: Path) -> None:
    root, canaries = hostile
    record = json.loads((root / "runs/pretrain/run.json").read_text())
    record["recipe"] = {"name": "small_mr", "options": {"spacing": expression(canaries / "option")}}
    (root / "runs/pretrain/run.json").write_text(json.dumps(record))
    text = write_report([root], tmp_path / "page.html").read_text()
    assert "the recipe cannot be built" in text
    assert not list(canaries.iterdir())


def test_trust_builds_what_is_in_the_folder(hostile: tuple[Path, Path], tmp_path: Path) -> None:
    root, canaries = hostile
    write_report([root], tmp_path / "page.html", trust=True, neighbours=False)
    assert (canaries / "recipe").is_dir()
    assert not (canaries / "checkpoint").exists()


def test_links_and_paths_out_of_the_folder_are_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "notes.txt").write_text(f"## Limits\n- {SECRET}\n")
    (secret / "scores.csv").write_text("step,secret_column\n1,2\n")
    (secret / "run.json").write_text(json.dumps({**RECORD, "settings": {"secret_setting": SECRET}}))
    run = tmp_path / "run"
    run.mkdir()
    (run / "history.csv").write_text("step,loss\n1,2\n")
    (run / "predictions.png").symlink_to(secret / "notes.txt")
    (run / "health.csv").symlink_to("../secret/scores.csv")
    (run / "run.json").symlink_to(secret / "run.json")
    (run / "circle").symlink_to("circle")
    text = write_report([run], tmp_path / "page.html", names=True, neighbours=False).read_text()
    assert "links out of the folder are not followed (" in text
    assert all(name in text for name in ("health.csv", "run.json"))
    for word in (SECRET, "secret_column", "secret_setting", "data:image/png"):
        assert word not in text


def test_a_datalist_that_came_with_the_runs_shows_no_volumes_of_elsewhere(study: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "history.csv").write_text("step,loss\n1,2\n")
    torch.save({"step": 1, "settings": SETTINGS, "random": [{}]}, run / "checkpoint.pt")
    (run / "list.json").write_text((study / "datalist.json").read_text())
    data = {"datalist": str(run / "list.json"), "dataset_dir": str(study)}
    record = {**RECORD, "settings": SETTINGS, "recipe": {"name": "small_mr", "options": {}}, "data": data}
    (run / "run.json").write_text(json.dumps(record))
    drawn, reason = "Base crops (numbered, dashed)", "the datalist lies with the runs and its volumes do not"
    text = write_report([run], tmp_path / "page.html", neighbours=False).read_text()
    assert reason in text
    assert drawn not in text
    for given in ({"trust": True}, {"datalist": run / "list.json", "dataset_dir": study}):
        text = write_report([run], tmp_path / "page.html", neighbours=False, **given).read_text()  # type: ignore[arg-type]
        assert reason not in text
        assert drawn in text


def test_runs_that_are_links_out_of_a_bundle_are_not_read(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "bundle", tmp_path / "elsewhere"
    (root / "runs").mkdir(parents=True)
    elsewhere.mkdir()
    (elsewhere / "history.csv").write_text("step,loss\n1,2\n")
    (root / "runs/train").symlink_to(elsewhere)
    with pytest.raises(ValueError, match="Links out of it are followed with --trust"):
        write_report([root], tmp_path / "page.html")
    assert "loss" in write_report([root], tmp_path / "page.html", trust=True, neighbours=False).read_text()


@pytest.mark.parametrize("content", ["[]", '{"format": 1, "parts": 3, "settings": 5, "data": [], "recipe": "x"}'])
def test_a_record_of_another_shape_spoils_its_own_sections_alone(content: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "history.csv").write_text("step,loss\n1,2\n2,1\n")
    (run / "run.json").write_text(content)
    if content == "[]":
        with pytest.raises(ValueError, match="must be a run record of format 1"):
            write_report([run], tmp_path / "page.html")
    else:
        text = write_report([run], tmp_path / "page.html").read_text()
        assert "Cannot be made from these files" in text
        assert "loss against the step" in text


def test_the_prose_of_a_card_is_no_program(hostile: tuple[Path, Path]) -> None:
    root, canaries = hostile
    with pytest.raises(ValueError, match="cannot be made into a card"):
        render_card(root)
    assert not list(canaries.iterdir())
    (root / "docs/card.md.j2").unlink()
    (root / "docs/card.md.j2").symlink_to("/etc/passwd")
    with pytest.raises(ValueError, match="must lie in the bundle itself"):
        render_card(root)
