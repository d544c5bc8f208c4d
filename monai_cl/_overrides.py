"""Overrides of a bundle's configuration as ``python -m monai.bundle run`` takes them: checked, and read again."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from pydoc import locate
from typing import TYPE_CHECKING, Any

from monai_cl._settings import settle
from monai_cl._words import id_suggestion

if TYPE_CHECKING:
    from monai.bundle import ConfigParser


def read_overrides(arguments: list[str]) -> dict[str, Any]:
    """Overrides of a command line, each of the kind of its default; none where it is not of ``monai.bundle run``."""
    if not is_bundle_run(arguments):
        return {}
    options = options_of(arguments[2:])
    parser = _read_configuration(options)
    allowed = run_parameters() | _tracking_parameters(options.get("tracking"))
    # MONAI takes a leading + as "merge into" and drops it.
    overrides = [key.removeprefix("+") for key in options if key not in allowed]
    unknown = [key for key in overrides if not is_known(key, parser)]
    if unknown:
        ids = [*_ids(parser.get()), *run_parameters()]
        listed = "; ".join(f"--{key}{id_suggestion(key.replace('#', '::'), ids)}" for key in unknown)
        raise ValueError(f"an override must name an id of the config files, unknown: {listed}")
    texts = dict(pairs_of(arguments[2:]))
    # what is merged into a list or dictionary is part of it, so its default has no kind
    plain = {key: value for key, value in options.items() if key not in allowed and not key.startswith("+")}
    return lay(plain, parser, texts)


def is_known(key: str, parser: ConfigParser) -> bool:
    """Return whether an id is in a configuration, or may be a new argument of a component in it."""
    if key in parser:
        return True
    parent = key.replace("#", "::").rpartition("::")[0]
    component = parser.get(parent) if parent else None
    return isinstance(component, dict) and "_target_" in component


def lay(overrides: Mapping[str, Any], parser: ConfigParser, texts: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Lay overrides on a configuration, each of the kind of its default.

    Args:
        overrides: Values by id.
        parser: The configuration, which is changed.
        texts: Text as typed, for values from a command line.

    Returns:
        The values as they were laid.

    Raises:
        ValueError: If a value is of another kind; names the allowed values.
    """
    laid = {}
    for key, value in overrides.items():
        default = parser.get(key) if key in parser else _flag_of_component(key, parser)
        laid[key] = settle(key, value, default, text=(texts or {}).get(key), look_up=parser.get)
        parser.set(laid[key], key, recursive=True)
    return laid


def _flag_of_component(key: str, parser: ConfigParser) -> bool | None:
    """Default of a flag that a component takes and the configuration leaves out."""
    from monai.bundle.config_item import ConfigComponent

    parent, _, name = key.replace("#", "::").rpartition("::")
    component = parser.get(parent) if parent else None
    if not isinstance(component, dict) or "_target_" not in component:
        return None
    target = ConfigComponent(component, locator=parser.locator).resolve_module_name()
    called = locate(target) if isinstance(target, str) else target
    parameter = inspect.signature(called).parameters.get(name) if callable(called) else None
    return parameter.default if parameter is not None and isinstance(parameter.default, bool) else None


def is_same(one: Any, other: Any) -> bool:
    """Compare two values; they are the same if equal and of one type, as 1 and true are not."""
    return type(one) is type(other) and bool(one == other)


def parser_in_use() -> ConfigParser | None:
    """Configuration whose expression is being evaluated; MONAI does not pass it to the expression."""
    from monai.bundle import ConfigParser

    frame = inspect.currentframe()
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, ConfigParser):
            return owner
        frame = frame.f_back
    return None


def is_bundle_process(arguments: Sequence[str]) -> bool:
    """Return whether a command line is one of ``python -m monai.bundle``."""
    return bool(arguments) and Path(arguments[0]).parts[-3:] == ("monai", "bundle", "__main__.py")


def is_bundle_run(arguments: Sequence[str]) -> bool:
    """Return true for a command line that runs a bundle's workflow, ``run`` or ``run_workflow``."""
    return is_bundle_process(arguments) and len(arguments) > 1 and arguments[1] in ("run", "run_workflow")


def options_of(arguments: Sequence[str]) -> dict[str, Any]:
    """The ``--key value`` pairs as Fire, MONAI's command line, reads them, over those of ``--args_file``."""
    from monai.bundle import ConfigParser
    from monai.utils import optional_import

    parse_value, _ = optional_import("fire.parser", name="DefaultParseValue")
    given = {key: parse_value(text) for key, text in pairs_of(arguments)}
    defaults = given.get("args_file") or {}
    return {**(defaults if isinstance(defaults, dict) else ConfigParser.load_config_file(defaults)), **given}


def pairs_of(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Key and text of each flag; positional arguments (run_id, init_id, ...) are passed over."""
    position = 0
    while position < len(arguments):
        argument = arguments[position]
        position += 1
        if argument == "--":  # what follows is for Fire itself
            return
        if not is_flag(argument):
            continue
        key, equals, text = argument.lstrip("-").partition("=")
        key = key.replace("-", "_")
        if not equals and position < len(arguments) and not is_flag(arguments[position]):
            text = arguments[position]
            position += 1
        elif not equals:
            # Fire reads a lone --nokey as key=False, whatever the key: --normalise is rmalise=False.
            key, text = (key[2:], "False") if key.startswith("no") else (key, "True")
        yield key, text


def is_flag(argument: str) -> bool:
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


def run_parameters() -> set[str]:
    """Names that ``monai.bundle run`` and the workflow it builds take for themselves."""
    from monai.bundle import ConfigWorkflow, create_workflow, run, run_workflow

    callables = (run, run_workflow, create_workflow, ConfigWorkflow.__init__)
    result = [parameter for each in callables for parameter in inspect.signature(each).parameters.values()]
    return {p.name for p in result if p.kind is not inspect.Parameter.VAR_KEYWORD and p.name != "self"}


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


def _ids(config: Any, prefix: str = "") -> list[str]:
    """Ids below a configuration, nested ones joined by ``::``, without metadata."""
    if not isinstance(config, dict | list):
        return []
    result = []
    for key, value in config.items() if isinstance(config, dict) else enumerate(config):
        if key == "_meta_":
            continue
        result += [f"{prefix}{key}", *_ids(value, f"{prefix}{key}::")]
    return result
