"""Docstrings, messages, comments and pages are in standard words: phrases of the field, no private dialect."""

import ast
import io
import json
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "monai_cl"
# words that open a clause instead of naming a thing or an action
OPENINGS = {"how", "that", "those", "what", "when", "where", "whether", "which", "who", "whose", "why"}
OPENINGS |= {"and", "as", "be", "but", "by", "for", "from", "if", "in", "it", "of", "on", "so", "there", "they", "this"}
OPENINGS |= {"these", "to", "with", "without"}
# in a first line
DIALECT = re.compile(r"\b(found|told|tells?|telling|said|says?|handed|there)\b", re.IGNORECASE)
# anywhere: files, runs and numbers do not speak, and things exist or are missing
SPOKEN = r"told|tells?|telling|said|says?|saying|handed"
PRESENT = r"there (?:is|are|was|were|must)|(?:is|are|was|were|be|been|all) (?:not |already )?there|is what|nobody knows"
PRIVATE = re.compile(rf"\b(?:{SPOKEN}|{PRESENT})\b", re.IGNORECASE)
# an argument or attribute is described by a noun, not by a clause
CLAUSE = re.compile(r"^\s+\**\w+: (?:What|Those)\b", re.MULTILINE)
CODE = re.compile(r"``[^`]*``|`[^`\n]*`|:\w+:`[^`]*`|^\s*```.*?^\s*```", re.MULTILINE | re.DOTALL)
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
# verdicts and caveats that records of earlier versions hold word for word
RECORDED = ("cannot be told", "more seeds would tell")
PROSE = [ROOT / "README.md", *ROOT.glob("transforms/*.md"), *ROOT.glob("tutorials/**/*.md")]
PROSE += [*ROOT.glob("bundles/*/docs/card.md.j2"), *ROOT.glob("tutorials/*.ipynb")]


def docstrings(source: str) -> list[tuple[str, str]]:
    """Name and docstring of every module, class and function of a file, public and private."""
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, DOCUMENTED)]
    texts = [(getattr(node, "name", "module"), ast.get_docstring(node)) for node in nodes]
    return [(name, text) for name, text in texts if text]


def texts(source: str) -> Iterator[str]:
    """Docstrings, messages and comments of a file, without code inside them."""
    parts = [node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)]
    yield from (CODE.sub("", part) for part in parts if isinstance(part, str) and " " in part)
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    yield from (CODE.sub("", token.string) for token in tokens if token.type == tokenize.COMMENT)


def prose(path: Path) -> str:
    """Text of a page, card or notebook, without code."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = (cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown")
        text = "\n\n".join("".join(cell["source"]) for cell in cells)
    return CODE.sub("", text)


def faults(line: str) -> list[str]:
    """Words of a first line that break the rule."""
    opening = line.split()[0].strip(",.:;").lower()
    return [opening] * (opening in OPENINGS) + DIALECT.findall(CODE.sub("", line))


def private_words(text: str) -> list[str]:
    """Words of any other text that break the rule."""
    for recorded in RECORDED:
        text = text.replace(recorded, "")
    return PRIVATE.findall(text) + CLAUSE.findall(text)


every_file = pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)


@every_file
def test_first_lines_of_docstrings_are_in_standard_words(path: Path) -> None:
    lines = [(name, text.splitlines()[0]) for name, text in docstrings(path.read_text(encoding="utf-8"))]
    assert [(name, line, faults(line)) for name, line in lines if faults(line)] == []


@every_file
def test_docstrings_messages_and_comments_are_in_standard_words(path: Path) -> None:
    found = [(text, private_words(text)) for text in texts(path.read_text(encoding="utf-8"))]
    assert [(words, text) for text, words in found if words] == []


@pytest.mark.parametrize("path", sorted(PROSE), ids=lambda path: str(path.relative_to(ROOT)))
def test_pages_cards_and_notebooks_are_in_standard_words(path: Path) -> None:
    assert private_words(prose(path)) == []


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


@pytest.mark.parametrize(
    "text",
    ["If there is no such file.", "the log says why", "is not there; copy it", "Args:\n    folder: What it holds."],
)
def test_other_words_are_refused_in_bodies(text: str) -> None:
    assert private_words(text)


@pytest.mark.parametrize(
    "text", ["If the file does not exist.", "go on from there", "they say so in one seed: the spread cannot be told"]
)
def test_recorded_and_standard_words_pass_in_bodies(text: str) -> None:
    assert private_words(text.replace("they say so in ", "")) == []
