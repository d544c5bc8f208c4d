"""Planted names, numbers, dates and headers come out of no step of the road, neither from a scan nor from a list."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import monai.bundle
import pytest
import torch
from monai.utils import set_determinism
from planted import found_in, needles, plant, plant_dicom, planted_names, search
from test_bundle_runs import options, tiny_network
from typer.testing import CliRunner

from monai_cl import bundles, weights
from monai_cl.cli import app
from monai_cl.engine import random_state

pytestmark = pytest.mark.slow


class Road:
    """Commands given one after the other, whose words are searched.

    Args:
        wanted: What must not be found.
        captured: Captures what is written to the terminal.
        caplog: Captures what is logged.
    """

    def __init__(self, wanted: Sequence[str], captured: Any, caplog: Any) -> None:
        self.wanted, self.captured, self.caplog = wanted, captured, caplog

    def give(self, *words: object) -> None:
        said = CliRunner().invoke(app, [*map(str, words)])
        assert said.exit_code == 0, said.output[-3000:] + repr(said.exception)
        self.check(words, said.output)

    def step(self, root: Path, step: str, data: Path, **overrides: object) -> None:
        given = options(root, step, data) | {"dataset_dir": str(data)} | overrides
        monai.bundle.run(logging_file=False, **given)
        self.check(step)

    def check(self, what: object, said: str = "") -> None:
        said += self.caplog.text + "".join(self.captured.readouterr())
        self.caplog.clear()
        assert found_in(said.encode("utf-8", "surrogateescape"), self.wanted) == set(), what


@pytest.fixture(autouse=True)
def _undisturbed() -> Iterator[None]:
    """Runs seed every generator; later tests shall not notice."""
    states = random_state.capture()
    yield
    set_determinism(seed=None)
    random_state.restore(states)


@pytest.mark.parametrize("kind", ["scan", "list"])
def test_no_step_names_anybody(
    kind: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("MONAI_CL_KEY", str(tmp_path / "key/pseudonym.key"))
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.DEBUG, "monai_cl")
    names = planted_names()
    data, out = tmp_path / "data", tmp_path / "out"
    out.mkdir()
    listing = plant(data, names)
    road = Road(needles(names), capfd, caplog)
    if kind == "scan":
        plant_dicom(data / "dicom", names[::4])
        road.give("scan", data, "--out", out / "study.json")
        listing = out / "study.json"
    at = ("--dataset-dir", data)
    road.give("curate", listing, *at, "--out", out / "curated.json", "--on-leak", "report")
    road.give("cache", listing, *at, "--out", out / "cache", "--recipe", "small_mr", "--processes", 0)

    root = bundles.copy("volume_contrast", out / "bundle")
    listed = {"datalist": str(listing)}
    road.step(root, "pretrain", data, sections="training", **listed)
    road.step(root, "train", data, **listed)
    road.step(root, "evaluate", data, **listed)
    torch.manual_seed(0)
    weights.save_network(tiny_network(root, data), root / "models/model.pt")
    road.step(root, "inference", data, max_faults=0.5, sections="validation", **listed)
    road.step(
        root, "inference", data, max_faults=0.5, output_dir=str(out / "masks"), dataset_dir=str(data / "imagesTr")
    )
    road.give("report", root, "--out", out / "report.html", "--datalist", listing, *at)
    assert len(list((root / "runs/inference").rglob("*_seg.nii.gz"))) == 2
    assert len(list((out / "masks").rglob("*_seg.nii.gz"))) == len(names[::2])
    assert search(out, road.wanted) == {}
