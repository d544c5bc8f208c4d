"""Bundles that travel with the package: list them, copy them, and check what a bundle needs before it runs.

MONAI checks neither the version of the packages a bundle needs nor the names of the values one overrides on the
command line, and it hides the reason of an error behind its own; :func:`require_version`, :func:`check_command_line`
and :func:`plain_errors` mend that, from a bundle's ``initialize``.
"""

from __future__ import annotations

import difflib
import importlib.metadata
import inspect
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from packaging.version import InvalidVersion, Version
from rich.console import Console

if TYPE_CHECKING:
    from monai.bundle import ConfigParser

_SEARCH = (
    Path(__file__).parent / "_share" / "bundles",  # in the wheel
    Path(__file__).parent.parent / "bundles",  # in a checkout
)
_COPIED = ("configs", "docs", "LICENSE")
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
        ValueError: If there is no such bundle; the message names the closest and all.
    """
    valid = names()
    if name not in valid:
        raise ValueError(f"unknown bundle {name!r}{_suggestion(name, valid)} (valid: {', '.join(valid) or 'none'})")
    return _folder() / name


def copy(name: str, destination: str | Path) -> Path:
    """Copy a bundle (configs, docs, LICENSE) to a folder of your own; all of it or nothing.

    Args:
        name: Name of a bundle that comes with the package.
        destination: Folder that will be the bundle root, absent or empty.

    Returns:
        The bundle root.

    Raises:
        ValueError: If there is no such bundle.
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
        for part in _COPIED:
            _copy_part(source / part, complete / part)
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
    """Refuse overrides of ``python -m monai.bundle run`` that name nothing in the configuration.

    MONAI adds an unknown ``--key value`` to the configuration, where nothing reads it: a run with a misspelt
    ``--max_epoch 3`` keeps its default without a word. Ids may be nested with ``::`` or ``#``. A new argument of an
    existing component (``--network_def::norm batch``) is let through, since the component itself refuses what it does
    not know. In a process that is not ``monai.bundle run`` nothing is checked.

    Args:
        argv: Command line with the program first; ``None`` takes this process's.

    Raises:
        ValueError: If an override names nothing; the message holds each one with the closest valid id.
    """
    arguments = list(sys.argv if argv is None else argv)
    if not _is_bundle_run(arguments):
        return
    options = _options(arguments[2:])
    parser = _read_configuration(options)
    allowed = _run_parameters() | _tracking_parameters(options.get("tracking"))
    # MONAI takes a leading + as "merge into" and drops it.
    overrides = [key.removeprefix("+") for key in options if key not in allowed]
    unknown = [key for key in overrides if not _is_known(key, parser)]
    if unknown:
        ids = [*_ids(parser.get()), *_run_parameters()]
        listed = "; ".join(f"--{key}{_suggestion(key.replace('#', '::'), ids)}" for key in unknown)
        raise ValueError(f"an override must name an id of the config files, unknown: {listed}")


