"""Killed with -9 at random moments, time after time, and started again: the end is that of a run left alone."""

import signal
from pathlib import Path

import pytest

from attack.harness import ATTACKED, Attacked, differences, draws, finish, hidden, outputs, run

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("attacked", ATTACKED, ids=lambda one: one.name)
def test_a_killed_command_ends_with_the_bytes_of_one_left_alone(
    attacked: Attacked, study_with_maps: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "work"  # the same for both: some outputs hold paths
    folder.mkdir()
    whole = finish(attacked.prepare(folder, study_with_maps), folder)
    expected = outputs(folder, attacked.volatile)
    folder.rename(tmp_path / "whole")

    folder.mkdir()
    words = attacked.prepare(folder, study_with_maps)
    killed = 0
    for number, delay in draws(attacked.name, whole.moments):
        ended = run(words, folder, number=number, kind=signal.SIGKILL, delay=delay)
        assert ended.code in (0, -signal.SIGKILL), ended.said[-6000:]
        killed += ended.code != 0
    finish(words, folder)
    assert differences(outputs(folder, attacked.volatile), expected) == []
    assert hidden(folder) == [], f"left by {killed} kills"
