"""Writing files so that a reader sees the old content or the new one, never a part; reading JSON of others."""

import functools
import glob
import json
import os
import re
import secrets
import socket
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_DEEPEST = 64
_SECTIONS = ("training", "validation", "test", "unlabelled", "labels")

_OURS = re.compile(r"\.(?P<machine>[0-9a-f]{4})(?P<process>[0-9a-f]{6})[0-9a-f]{6}\.")
_looked_through: set[tuple[int, Path]] = set()  # process and folder


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside the target; on success it replaces the target, on failure it is removed.

    A process that is killed in between leaves its file. Its name holds the process and the machine, and the next
    one that writes in the folder removes those of processes that are no more.

    Args:
        path: Target file; its folder must exist.

    Yields:
        Path to write to: a hidden name in the folder of the target that ends in the target's name.

    Raises:
        FileNotFoundError: If nothing was written to the temporary path.
    """
    target = Path(path)
    _remove_of_the_dead(target.parent)
    # Not tempfile: its files are readable by their owner alone, and a data folder is shared.
    token = f"{_machine()}{os.getpid() % 16**6:06x}{secrets.token_hex(3)}"
    temporary = target.with_name(f".{token}.{target.name}")
    try:
        yield temporary
        with open(temporary, "rb+") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, target)
    except OSError as error:
        if error.filename is None and error.errno is not None:  # of a write that failed, as on a full disk
            error.filename = os.fspath(target)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text in UTF-8 by :func:`atomic_write`."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, content: Any, *, indent: int = 1, **options: Any) -> None:
    """Write a JSON file by :func:`atomic_write`.

    Args:
        path: The file.
        content: Its content.
        indent: Spaces of a level.
        **options: Further options of :func:`json.dumps`.
    """
    write_text(path, json.dumps(content, indent=indent, **options) + "\n")


def remove_leftovers(path: str | Path) -> None:
    """Remove what processes that were killed while they wrote to ``path`` have left beside it.

    Args:
        path: Target of :func:`atomic_write`, which no other process may be writing now.
    """
    target = Path(path)
    for leftover in target.parent.glob(f".{'[0-9a-f]' * 16}.{glob.escape(target.name)}"):
        leftover.unlink(missing_ok=True)


def _remove_of_the_dead(folder: Path) -> None:
    """Remove what killed processes of this machine have left in a folder; each process looks once."""
    place = (os.getpid(), folder.absolute())
    if place in _looked_through or not folder.is_dir():
        return
    _looked_through.add(place)
    for leftover in folder.glob(f".{'[0-9a-f]' * 16}.*"):
        named = _OURS.match(leftover.name)
        if named and named["machine"] == _machine() and not _is_alive(int(named["process"], 16)):
            leftover.unlink(missing_ok=True)


@functools.cache
def _machine() -> str:
    """Four digits for this machine and, in a container, for what it sees of the processes."""
    try:
        processes = os.stat("/proc/self/ns/pid").st_ino
    except OSError:  # not Linux
        processes = 0
    return f"{zlib.crc32(f'{socket.gethostname()} {processes}'.encode()) & 0xFFFF:04x}"


def _is_alive(process: int) -> bool:
    import psutil

    return bool(psutil.pid_exists(process))


def read_json(path: str | Path) -> Any:
    """The content of a JSON file that somebody else may have written, in UTF-8 or, as by PowerShell, in UTF-16.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is no regular file, no JSON, nested more than 64 deep, or has two lists or objects under one
            key, of which JSON would keep the last without a word.
    """
    source = Path(path)
    if source.exists() and not source.is_file():  # opening a pipe would wait for ever
        raise ValueError("not a regular file")
    raw = source.read_bytes()
    try:
        content = json.loads(raw.decode(json.detect_encoding(raw)), object_pairs_hook=_without_loss)
    except RecursionError:
        raise ValueError(f"nested more than {_DEEPEST} deep") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"its text must be UTF-8 or UTF-16, byte {error.start} is neither") from None
    level, depth = [content], 0
    while level:
        level = [inner for one in level if isinstance(one, (dict, list)) for inner in _inside(one)]
        depth += 1
        if depth > _DEEPEST:
            raise ValueError(f"nested more than {_DEEPEST} deep")
    return content


def _without_loss(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, unless one of two lists or objects under one key would be lost."""
    result = dict(pairs)
    lost = [key for key, value in pairs if isinstance(value, (list, dict)) and value != result[key]]
    if lost:
        name = repr(lost[0]) if lost[0] in _SECTIONS else "a key"  # others may be names of persons
        raise ValueError(f"{name} comes twice with different content, merge both")
    return result


def read_yaml(path: str | Path, what: str) -> Any:
    """The content of a YAML file that a user has written.

    Args:
        path: The file.
        what: Its kind, for the message.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is no regular file or no YAML, or a key of it comes twice.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """Loader that refuses a key that comes twice, of which YAML takes the last without a word."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            scalars = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            known: set[str] = set()
            for key in (key for key in scalars if key.tag != "tag:yaml.org,2002:merge"):
                if key.value in known:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"key {key.value!r} comes twice, keep one of them", key.start_mark
                    )
                known.add(key.value)
            return super().construct_mapping(node, deep)

    source = Path(path)
    if source.exists() and not source.is_file():  # opening a pipe would wait for ever
        raise ValueError(f"{what} must be a file, {source} is none")
    try:
        return yaml.load(source.read_text(encoding="utf-8"), Loader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{what} must be valid YAML, {source} is not: {' '.join(str(error).split())}") from error


def _inside(one: dict[str, Any] | list[Any]) -> list[Any]:
    return list(one.values()) if isinstance(one, dict) else one


def printable(text: str) -> str:
    r"""The text with characters that no encoding has, as of file names that are not UTF-8, written as ``\udc..``."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
