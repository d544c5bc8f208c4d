"""What users install."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (file,) = folder.glob("*.whl")
    return set(zipfile.ZipFile(file).namelist())


def tracked(folder: str, *patterns: str) -> set[str]:
    return {
        str(path.relative_to(ROOT)) for pattern in patterns for path in (ROOT / folder).glob(pattern) if path.is_file()
    }


def test_the_wheel_carries_every_recipe_with_its_picture(wheel: set[str]) -> None:
    wanted = tracked("transforms", "*.yaml", "README.md", "previews/*.png")
    assert wanted
    assert {f"monai_cl/_share/{path}" for path in wanted} <= wheel


def test_the_wheel_carries_every_bundle_with_its_shipped_weights_but_no_others_or_runs(wheel: set[str]) -> None:
    wanted = tracked("bundles", "*/configs/*", "*/docs/*", "*/docs/records/*", "*/models/shipped/*", "*/LICENSE")
    assert wanted
    assert {f"monai_cl/_share/{path}" for path in wanted} <= wheel
    unwanted = [name for name in wheel if "/models/" in name or "/runs/" in name or name.endswith(".pt")]
    assert not [name for name in unwanted if "/models/shipped/" not in name]


def test_the_wheel_is_typed_and_licensed(wheel: set[str]) -> None:
    assert "monai_cl/py.typed" in wheel
    assert any(name.endswith("licenses/LICENSE") for name in wheel)


def test_constraints_pin_every_dependency() -> None:
    pinned = set(re.findall(r"^([\w.-]+)==", (ROOT / "constraints.txt").read_text().lower(), re.MULTILINE))
    text = (ROOT / "pyproject.toml").read_text().lower()
    blocks = re.findall(r"^(?:dependencies|demo|docs|test) = \[(.*?)\]\s*$", text, re.MULTILINE | re.DOTALL)
    needed = {name for block in blocks for name in re.findall(r'"([\w.-]+)[><=~]', block)}
    assert len(needed) > 20
    assert needed <= pinned, sorted(needed - pinned)


def test_ci_runs_the_command_of_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    command = readme.split("<!-- test command -->")[1].split("```")[1].removeprefix("bash").strip()
    assert "pip install" in command
    assert "pytest" in command
    script = (
        (ROOT / ".ci/run")
        .read_text()
        .replace('$(dirname "$0")/..', str(ROOT))
        .replace("bash -euo pipefail -c", "printf '%s'")
    )
    shown = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == command
