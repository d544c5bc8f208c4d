"""First lines of docstrings are in standard words: a verb or noun phrase of the field, no private dialect."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "monai_cl"
# words that open a clause instead of naming a thing or an action
OPENINGS = {"how", "that", "those", "what", "when", "where", "whether", "which", "who", "whose", "why"}
OPENINGS |= {"and", "as", "be", "but", "by", "for", "from", "if", "in", "it", "of", "on", "so", "there", "they", "this"}
OPENINGS |= {"these", "to", "with", "without"}
DIALECT = re.compile(r"\b(found|told|tells?|telling|said|says?|handed|there)\b", re.IGNORECASE)
CODE = re.compile(r"``[^`]*``|:\w+:`[^`]*`")
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def first_lines(source: str) -> list[tuple[str, str]]:
    """Name and first line of every docstring of a module, public and private."""
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, DOCUMENTED)]
    lines = [(getattr(node, "name", "module"), ast.get_docstring(node)) for node in nodes]
    return [(name, text.splitlines()[0]) for name, text in lines if text]


def faults(line: str) -> list[str]:
    """Words of a first line that break the rule."""
    opening = line.split()[0].strip(",.:;").lower()
    return [opening] * (opening in OPENINGS) + DIALECT.findall(CODE.sub("", line))


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_first_lines_of_docstrings_are_in_standard_words(path: Path) -> None:
    lines = first_lines(path.read_text(encoding="utf-8"))
    assert [(name, line, faults(line)) for name, line in lines if faults(line)] == []


@pytest.mark.parametrize(
    "line",
    [
        "What a run needs.",
        "From files to items.",
        "Tell whether it ends.",
        "Labels, where there are any.",
        "It is told.",
    ],
)
def test_other_words_are_refused(line: str) -> None:
    assert faults(line)


@pytest.mark.parametrize(
    "line", ["Return whether a run ends.", "Fraction of voxels.", "Name in ``told``.", "Findings."]
)
def test_standard_words_pass(line: str) -> None:
    assert faults(line) == []
