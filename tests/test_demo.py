from pathlib import Path

import pytest
from rich.console import Console

from monai_cl.demo import ARMS, command_line, run_demo

TINY = {
    "max_epochs": 1,
    "epoch_length": 2,
    "finetune_epochs": 1,
    "finetune_epoch_length": 2,
    "batch_size": 2,
    "num_crops": 2,
}


def test_the_demo_runs_every_step_and_draws_its_picture(tmp_path: Path) -> None:
    console = Console(record=True, width=120)
    result = run_demo(tmp_path / "d", unlabelled=2, labelled=2, test=2, overrides=TINY, console=console)
    assert set(result.dice) == set(ARMS)
    assert all(0 <= value <= 1 for value in result.dice.values())
    assert result.picture.read_bytes().startswith(b"\x89PNG")
    text = console.export_text()
    assert text.count("python -m monai.bundle run") == 7
    assert "from scratch" in text
    with pytest.raises(FileExistsError, match="the demo needs an empty folder"):
        run_demo(tmp_path / "d")


def test_commands_can_be_pasted() -> None:
    import shlex

    words = shlex.split(command_line({"bundle_root": "a b", "config_file": ["x.yaml", "y.yaml"], "labels": 4}))
    assert words[:4] == ["python", "-m", "monai.bundle", "run"]
    assert words[4:] == ["--bundle_root", "a b", "--config_file", "['x.yaml', 'y.yaml']", "--labels", "4"]
