"""Bundles that travel with the package: list them, copy them, and check what a bundle needs before it runs.

MONAI checks neither the version of the packages a bundle needs nor the names and the kinds of the values one overrides
on the command line, it hides the reason of an error behind its own, and two runs may write into one folder;
:func:`require_version`, :func:`check_command_line`, :func:`plain_errors` and :func:`claim` mend that, from a bundle's
``initialize``.
"""

import importlib.metadata
import linecache
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from packaging.version import InvalidVersion, Version
from rich.console import Console

from monai_cl._endings import ANSWERS, in_words, listen
from monai_cl._files import read_yaml
from monai_cl._locks import claim_file, claim_folder, release as free
from monai_cl._overrides import (
    is_bundle_process,
    is_flag,
    is_same,
    options_of,
    pairs_of,
    parser_in_use,
    read_overrides,
    run_parameters,
)
from monai_cl._words import suggestion

_SEARCH = (
    Path(__file__).parent / "_share" / "bundles",  # in the wheel
    Path(__file__).parent.parent / "bundles",  # in a checkout
)
_COPIED = ("configs", "docs", "models/shipped", "LICENSE")
_TRACEBACK = "MONAI_CL_TRACEBACK"
_claims: list[Path | None] = []
_codes: list[int] = []  # with which this process is to end
_heeding: list[bool] = []  # within heeding_stops
# what MONAI raises around an error of a config expression, a component, a transform
_WRAPPERS = ("Failed to evaluate ", "Failed to instantiate component ", "applying transform ")


def names() -> list[str]:
    """Names of the bundles that come with the package, sorted."""
    return sorted(folder.name for folder in _folder().iterdir() if (folder / "configs" / "metadata.json").is_file())


def path(name: str) -> Path:
    """Folder of a bundle, to read; copy it before you write to it.

    Args:
        name: Name of a bundle that comes with the package.

    Raises:
        ValueError: If no such bundle exists; the message names the closest and all.
    """
    valid = names()
    if name not in valid:
        raise ValueError(f"unknown bundle {name!r}{suggestion(name, valid)} (valid: {', '.join(valid) or 'none'})")
    return _folder() / name


def copy(name: str, destination: str | Path) -> Path:
    """Copy a bundle (configs, docs, shipped weights, LICENSE) to a folder of your own; all of it or nothing.

    Args:
        name: Name of a bundle that comes with the package.
        destination: Folder that will be the bundle root, absent or empty.

    Returns:
        The bundle root.

    Raises:
        ValueError: If no such bundle exists.
        FileExistsError: If the destination is a file or holds something.
    """
    source, target = path(name), Path(destination)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(f"a bundle is copied to an absent or empty folder, {target} is not; choose another")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as scratch:
        # One level deeper: the scratch folder is for its owner alone, a bundle is for the team.
        complete = Path(scratch) / "bundle"
        complete.mkdir()
        try:
            for part in _COPIED:
                _copy_part(source / part, complete / part)
        except OSError as error:
            if error.filename is None and error.errno is not None:  # of a write that failed, as on a full disk
                error.filename = os.fspath(target)
            raise
        if target.exists():
            target.rmdir()  # fails if something was put there meanwhile
        complete.replace(target)
    return target


def require_version(minimum: str) -> None:
    """Stop unless the installed ``monai_cl`` is new enough.

    Args:
        minimum: Oldest version that will do, such as ``"0.1.0"``; compared as versions, so 0.10 is newer than 0.9.

    Raises:
        RuntimeError: If the installed version is older.
        ValueError: If ``minimum`` is not a version.
    """
    installed = importlib.metadata.version("monai_cl")
    try:
        needed = Version(minimum)
    except InvalidVersion as error:
        raise ValueError(f"minimum must be a version such as '0.1.0', got {minimum!r}") from error
    if Version(installed) < needed:
        raise RuntimeError(
            f"this bundle needs monai_cl {minimum} or newer, {installed} is installed: "
            f"pip install --upgrade 'monai_cl>={minimum}'"
        )


def check_command_line(argv: Sequence[str] | None = None) -> None:
    """Refuse overrides of ``python -m monai.bundle run`` that name nothing in the configuration; read the others.

    MONAI adds an unknown ``--key value`` to the configuration, where nothing reads it: a run with a misspelt
    ``--max_epoch 3`` keeps its default without a word. Ids may be nested with ``::`` or ``#``. A new argument of an
    existing component (``--network_def::norm batch``) is let through, since the component itself refuses what it does
    not know. In a process that is not ``monai.bundle run`` nothing is checked.

    MONAI leaves ``--resume false`` a text, which counts as true, takes ``--dataset_dir 2024`` for a number and drops
    ``--finetune_clip None``. So each override is read again as its default asks for (:mod:`monai_cl._settings`), and
    the run that calls this from its ``initialize`` goes on with what was read. Call it before anything refers to a
    setting.

    Args:
        argv: Command line with the program first, which is only checked; ``None`` takes this process's.

    Raises:
        ValueError: If an override names nothing, with the closest valid id of each; or its value is not of the kind
            its default is of, with what is allowed.
    """
    overrides = read_overrides(list(sys.argv if argv is None else argv))
    parser = parser_in_use() if argv is None and overrides else None
    if parser is not None and any(not is_same(parser.get(key), value) for key, value in overrides.items()):
        parser.update(pairs=overrides)
        parser.parse(reset=True)


