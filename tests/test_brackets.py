"""Paths and texts of users that look like the markup of the terminal are printed as they are."""

import ast
import io
import json
import shutil
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from monai_cl.cli import app, console as console_of_commands

PACKAGE = Path(__file__).parents[1] / "monai_cl"
ODD = "scans[/x]"  # a folder `scans[` and in it `x]`: rich takes [/x] for the end of a style that never began


@pytest.fixture
def data(study: Path, tmp_path: Path) -> Path:
    """The tiny study in a folder of such a name."""
    folder = tmp_path / ODD / "[bold]data"
    shutil.copytree(study, folder)
    content = json.loads((folder / "datalist.json").read_text())
    shutil.copy(folder / content["training"][0]["image"], folder / "images/[red]case_9.nii.gz")
    return folder


def said(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output.replace("\n", "")


def shown(table: object) -> str:
    """A table as a console prints it that knows of no precaution."""
    console = Console(file=io.StringIO(), width=400)
    console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_commands_on_such_a_folder_end_and_name_it(data: Path, tmp_path: Path) -> None:
    out = data.parent
    assert ODD in said("scan", data, "--out", out / "study.json", "--no-pictures", "--no-hide-names")
    assert ODD in said("curate", data / "datalist.json", "--out", out / "curated.json", "--on-leak", "report")
    assert ODD in said("bundles", "copy", "volume_contrast", out / "bundle")
    recipe = ["--recipe", "small_mr", "--processes", "1"]
    assert ODD in said("cache", data / "datalist.json", *recipe, "--out", out / "cache", "--max-faults", "1")
    image = data / "images/case_0.nii.gz"
    assert ODD in said("recipes", "preview", "small_mr", "--image", image, "--out", out / "preview.png")


def test_tables_keep_brackets_in_any_console(data: Path) -> None:
    from monai_cl.data.cache.writing import CacheResult
    from monai_cl.intake.scan import scan

    result = scan(data, data.parent / "list.json", hide_names=False)
    assert str(data) in shown(result.table())
    assert ODD in "".join(shown(CacheResult(data).table()).split())  # a long title is folded


def test_the_console_of_commands_takes_no_markup() -> None:
    with console_of_commands.capture() as capture:
        console_of_commands.print("[/x] [red]not red[/red]")
    assert capture.get() == "[/x] [red]not red[/red]\n"


def test_texts_are_printed_without_markup() -> None:
    """A text put together from others says that it is no markup, whosever the console may be."""
    risky = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if "cli" not in path.parts and isinstance(node, ast.Call) and _prints_a_text(node):  # cli's takes none
                risky.append(f"{path.relative_to(PACKAGE)}:{node.lineno}")
    assert risky == []


def _prints_a_text(node: ast.Call) -> bool:
    """Whether a call prints a made-up text, or shows one beside a bar, and leaves markup on."""
    if isinstance(node.func, ast.Name) and node.func.id == "TextColumn":
        return any(field in ast.unparse(node) for field in ("task.fields", "task.description")) and not _plain(node)
    if not (isinstance(node.func, ast.Attribute) and node.func.attr in ("print", "rule") and node.args):
        return False
    of_console = "console" in ast.unparse(node.func.value).casefold()
    made_up = isinstance(node.args[0], ast.JoinedStr) or ast.unparse(node.args[0]) == "text"
    return of_console and made_up and not _plain(node)


def _plain(node: ast.Call) -> bool:
    return "markup=False" in ast.unparse(node)
