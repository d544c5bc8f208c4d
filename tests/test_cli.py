import json
import os
import re
import sys
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from monai_cl import cli

runner = CliRunner()


def test_scan_writes_a_datalist_and_says_what_comes_next(study: Path, tmp_path: Path) -> None:
    result = runner.invoke(cli.app, ["scan", str(study), "--out", str(tmp_path / "list.json")])
    assert result.exit_code == 0, result.output
    content = json.loads((tmp_path / "list.json").read_text())
    assert sum(len(content[s]) for s in ("training", "validation", "unlabelled")) == 8
    assert "python -m monai.bundle run" in result.output


def test_a_study_is_cached(study: Path, tmp_path: Path) -> None:
    arguments = ["cache", str(study / "datalist.json"), "--recipe", "small_mr", "--out", str(tmp_path / "c")]
    result = runner.invoke(cli.app, [*arguments, "--options", "{spacing: 2.0}", "--processes", "0"])
    assert result.exit_code == 0, result.output
    assert f"--datalist {tmp_path / 'c'}" in result.output
    assert json.loads((tmp_path / "c/cache.json").read_text())["cache"]["recipe"]["options"] == {"spacing": 2.0}


@pytest.mark.parametrize(("said", "expected"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_of_every_verb_sleep_while_they_wait_unless_told_otherwise(
    said: str | None, expected: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", said or "")
    if said is None:
        monkeypatch.delenv("OMP_WAIT_POLICY")
    monkeypatch.setattr(cli, "listen", lambda: None)  # this process is not the command's
    monkeypatch.setattr(sys, "argv", ["monai-cl", "bundles"])
    with pytest.raises(SystemExit, match="0"):
        cli.main()
    assert os.environ["OMP_WAIT_POLICY"] == expected


def test_paragraphs_of_help_are_a_line_each_and_fill_any_width() -> None:
    verbs = get_command(cli.app).commands  # type: ignore[attr-defined]
    assert [name for name, verb in verbs.items() if re.search(r"\S *\n *\S", verb.help)] == []
    assert len(verbs["pull"].help.split("\n\n")) == 3


def test_recipes_and_bundles_are_listed() -> None:
    listed = runner.invoke(cli.app, ["recipes"]).output
    assert all(name in listed for name in ("brain_mr", "ct_abdomen", "small_mr"))
    assert "volume_contrast" in runner.invoke(cli.app, ["bundles"]).output


def test_a_recipe_is_previewed_on_a_scan(study: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.png"
    image = str(study / "images/case_0.nii.gz")
    result = runner.invoke(
        cli.app, ["recipes", "preview", "small_mr", "--image", image, "--out", str(out), "--options", "{spacing: 2}"]
    )
    assert result.exit_code == 0, result.output
    assert out.read_bytes().startswith(b"\x89PNG")


def test_a_bundle_is_copied(tmp_path: Path) -> None:
    result = runner.invoke(cli.app, ["bundles", "copy", "volume_contrast", str(tmp_path / "mine")])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "mine/configs/pretrain.yaml").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["scan", "/no/such/folder"], "error: .*no/such/folder"),
        (["bundles", "copy", "volume_contrasts", "x"], "did you mean"),
        (["recipes", "preview", "brain", "--image", "x"], "brain_mr"),
        (["recipes", "preview", "brain_mr", "--image", "x", "--options", "2"], "options must be a dictionary"),
    ],
)
def test_mistakes_are_told_in_one_line(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["monai-cl", *arguments])
    with pytest.raises(SystemExit, match="1"):
        cli.main()
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert __import__("re").search(message, error), error
