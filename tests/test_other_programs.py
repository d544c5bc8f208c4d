"""Environments of the programs that the test command leaves out: exact versions, those that the pages name."""

import re

import other_programs
import pytest
from conftest import ROOT

NAMED = {"label": "monailabel", "federated": "nvflare", "deploy": "monai-deploy-app-sdk"}
PINNED = re.compile(r"[\w.-]+==[\w.]+")


def listed(name: str) -> list[str]:
    lines = (ROOT / "tests" / "environments" / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if not line.startswith("#")]


@pytest.mark.parametrize("name", other_programs.PROGRAMS)
def test_a_list_has_exact_versions_and_the_program_of_the_page(name: str) -> None:
    lines = listed(name)
    assert [line for line in lines if not PINNED.fullmatch(line)] == []
    assert lines == sorted(set(lines), key=str.lower)
    (version,) = (line.partition("==")[2] for line in lines if line.startswith(f"{NAMED[name]}=="))
    page = (ROOT / "tutorials" / "other_programs.md").read_text(encoding="utf-8")
    assert re.search(rf"(?i)tried with (?:the App SDK |nvflare )?{re.escape(version)}", page)


@pytest.mark.parametrize("name", other_programs.PROGRAMS)
def test_the_tests_of_a_program_are_there(name: str) -> None:
    assert [file for file in other_programs.PROGRAMS[name].files if not (ROOT / "tests" / file).is_file()] == []


def test_a_program_that_is_not_listed_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        other_programs.main(["labels"])
    assert "must be among federated, deploy, label, got labels" in capsys.readouterr().err
