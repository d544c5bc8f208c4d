"""Two commands at once in one place, again and again: one does its work, the other says who was first."""

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import write_study
from test_bundle_runs import command, launch, tiny_network

from monai_cl import bundles, weights

pytestmark = pytest.mark.slow
PROGRAM = "from monai_cl.cli import main; main()"
TIMES = 3


def together(commands: list[list[str]], folder: Path) -> list[tuple[int, str]]:
    """Exit code and words of commands that start at the same moment."""
    folders = [folder / f"log_{number}" for number in range(len(commands))]
    started = [launch(arguments, where) for arguments, where in zip(commands, folders, strict=True)]
    return [
        (process.wait(600), (where / "log.txt").read_text()) for process, where in zip(started, folders, strict=True)
    ]


def judge(ended: list[tuple[int, str]], place: Path) -> None:
    """At least one has succeeded; whoever has not, has met another."""
    assert any(code == 0 for code, _ in ended), ended[0][1][-3000:]
    for code, said in ended:
        if code:
            assert f"is writing {place}" in said, said[-3000:]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A bundle with weights, and a study."""
    folder = tmp_path_factory.mktemp("races")
    study, root = write_study(folder / "study"), bundles.copy("volume_contrast", folder / "bundle")
    for name in ("pretrained", "model"):
        weights.save_network(tiny_network(root, study), root / f"models/{name}.pt")
    return root, study


def whole_evaluation(out: Path) -> None:
    kept = json.loads((out / "cases/cases.json").read_text())
    assert {case["file"] for case in kept["cases"]} == {path.name for path in out.glob("cases/*.npz")}
    for metric in ("val_mean_dice", "val_surface_distance", "val_hausdorff_95"):
        with open(out / f"{metric}_raw.csv", newline="") as file:
            assert len(list(csv.DictReader(file))) == 2
    assert json.loads((out / "run.json").read_text())["parts"][-1]["finished"]
    assert (out / "predictions.png").read_bytes()[-8:-4] == b"IEND"


def whole_training(out: Path) -> None:
    assert (out / "history.csv").read_text().endswith("\n")
    assert json.loads((out / "run.json").read_text())["parts"][-1]["finished"]


def whole_masks(out: Path) -> None:
    assert len(list(out.rglob("*.nii.gz"))) == 8


def whole_pretraining(out: Path) -> None:
    torch.load(out / "checkpoint.pt", weights_only=True)
    whole_training(out)


@pytest.mark.parametrize(
    ("step", "check"),
    [
        ("evaluate", whole_evaluation),
        ("train", whole_training),
        ("pretrain", whole_pretraining),
        ("inference", whole_masks),
    ],
)
def test_two_runs_of_a_step_in_one_folder(
    bundle: tuple[Path, Path], tmp_path: Path, step: str, check: Callable[[Path], None]
) -> None:
    root, study = bundle
    for turn in range(TIMES):
        out = tmp_path / f"out_{turn}"
        arguments = command(root, step, study, output_dir=str(out))
        judge(together([arguments, arguments], tmp_path / f"logs_{turn}"), out)
        check(out)
        assert not list(out.rglob("*.lock"))


def test_two_scans_caches_curations_and_phantoms(bundle: tuple[Path, Path], tmp_path: Path) -> None:
    _, study = bundle
    datalist = study / "datalist.json"
    for turn in range(TIMES):
        out = tmp_path / str(turn)
        options = ["--recipe", "small_mr", "--processes", "0"]
        for place, arguments in {
            out / "study.json": ["scan", str(study), "--out", str(out / "study.json")],
            out / "cache": ["cache", str(datalist), *options, "--out", str(out / "cache")],
            out / "less.json": ["curate", str(datalist), "--on-leak", "report", "--out", str(out / "less.json")],
            out / "brains": ["phantom", str(out / "brains"), "--subjects", "1", "--spacing", "6"],
        }.items():
            ended = together([["-c", PROGRAM, *arguments]] * 2, out / "logs" / arguments[0])
            if arguments[0] == "phantom" and all("is writing" not in said for _, said in ended):
                assert any("holds files" in said for _, said in ended)  # the second came when the first was done
            else:
                judge(ended, place)
            assert place.exists()
        assert json.loads((out / "study.json").read_text())["training"]
        assert len(json.loads((out / "less.json").read_text())["training"]) == 4


def test_a_run_that_was_killed_leaves_the_folder_free(bundle: tuple[Path, Path], tmp_path: Path) -> None:
    root, study = bundle
    arguments = command(root, "pretrain", study, output_dir=str(tmp_path / "out"), max_epochs=200)
    first = launch(arguments, tmp_path / "first")
    while not (tmp_path / "out/checkpoint.pt").exists():
        assert first.poll() is None
    first.kill()
    first.wait()
    arguments = command(root, "pretrain", study, output_dir=str(tmp_path / "out"), max_epochs=200)
    with subprocess.Popen([sys.executable, *arguments], stderr=subprocess.PIPE, text=True) as second:
        assert second.stderr is not None
        assert any("resumed" in line for line in second.stderr)
        second.kill()