def split_command(arguments: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Config files and overrides of a command that takes them as ``monai.bundle run`` does.

    Args:
        arguments: Config files, or ``--config_file`` with one or a list of them, and ``--key value`` pairs.

    Returns:
        Config files, and overrides by id.

    Raises:
        ValueError: If there is no config file, or an override names nothing.

    Example:
        >>> split_command(["--max_epochs", "3"])
        Traceback (most recent call last):
        ...
        ValueError: give at least one config file, such as configs/pretrain.yaml, got none
    """
    first = next((index for index, text in enumerate(arguments) if _is_flag(text)), len(arguments))
    options = _options(arguments[first:])
    listed = options.pop("config_file", None) or []
    files = [*arguments[:first], *(listed.split(",") if isinstance(listed, str) else listed)]
    if not files:
        raise ValueError("give at least one config file, such as configs/pretrain.yaml, got none")
    for file in files:
        if not Path(file).is_file():
            raise ValueError(f"a config file must exist, {file} does not")
    pairs = [part for key, text in _pairs(arguments[first:]) if key != "config_file" for part in (f"--{key}", text)]
    check_command_line(["monai/bundle/__main__.py", "run", "--config_file", repr(files), *pairs])
    return files, {key: value for key, value in options.items() if key not in _run_parameters()}


def plain_errors() -> None:
    """Let a bundle that stops say why in its last lines: ``error: <message>``, after the usual traceback.

    MONAI wraps whatever an expression of a config raises, so that the last line of a traceback is its own ``Failed to
    evaluate ...``. Installs a ``sys.excepthook`` that looks behind those wrappers; a keyboard interrupt is left as it
    is. In a process that is not ``python -m monai.bundle`` nothing is done.
    """
    if not _is_bundle_process(sys.argv) or getattr(sys.excepthook, "plain", False):
        return
    usual = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        usual(kind, error, traceback)
        if isinstance(error, Exception):
            # the last word to the user, as it is: neither wrapped nor read as markup
            Console(stderr=True, highlight=False, markup=False).print(f"\nerror: {_reason(error)}", soft_wrap=True)

    hook.plain = True  # type: ignore[attr-defined]
    sys.excepthook = hook


def _reason(error: BaseException) -> str:
    """Message of what MONAI wrapped; with its type where the message is a mere word, as that of a ``KeyError``."""
    while error.__cause__ is not None and type(error) is RuntimeError and str(error).startswith(_WRAPPERS):
        error = error.__cause__
    text = str(error)
    return text if " " in text else f"{type(error).__name__}: {text}" if text else type(error).__name__


def _folder() -> Path:
    for folder in _SEARCH:
        if folder.is_dir():
            return folder
    raise FileNotFoundError(
        f"the bundles must lie in {_SEARCH[0]} (wheel) or {_SEARCH[1]} (checkout), neither is there; reinstall monai_cl"
    )


def _copy_part(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    elif source.is_file():
        shutil.copyfile(source, target)


def _suggestion(name: str, valid: Iterable[str]) -> str:
    """Up to three ids that resemble a name as a whole or, for one who left out the way to it, in the last part."""
    whole: dict[str, str] = {}
    last: dict[str, str] = {}
    for option in sorted(valid, key=lambda text: (text.count("::"), text)):
        whole.setdefault(option.casefold(), option)
        last.setdefault(option.casefold().rpartition("::")[2], option)
    folded = name.casefold()
    close = [whole[match] for match in difflib.get_close_matches(folded, whole, n=2)]
    close += [last[match] for match in difflib.get_close_matches(folded.rpartition("::")[2], last, n=2, cutoff=0.7)]
    best = [repr(option) for option in dict.fromkeys(close)][:3]
    return f", did you mean {' or '.join(best)}?" if best else ""


def _is_bundle_process(arguments: Sequence[str]) -> bool:
    return bool(arguments) and Path(arguments[0]).parts[-3:] == ("monai", "bundle", "__main__.py")


def _is_bundle_run(arguments: Sequence[str]) -> bool:
    return _is_bundle_process(arguments) and len(arguments) > 1 and arguments[1] == "run"


def _options(arguments: Sequence[str]) -> dict[str, Any]:
    """The ``--key value`` pairs as Fire, MONAI's command line, reads them, over those of ``--args_file``."""
    from monai.bundle import ConfigParser
    from monai.utils import optional_import

    parse_value, _ = optional_import("fire.parser", name="DefaultParseValue")
    given = {key: parse_value(text) for key, text in _pairs(arguments)}
    defaults = given.get("args_file") or {}
    return {**(defaults if isinstance(defaults, dict) else ConfigParser.load_config_file(defaults)), **given}


def _pairs(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Key and text of each flag; positional arguments (run_id, init_id, ...) are passed over."""
    position = 0
    while position < len(arguments):
        argument = arguments[position]
        position += 1
        if argument == "--":  # what follows is for Fire itself
            return
        if not _is_flag(argument):
            continue
        key, equals, text = argument.lstrip("-").partition("=")
        key = key.replace("-", "_")
        if not equals and position < len(arguments) and not _is_flag(arguments[position]):
            text = arguments[position]
            position += 1
        elif not equals:
            # Fire reads a lone --nokey as key=False, whatever the key: --normalise is rmalise=False.
            key, text = (key[2:], "False") if key.startswith("no") else (key, "True")
        yield key, text


def _is_flag(argument: str) -> bool:
    """A hyphen and a letter, or two hyphens: a negative number is a value."""
    return argument.startswith("--") or (len(argument) > 1 and argument[0] == "-" and argument[1].isalpha())


def _read_configuration(options: Mapping[str, Any]) -> ConfigParser:
    from monai.bundle import ConfigParser

    parser = ConfigParser()
    files = options.get("config_file")
    if not files:
        return parser
    parser.read_config(files)
    first = Path(files.split(",")[0] if isinstance(files, str) else files[0])
    metadata = options.get("meta_file") or first.parent / "metadata.json"
    if not isinstance(metadata, Path) or metadata.is_file():
        parser.read_meta(metadata)
    return parser


def _run_parameters() -> set[str]:
    """Names that ``monai.bundle run`` and the workflow it builds take for themselves."""
    from monai.bundle import ConfigWorkflow, create_workflow, run

    callables = (run, create_workflow, ConfigWorkflow.__init__)
    found = [parameter for each in callables for parameter in inspect.signature(each).parameters.values()]
    return {p.name for p in found if p.kind is not inspect.Parameter.VAR_KEYWORD and p.name != "self"}


def _tracking_parameters(tracking: Any) -> set[str]:
    """Ids that an experiment tracker adds to the configuration after the overrides are applied."""
    from monai.bundle import ConfigParser
    from monai.bundle.utils import DEFAULT_EXP_MGMT_SETTINGS

    if not tracking:
        return set()
    settings = DEFAULT_EXP_MGMT_SETTINGS.get(tracking) if isinstance(tracking, str) else tracking
    if settings is None:
        settings = ConfigParser.load_config_files(tracking)
    return set(settings.get("configs", {}))


def _is_known(key: str, parser: ConfigParser) -> bool:
    if key in parser:
        return True
    parent = key.replace("#", "::").rpartition("::")[0]
    component = parser.get(parent) if parent else None
    return isinstance(component, dict) and "_target_" in component


def _ids(config: Any, prefix: str = "") -> list[str]:
    """All ids below a configuration, nested ones joined by ``::``; metadata is left out."""
    if not isinstance(config, dict | list):
        return []
    found = []
    for key, value in config.items() if isinstance(config, dict) else enumerate(config):
        if key == "_meta_":
            continue
        found += [f"{prefix}{key}", *_ids(value, f"{prefix}{key}::")]
    return found
