"""Tests with the real MONAI Label, NVFlare and MONAI Deploy, each in an environment that is made here.

    .venv/bin/python tests/other_programs.py                           # all of them
    .venv/bin/python tests/other_programs.py label deploy              # some
    .venv/bin/python tests/other_programs.py federated -- -k pretrain  # what follows the dashes goes to pytest

The README's test command leaves these programs out: each asks for versions of its own, and their tests take long. An
environment is ``build/other_programs/NAME``, made once, and again where its list has changed. It holds what
``environments/NAME.txt`` lists, in exactly these versions, and sees the packages of the environment that runs this
script, which has the extra ``test``: torch is not downloaded again, and nothing of that environment is changed.
"""

import argparse
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
ROOT = HERE.parent
INSTALLED = "installed.txt"  # the list that an environment was made from


class Program(NamedTuple):
    """Tests of a program.

    Attributes:
        files: Tests.
        variable: Tells tests the Python of the program; empty where that Python runs the tests itself.
    """

    files: tuple[str, ...]
    variable: str = ""


PROGRAMS = {
    "federated": Program(("test_federated_nvflare.py",)),
    "deploy": Program(("test_monai_deploy.py",), "MONAI_DEPLOY_PYTHON"),
    "label": Program(("test_monai_label.py", "test_monai_label_server.py"), "MONAI_LABEL_PYTHON"),
}


def main(arguments: list[str]) -> int:
    """Make the environments and run the tests; gives the number of programs whose tests failed."""
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"among {', '.join(PROGRAMS)}; none = all")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "other_programs", help="of the environments")
    given = parser.parse_args(arguments[:cut])
    if unknown := sorted(set(given.names) - set(PROGRAMS)):
        parser.error(f"programs must be among {', '.join(PROGRAMS)}, got {', '.join(unknown)}")
    failed = []
    for name in given.names or PROGRAMS:
        python = environment(name, given.folder.resolve() / name)
        if run_tests(PROGRAMS[name], python, arguments[cut + 1 :]):
            failed.append(name)
    sys.stdout.write(f"failed: {', '.join(failed)}\n" if failed else "all passed\n")
    return len(failed)


def environment(name: str, folder: Path) -> Path:
    """Make an environment unless it is there; gives its Python."""
    wanted = HERE / "environments" / f"{name}.txt"
    python, installed = folder / "bin" / "python", folder / INSTALLED
    if installed.is_file() and installed.read_text(encoding="utf-8") == wanted.read_text(encoding="utf-8"):
        return python
    sys.stdout.write(f"{name}: making its environment\n")
    sys.stdout.flush()
    venv.create(folder, clear=True, with_pip=True, symlinks=True)
    packages = Path(sysconfig.get_path("purelib", "posix_prefix", {"base": str(folder), "platbase": str(folder)}))
    # its own packages come first; addsitedir, unlike a plain line, goes on to what that folder refers to
    ours = sysconfig.get_path("purelib")
    (packages / "test_environment.pth").write_text(f"import site; site.addsitedir({ours!r})\n", encoding="utf-8")
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--no-deps", "--ignore-installed", "-r", wanted], check=True
    )
    installed.write_text(wanted.read_text(encoding="utf-8"), encoding="utf-8")
    return python


def run_tests(program: Program, python: Path, options: list[str]) -> int:
    """Run all tests of a program, slow ones among them; gives the status of pytest."""
    variables = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    if program.variable:
        variables[program.variable] = str(python)
    command = [sys.executable if program.variable else str(python), "-m", "pytest", "-q", "-rs", "-m", "", *options]
    files = [str(HERE / name) for name in program.files]
    return subprocess.run([*command, *files], cwd=ROOT, env=os.environ | variables).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