def split_command(arguments: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Config files and overrides of a command that takes them as ``monai.bundle run`` does.

    Args:
        arguments: Config files, or ``--config_file`` with one or a list of them, and ``--key value`` pairs.

    Returns:
        Config files, and overrides by id.

    Raises:
        ValueError: If no config file is given, or an override names nothing or is of another kind than its default.

    Example:
        >>> split_command(["--max_epochs", "3"])
        Traceback (most recent call last):
        ...
        ValueError: give at least one config file, such as configs/pretrain.yaml, got none
    """
    first = next((index for index, text in enumerate(arguments) if is_flag(text)), len(arguments))
    options = options_of(arguments[first:])
    listed = options.pop("config_file", None) or []
    files = [*arguments[:first], *(listed.split(",") if isinstance(listed, str) else listed)]
    if not files:
        raise ValueError("give at least one config file, such as configs/pretrain.yaml, got none")
    for file in files:
        if not Path(file).is_file():
            raise ValueError(f"a config file must exist, {file} does not")
        if not isinstance(content := read_yaml(file, "a config file"), dict):
            raise ValueError(f"a config file must hold ids and values, {file} holds a {type(content).__name__}")
    pairs = [f"--{key}={text}" for key, text in pairs_of(arguments[first:]) if key != "config_file"]
    result = read_overrides(["monai/bundle/__main__.py", "run", "--config_file", repr(files), *pairs])
    return files, {key: result.get(key, value) for key, value in options.items() if key not in run_parameters()}


def claim(folder: str | Path, *files: str | Path) -> None:
    """Keep a second run from writing where this one does, until :func:`release` or the end of the process.

    Of the processes that ``torchrun`` starts, the first claims, for it alone writes.

    Args:
        folder: The output folder, made where it is absent.
        *files: Files elsewhere that the run writes, such as the network's.

    Raises:
        OccupiedError: If another process has one of them: names it, since when, and what to do. A ``RuntimeError``.
    """
    if int(os.environ.get("RANK") or 0) == 0:
        _claims.append(claim_folder(folder, instead="another --output_dir"))
        _claims.extend(claim_file(file, instead="another file to write") for file in files)


def release() -> None:
    """Give back all that :func:`claim` has taken; of a run that was :func:`stopped`, end the process with its code."""
    while _claims:
        free(_claims.pop())
    if _codes:
        raise SystemExit(_codes.pop())


def stopped(code: int = 128 + signal.SIGTERM) -> None:
    """Let this run end with an exit code, since it stopped before its end: what comes after it must not begin.

    In a process that is not ``python -m monai.bundle`` nothing is done, outside of :func:`heeding_stops`.
    """
    if is_bundle_process(sys.argv) or _heeding:
        _codes.append(code)


@contextmanager
def heeding_stops() -> Iterator[None]:
    """Let a run that is :func:`stopped` end this process, too, where it runs several steps that rest on each other."""
    _heeding.append(True)
    try:
        yield
    finally:
        _heeding.pop()


def plain_errors() -> None:
    """Print ``error: <message>`` when a bundle stops, after the traceback where that helps.

    MONAI wraps whatever an expression of a config raises, so that the last line of a traceback is its own ``Failed to
    evaluate ...``. Installs a ``sys.excepthook`` that looks behind those wrappers, and ends the run with a line and
    nothing half written on SIGTERM or Ctrl-C. What this package raises in words for its user comes without the sixty
    lines of a traceback, unless the environment has ``MONAI_CL_TRACEBACK=1``; all else comes with it. In a process that
    is not ``python -m monai.bundle`` nothing is done.
    """
    if not is_bundle_process(sys.argv) or getattr(sys.excepthook, "plain", False):
        return
    listen(leave=True)
    usual = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        if not _is_answer(_cause(error)) or os.environ.get(_TRACEBACK, "0") != "0":
            usual(kind, error, traceback)
        if isinstance(error, Exception):
            # the last word to the user, as it is: neither wrapped nor read as markup
            Console(stderr=True, highlight=False, markup=False).print(f"\nerror: {_reason(error)}", soft_wrap=True)

    hook.plain = True  # type: ignore[attr-defined]
    sys.excepthook = hook


def _cause(error: BaseException) -> BaseException:
    """The error that MONAI wrapped."""
    while error.__cause__ is not None and type(error) is RuntimeError and str(error).startswith(_WRAPPERS):
        error = error.__cause__
    return error


def _is_answer(error: BaseException) -> bool:
    """Return whether a ``raise`` of this package made the error, in words for the user."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    if frame is None or not isinstance(error, ANSWERS):
        return False
    file = frame.tb_frame.f_code.co_filename
    line = linecache.getline(file, frame.tb_lineno).lstrip()  # Python itself raises elsewhere, as in int("a")
    return Path(file).is_relative_to(Path(__file__).parent) and line.startswith("raise")


def _reason(error: BaseException) -> str:
    """Message of what MONAI wrapped; with its type where the message is a mere word, as that of a ``KeyError``."""
    error = _cause(error)
    text = in_words(error) if isinstance(error, Exception) else str(error)
    return text if " " in text else f"{type(error).__name__}: {text}" if text else type(error).__name__


def _folder() -> Path:
    for folder in _SEARCH:
        if folder.is_dir():
            return folder
    raise FileNotFoundError(
        f"the bundles must lie in {_SEARCH[0]} (wheel) or {_SEARCH[1]} (checkout), neither exists; reinstall monai_cl"
    )


def _copy_part(source: Path, target: Path) -> None:
    """Copy a file, or a folder without what is hidden; stops at the first error, which ``shutil.copytree`` does not."""
    if source.is_dir():
        target.mkdir(parents=True)
        for path in sorted(source.iterdir()):
            if path.name != "__pycache__" and not path.name.startswith("."):
                _copy_part(path, target / path.name)
    elif source.is_file():
        target.write_bytes(source.read_bytes())
