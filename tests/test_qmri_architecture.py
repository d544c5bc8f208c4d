"""The physics needs torch alone, and its documented names are where they are documented."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import monai_cl.qmri
from monai_cl.qmri import signal

FOLDER = Path(monai_cl.qmri.__file__).parent
STANDARD = ("abc", "collections", "dataclasses", "difflib", "functools", "itertools", "math", "typing")

SIGNATURES = {
    "spoiled_gradient_echo": ("pd t1 t2_star", "tr te flip_angle b1 mtsat"),
    "spin_echo": ("pd t1 t2", "tr te"),
    "balanced_ssfp": ("pd t1 t2", "tr flip_angle te b1"),
    "inversion_recovery": ("pd t1 t2", "tr ti te efficiency last_echo"),
    "mprage": ("pd t1 t2_star", "tr ti echo_spacing te flip_angle num_pulses efficiency b1"),
    "fast_spin_echo": ("pd t1 t2", "tr echo_spacing train_length effective_echo refocusing_angle ti b1"),
    "double_inversion_recovery": ("pd t1 t2", "tr ti1 ti2 te"),
    "mp2rage": ("pd t1 t2_star", "tr ti1 ti2 echo_spacing flip_angle1 flip_angle2 num_pulses"),
}


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.py")), ids=lambda path: str(path.relative_to(FOLDER)))
def test_torch_is_all_that_is_imported(path: Path) -> None:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    assert not [n for n in names if not n.startswith(("torch", "monai_cl.qmri", "monai_cl._words", *STANDARD))]


def test_monai_is_not_loaded() -> None:
    code = "import sys, monai_cl.qmri\nsys.exit('monai is loaded' if 'monai' in sys.modules else None)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", SIGNATURES)
def test_equations_have_their_documented_arguments(name: str) -> None:
    parameters = inspect.signature(getattr(signal, name)).parameters
    positional, keywords = (words.split() for words in SIGNATURES[name])
    assert list(parameters)[: len(positional)] == positional
    for keyword in keywords:
        assert parameters[keyword].kind is inspect.Parameter.KEYWORD_ONLY


@pytest.mark.parametrize("name", signal.__all__)
def test_every_equation_documents_units_errors_and_source(name: str) -> None:
    text = inspect.getdoc(getattr(signal, name)) or ""
    assert "$" in text
    assert "Args:" in text
    if name not in ("uniform_image",):
        assert "seconds" in text
        assert "Raises:" in text
        assert "Source:" in text
