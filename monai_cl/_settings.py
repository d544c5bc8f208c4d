"""Values of settings as they are given on a command line, read as the settings' defaults ask for.

Fire, MONAI's command line, reads each text as Python: ``false`` stays a text, and so counts as true; a folder called
``2024`` becomes a number; ``null`` is a text, and MONAI drops ``None``. Here the default decides: where it is a flag,
every usual spelling of one is read; where it is a number, a number; where it is a text or a path, the very text.
"""

import ast
import math
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

FLAGS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_NONE = ("none", "null")
_CODE = ("$", "@", "%")  # an expression, a reference, another file: MONAI reads what they stand for
_REFERENCE = re.compile(r"@(\w+(?:(?:::|#)\w+)*)")
# settings of the bundles that may be null, and what they are otherwise
MAY_BE_NULL: Mapping[str, type] = {
    "classes": list,
    "codes": str,
    "cohort_table": str,
    "connectivity": int,
    "datalist": str,
    "dataset_dir": str,
    "dense_anchors": int,
    "finetune_clip": float,
    "group_key": str,
    "ignore_index": int,
    "labels": int,
    "leakage_of": str,
    "match_threshold": float,
    "match_weights": str,
    "min_matched": float,
    "recipe": str,
    "sections": str,
    "sequence_names": dict,
    "sequences": list,
    "simulated_sequences": list,
    "source_weights": dict,
    "spacing": float,
    "templates": str,
    "units": dict,
    "weights_key": str,
}
_TEXT_OR_NULL = ("key_map",)  # texts by default, for which null has a meaning too


def read_flag(key: str, value: Any) -> bool:
    """A flag in any usual spelling.

    Raises:
        ValueError: If it is none.

    Example:
        >>> read_flag("resume", "Off"), read_flag("resume", 1)
        (False, True)
    """
    if isinstance(value, bool):
        return value
    flag = FLAGS.get(str(value).strip().casefold())
    if flag is None:
        raise ValueError(f"{key} must be true or false (or yes, no, on, off, 1, 0), got {value!r}")
    return flag


def means_none(value: Any) -> bool:
    """Return whether a value is none or a word for it, in capitals or not; an empty text is no such word.

    Example:
        >>> [means_none(value) for value in (None, "None", "null", "", "nil", 0)]
        [True, True, True, False, False, False]
    """
    return str(value).lower() in _NONE


def settle(key: str, value: Any, default: Any, *, text: str | None, look_up: Callable[[str], Any]) -> Any:
    """A value of the kind that a setting's default is of.

    Args:
        key: Id of the setting.
        value: Value as the command line parsed it.
        default: Value in the config files; ``None`` where they hold none.
        text: Text as typed; ``None`` where the value comes from a file.
        look_up: Default of an id that a default refers to.

    Raises:
        ValueError: If it cannot be of that kind; names the allowed values.
    """
    if isinstance(value, str) and value.startswith(_CODE):
        return value
    kind = MAY_BE_NULL.get(key) if default is None else kind_of(default, look_up)
    value = _with_literals(value)
    if kind is str:
        return _as_text(value, text, may_be_null=default is None or _nested(key) or key in _TEXT_OR_NULL)
    if kind is bool:
        return [read_flag(key, part) for part in value] if isinstance(value, list) else read_flag(key, value)
    if _is_null(value):
        _check_null(key, default)
        return None
    if kind in (int, float):
        return _as_number(key, value, whole=kind is int and not _nested(key))
    if kind is dict and not isinstance(value, dict):
        raise ValueError(f"{key} must be a dictionary such as \"{{'name': 1.5}}\", got {text or value!r}")
    if kind is list and isinstance(value, str) and _all_numbers(default):
        raise ValueError(f'{key} must be a list such as "{default}", got {text or value!r}')
    return value


def kind_of(default: Any, look_up: Callable[[str], Any], *, depth: int = 9) -> type | None:
    """Kind of value that a default stands for; ``None`` if undetermined.

    A reference is followed. Of an expression its form is looked at, for it may not be evaluated yet: a comparison is
    a flag, a sum with a text is a text.
    """
    if not isinstance(default, str):
        return None if default is None else type(default)
    if not default.startswith(_CODE):
        return str
    if not depth:  # references in a circle
        return None
    names = {f"_{n}": match for n, match in enumerate(dict.fromkeys(_REFERENCE.findall(default)))}
    source = default.removeprefix("$")
    for name, reference in sorted(names.items(), key=lambda pair: -len(pair[1])):
        source = source.replace(f"@{reference}", name)
    try:
        tree = ast.parse(source, mode="eval").body
    except SyntaxError:
        return None
    return _kind_of_tree(tree, lambda name: kind_of(look_up(names[name]), look_up, depth=depth - 1), names)


def _kind_of_tree(tree: ast.expr, referred: Callable[[str], type | None], names: Mapping[str, str]) -> type | None:
    if isinstance(tree, ast.Compare) or (isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.Not)):
        return bool
    if isinstance(tree, ast.Constant):
        return None if tree.value is None else type(tree.value)
    if isinstance(tree, ast.Name):
        return referred(tree.id) if tree.id in names else None
    if isinstance(tree, ast.JoinedStr):
        return str
    if isinstance(tree, ast.BinOp):
        kinds = {_kind_of_tree(side, referred, names) for side in (tree.left, tree.right)}
        return str if str in kinds else kinds.pop() if kinds in ({int}, {float}) else None
    return None


def _as_text(value: Any, text: str | None, *, may_be_null: bool) -> Any:
    """The very text, unless it is a list or the like and no file is called so, or null where that has a meaning."""
    literal = text is not None and text.lstrip().startswith(("[", "(", "{", "'", '"'))
    typed = text is not None and (not literal or os.path.exists(text))
    if isinstance(value, list | tuple | dict | set) and not typed:
        return value
    if _is_null(value) and may_be_null:
        return None
    return text if typed else str(value)


def _as_number(key: str, value: Any, *, whole: bool) -> Any:
    if isinstance(value, list | tuple | dict):
        return value  # a number an axis, where a component takes that
    try:
        number = math.nan if isinstance(value, bool) else value if isinstance(value, int) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if math.isnan(number) or (whole and number != math.floor(number)):
        raise ValueError(f"{key} must be a {'whole ' if whole else ''}number, got {value!r}")
    return int(number) if whole else number


def _check_null(key: str, default: Any) -> None:
    known = default is None or key in MAY_BE_NULL or _nested(key)
    if not known and isinstance(default, int | float | list):
        raise ValueError(f"{key} must not be null; its default is {default}")


def _with_literals(value: Any) -> Any:
    """Bare words of YAML within a list or dictionary, or where only such a word was given, as what they mean."""
    if isinstance(value, dict):
        return {name: _with_literals(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_with_literals(item) for item in value]
    if isinstance(value, str) and value.casefold() in ("true", "false"):
        return value.casefold() == "true"
    return None if isinstance(value, str) and value.casefold() == "null" else value


def _nested(key: str) -> bool:
    return "#" in key or "::" in key


def _is_null(value: Any) -> bool:
    return means_none(value) or value == "~"


def _all_numbers(default: Any) -> bool:
    return bool(default) and all(isinstance(item, int | float) for item in default)
