"""The notebooks run from top to bottom, and are kept with pictures and without traces of a machine.

``python tests/test_tutorials.py`` runs them and writes their outputs anew.
"""

import os
import re
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nbformat
import orthanc
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "tutorials"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
MAX_BYTES = 1_500_000
# an absolute path of at least one folder, but no closing tag, fraction or address
ABSOLUTE_PATH = re.compile(r"(?<![\w.<:/-])/(?:[\w.-]+/)+[\w.-]*|\b[A-Za-z]:\\\w")

OF_AN_ARCHIVE = "07_from_pacs_and_back"

# Steps of the longest trainings, which make pictures worth looking at and have no part in whether a notebook runs.
# So few are no collapse that a run should stop at.
SHORTER = {
    "01_quickstart": {
        "max_epochs=4, epoch_length=20": 'max_epochs=2, epoch_length=2, on_collapse="warn"',
        "finetune_epochs=8, finetune_epoch_length=30": "finetune_epochs=2, finetune_epoch_length=2",
    },
    "02_volume_contrast": {"STEPS, BATCH = 80, 4": "STEPS, BATCH = 12, 4"},
    "06_few_labels": {'"finetune_epoch_length": 20': '"finetune_epoch_length": 3'},
    "08_your_own_method": {'"--epoch_length", "20"': '"--epoch_length", "2", "--on_collapse", "warn"'},
    "09_hospital_studies": {
        "STEPS = 250": "STEPS = 20",
        "STEPS, vectors = 100": "STEPS, vectors = 10",
        "STEPS = 150": "STEPS = 10",
    },
}

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def why_not(path: Path) -> str:
    """What a notebook needs and this machine lacks."""
    if path.stem != OF_AN_ARCHIVE:
        return ""
    lacking = [name for name in ("highdicom", "pydicom") if find_spec(name) is None]
    extras = f"needs the extras dicomweb and dicom-seg: no {' and no '.join(lacking)}" if lacking else ""
    return extras if orthanc.installed() else orthanc.WHY_NOT


def execute(path: Path, scratch: Path, *, timeout: int = 600, shorter: dict[str, str] | None = None) -> Any:
    """The notebook, run in a new kernel that starts in ``scratch`` and keeps its own files there."""
    notebook = read(path)
    for old, new in (shorter or {}).items():
        assert any(old in cell.source for cell in notebook.cells), f"{path.name} has no {old}"
        for cell in notebook.cells:
            cell.source = cell.source.replace(old, new)
    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(scratch)}},
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1", "IPYTHONDIR": str(scratch / "ipython")}
    client.execute(env=environment)
    notebook.metadata.language_info = {"name": "python"}  # not the version that happened to run it
    return notebook


def outputs(notebook: Any) -> list[Any]:
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def texts(notebook: Any) -> list[str]:
    found = [output.text for output in outputs(notebook) if output.output_type == "stream"]
    data = [output.get("data", {}) for output in outputs(notebook)]
    return found + [str(value) for one in data for kind, value in one.items() if not kind.startswith("image/")]


def problems(notebook: Any) -> list[str]:
    """What keeps a notebook with outputs from being committed."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    found = [f"error output: {output.evalue}" for output in outputs(notebook) if output.output_type == "error"]
    found += [f"on stderr: {o.text}" for o in outputs(notebook) if o.output_type == "stream" and o.name == "stderr"]
    found += [f"path of a machine: {path}" for text in texts(notebook) for path in ABSOLUTE_PATH.findall(text)]
    found += [f"metadata of cell {cell.id}: {dict(cell.metadata)}" for cell in notebook.cells if cell.metadata]
    if [cell.execution_count for cell in code] != list(range(1, len(code) + 1)):
        found.append("cells were not run once each, from top to bottom")
    if not any("image/png" in output.get("data", {}) for output in outputs(notebook)):
        found.append("no pictures")
    return found


def test_there_are_notebooks_and_the_page_names_each() -> None:
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert NOTEBOOKS
    assert [path.name for path in NOTEBOOKS if f"]({path.name})" not in page] == []


@every_notebook
def test_a_committed_notebook_shows_its_pictures_and_no_machine(path: Path) -> None:
    notebook = read(path)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert problems(notebook) == []
    assert path.stat().st_size < MAX_BYTES


@pytest.mark.timeout(900)
@pytest.mark.parametrize("shorter", [True, pytest.param(False, marks=pytest.mark.slow)], ids=("shorter", "whole"))
@every_notebook
def test_a_notebook_runs(path: Path, shorter: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if reason := why_not(path):
        pytest.skip(reason)
    if not shorter and path.stem not in SHORTER:
        pytest.skip("as it is, it runs in the other test")
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    notebook = execute(path, scratch, shorter=SHORTER.get(path.stem) if shorter else None)
    assert problems(notebook) == []
    assert [each.name for each in scratch.iterdir() if each.name != "ipython"] == []  # it cleans up, or works elsewhere


def test_what_the_notebook_of_an_archive_lacks_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    path = FOLDER / f"{OF_AN_ARCHIVE}.ipynb"
    assert path in NOTEBOOKS
    monkeypatch.setattr(orthanc, "installed", lambda: True)
    monkeypatch.setattr(f"{__name__}.find_spec", lambda name: None if name == "highdicom" else name)
    assert why_not(path) == "needs the extras dicomweb and dicom-seg: no highdicom"
    monkeypatch.setattr(orthanc, "installed", lambda: False)
    assert "apt-get install orthanc" in why_not(path)
    assert {why_not(other) for other in NOTEBOOKS if other != path} == {""}


@pytest.mark.parametrize("text", ["in /work/main", "'/tmp/x/y.png'", "--model=/home/me/m.pt", r"C:\scans", ">/a/b<"])
def test_paths_of_a_machine_are_found(text: str) -> None:
    assert ABSOLUTE_PATH.search(text)


@pytest.mark.parametrize("text", ["runs/train/history.csv", "</span>", "20/80", "0/1", "https://monai.io/a/b", "a / b"])
def test_relative_paths_and_tags_are_no_paths_of_a_machine(text: str) -> None:
    assert not ABSOLUTE_PATH.search(text)


if __name__ == "__main__":
    for each in NOTEBOOKS:
        if lack := why_not(each):
            sys.stderr.write(f"{each.name} is left as it is: {lack}\n")
            continue
        with tempfile.TemporaryDirectory() as folder:
            done = execute(each, Path(folder))
        nbformat.write(done, each)
