"""Header of a file of safetensors, read without its tensors and without torch."""

import json
from pathlib import Path
from typing import Any

_LONGEST_HEADER = 100_000_000  # as of the format


def is_safetensors(path: Path) -> bool:
    """Return whether a file begins as safetensors: the length of a header, and the header."""
    head = first_bytes(path, 9)
    return len(head) == 9 and head[8:] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= _LONGEST_HEADER


def safetensors_notes(path: Path) -> dict[str, str]:
    """Texts that a file of safetensors holds beside its tensors; none of one that is cut short or another file."""
    if not path.is_file() or not is_safetensors(path):
        return {}
    notes = _header(path).get("__metadata__", {})
    return {str(key): str(value) for key, value in notes.items()} if isinstance(notes, dict) else {}


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors in a file of safetensors, whose values are not read; none of a file of another kind."""
    header = _header(path) if is_safetensors(path) else {}
    return {name: tuple(entry["shape"]) for name, entry in header.items() if name != "__metadata__"}


def whole_size(path: Path) -> int:
    """Bytes that a file of safetensors must have by its header; 0 where the header cannot be read."""
    ends = [entry["data_offsets"][1] for entry in _header(path).values() if "data_offsets" in entry]
    return 8 + int.from_bytes(first_bytes(path, 8), "little") + max(ends, default=0)


def _header(path: Path) -> dict[str, Any]:
    length = int.from_bytes(first_bytes(path, 8), "little")
    text = first_bytes(path, 8 + length)[8:]
    if len(text) < length:  # cut off inside the header
        return {}
    try:
        header = json.loads(text)
    except ValueError:
        return {}
    return header if isinstance(header, dict) else {}


def first_bytes(path: Path, size: int) -> bytes:
    """First bytes of a file, fewer of a shorter one."""
    with open(path, "rb") as file:
        return file.read(size)
