"""Who may import whom, what importing the package must not load, and what every test must hold."""

import ast
import importlib
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "monai_cl"
LEVELS = (
    ("losses", "qmri", "privacy", "recipes", "bundles"),
    ("io", "networks"),
    ("weights", "metrics", "transforms", "phantoms", "datalist"),
    ("intake", "data", "methods"),
    ("engine",),
    ("evaluation",),
    ("report",),
    ("demo",),
    ("cli",),
)
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
# Arrows within a level or upward: a file, and the room it may import all the same.
ARROWS = (
    ("data/__init__.py", "intake"),  # names of 0.1.0, of which none is imported before it is asked for
)
QUESTIONS = {"how", "that", "those", "what", "when", "where", "whether", "which", "who", "whose", "why"}
WITHOUT_TORCH = {"privacy", "io", "datalist", "intake"}
TESTS = Path(__file__).parent
CLAIMS = {"raises", "warns", "fail"}  # of pytest
LEAVES = {"_cores", "_endings", "_files", "_lazy", "_locks", "_moved", "_overrides", "_settings", "_words"}


@cache
def imports(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} has a relative import, which does not tell a room"
            module = str(node.module)
            names.update([module] if module != "monai_cl" else [f"monai_cl.{a.name}" for a in node.names])
    return names


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_nothing_imports_upward_or_beside_itself(path: Path) -> None:
    here = room(path)
    rooms = {name.split(".")[1] for name in imports(path) if name.startswith("monai_cl.")} - {here} - LEAVES
    assert here not in LEAVES or not rooms, f"{here} is a leaf but imports {sorted(rooms)}"
    named = {there for arrow, there in ARROWS if arrow == path.relative_to(PACKAGE).as_posix()}
    assert [there for there in rooms - named if LEVEL[there] >= LEVEL[here]] == []


@pytest.mark.parametrize(("file", "there"), ARROWS)
def test_an_arrow_is_named_only_where_there_is_one(file: str, there: str) -> None:
    assert any(name.startswith(f"monai_cl.{there}") for name in imports(PACKAGE / file))
    assert LEVEL[there] >= LEVEL[room(PACKAGE / file)]


def test_every_room_has_a_level() -> None:
    rooms = {room(path) for path in PACKAGE.rglob("*.py")}
    assert rooms - {"__init__"} == {*LEVEL, *LEAVES}


@pytest.mark.parametrize(
    "path",
    sorted(path for path in PACKAGE.rglob("*.py") if room(path) in WITHOUT_TORCH),
    ids=lambda p: str(p.relative_to(PACKAGE)),
)
def test_what_a_scan_needs_never_imports_torch_or_monai(path: Path) -> None:
    assert {name.split(".")[0] for name in imports(path)}.isdisjoint({"torch", "monai"})


@pytest.mark.parametrize("path", sorted((PACKAGE / "losses").glob("*.py")), ids=lambda p: p.name)
def test_losses_need_torch_alone(path: Path) -> None:
    others = {name for name in imports(path) if name.split(".")[0] not in {"torch", *sys.stdlib_module_names}}
    assert all(name.startswith("monai_cl.losses") for name in others)


def test_importing_the_package_is_light() -> None:
    code = (
        "import sys, monai_cl\n"
        "heavy = {'torch', 'monai', 'matplotlib', 'pydicom', 'SimpleITK', 'nilearn', 'IPython'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or None)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).returncode == 0


FACES = sorted(path.parent for path in PACKAGE.rglob("__init__.py") if "face(__name__)" in path.read_text("utf-8"))


@pytest.mark.parametrize("folder", FACES, ids=lambda p: p.name)
def test_a_lazy_face_gives_all_of_its_names(folder: Path) -> None:
    name = ".".join(folder.relative_to(PACKAGE.parent).parts)
    package = importlib.import_module(name)
    assert [one for one in package.__all__ if getattr(package, one, None) is None] == []
    modules = {path.stem for path in folder.iterdir()}
    assert modules.isdisjoint(package.__all__), "importing that module would hide the name"
    with pytest.raises(AttributeError, match=f"module '{name}' has no attribute 'nothing_like_it'"):
        package.nothing_like_it  # noqa: B018 - asking is the test


def test_losses_load_no_monai() -> None:
    code = "import sys, monai_cl.losses\nsys.exit('monai is loaded' if 'monai' in sys.modules else None)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_plotting_and_phantom_libraries_are_imported_where_they_are_used(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = {alias.name for node in top if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in top if isinstance(node, ast.ImportFrom)}
    assert not [name for name in names if name.split(".")[0] in ("matplotlib", "nilearn", "IPython")]


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_docstring_begins_with_a_verb_or_a_noun(path: Path) -> None:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, documented)]
    openings = [(getattr(node, "name", path.name), (ast.get_docstring(node) or "None.").split()[0]) for node in nodes]
    assert [name for name, word in openings if word.strip(",.:;").lower() in QUESTIONS] == []


def called(node: ast.AST) -> str:
    """Last part of the name of what is called; empty for other nodes."""
    function = node.func if isinstance(node, ast.Call) else None
    return str(getattr(function, "attr", getattr(function, "id", "")))


def claims(node: ast.AST, names: set[str]) -> bool:
    """Whether a node can fail a test: an assert, a call of a function with one, a command that must succeed."""
    if isinstance(node, ast.Assert) or called(node) in names | CLAIMS or called(node).startswith("assert_"):
        return True
    return called(node) == "run" and "check=True" in ast.unparse(node)


@cache
def claiming(path: Path) -> set[str]:
    """Functions of a test file, and those it has from its neighbours, that can fail a test."""
    tree, names = ast.parse(path.read_text(encoding="utf-8")), set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (TESTS / f"{node.module}.py").is_file():
            names |= claiming(TESTS / f"{node.module}.py") & {alias.name for alias in node.names}
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    while more := {f.name for f in functions if any(claims(node, names) for node in ast.walk(f))} - names:
        names |= more
    return names


@pytest.mark.parametrize("path", sorted(TESTS.rglob("*.py")), ids=lambda p: str(p.relative_to(TESTS)))
def test_every_test_can_fail_and_every_expected_error_has_words(path: Path) -> None:
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    tests = [node.name for node in nodes if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    assert [name for name in tests if name not in claiming(path)] == []
    expected = [node for node in nodes if isinstance(node, ast.Call) and called(node) in ("raises", "warns")]
    assert [node.lineno for node in expected if "match" not in {keyword.arg for keyword in node.keywords}] == []


def test_what_cannot_fail_is_seen(tmp_path: Path) -> None:
    lines = (
        "def helper(x): assert x",
        "def test_a(): helper(1)",
        "def test_b(): run(1)",
        "def test_c(): run(1, check=True)",
    )
    (tmp_path / "test_it.py").write_text("\n".join(lines))
    assert claiming(tmp_path / "test_it.py") == {"helper", "test_a", "test_c"}
