"""Reading of files of weights: as data alone, with words for what is none."""

import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from monai_cl.weights._safetensors import first_bytes, is_safetensors, whole_size

# numbers of NumPy, as logs of trainings have them beside the weights; versions 1 and 2 name one function differently
_SCALAR = np.float64(0).__reduce__()[0]
_NUMBERS: list[Any] = [
    (_SCALAR, "numpy._core.multiarray.scalar"),
    (_SCALAR, "numpy.core.multiarray.scalar"),
    np.dtype,
    *{type(np.dtype(code)) for code in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")},
]
_ENDINGS = (".pt", ".pth", ".ckpt", ".bin", ".tar", ".safetensors")
_LISTED = 4
_LFS = b"version https://git-lfs"
_HEAD = 512


def read_checkpoint(checkpoint: str | Path | Mapping[str, Any]) -> Mapping[str, Any]:
    """Content of a file of ``torch.save`` (``weights_only=True``) or of safetensors; a mapping is taken as it is.

    Raises:
        FileNotFoundError: If no such file exists.
        ValueError: If it cannot be read, or holds no mapping.
    """
    if isinstance(checkpoint, Mapping):
        return checkpoint
    path = Path(checkpoint)
    require_file(path)
    _refuse_text(path)
    if is_safetensors(path):
        return _safetensors(path)
    try:
        with torch.serialization.safe_globals(_NUMBERS), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected pickle protocol")  # what it cannot read it refuses
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(_unreadable(path, error)) from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} must hold a state dict, got {type(content).__name__}")
    return content


def require_file(file: str | Path) -> None:
    """Refuse a path without a file, and a folder, as hubs of weights download one.

    Raises:
        FileNotFoundError: If no such file exists.
    """
    path = Path(file)
    if path.is_dir():
        inside = sorted(p.name for p in path.iterdir() if p.suffix in _ENDINGS)
        raise FileNotFoundError(
            f"weights must be a file, got the folder {path}; it holds {', '.join(inside[:_LISTED]) or 'none'}"
        )
    if not path.is_file():
        raise FileNotFoundError(
            f"no file of weights at {path}; run the step that writes it first, or give another path"
        )


def _safetensors(path: Path) -> Mapping[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if (wanted := whole_size(path)) > (size := path.stat().st_size):
        raise ValueError(f"{path} is cut short: it has {size} of {wanted} bytes; download or copy it again")
    try:
        content: dict[str, Any] = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} cannot be read as safetensors: {error}; is it complete?") from error
    return content


def _refuse_text(path: Path) -> None:
    """Name what is often downloaded in place of weights: nothing, a pointer, a page that asks for a login."""
    head = first_bytes(path, _HEAD)
    if not head:
        raise ValueError(f"{path} is empty; download or copy it again")
    if head.startswith(_LFS):
        raise ValueError(
            f"{path} is a pointer of Git LFS, without weights; fetch the file itself: `git lfs pull` in its repository"
        )
    if head.isascii() and head.decode("ascii").replace("\n", "").replace("\r", "").replace("\t", "").isprintable():
        page = "a web page" if b"<html" in head.lower() or b"<!doctype" in head.lower() else "text"
        raise ValueError(
            f"{path} is {page} and no file of weights: servers send such where a file needs a login or its terms "
            "accepted (gated weights). Download it while logged in, and check its size"
        )


def _unreadable(path: Path, error: Exception) -> str:
    if foreign := _foreign(path) or _refused(error):
        return (
            f"{path} must hold only tensors and plain values, got objects of {', '.join(foreign)}, which run code when "
            "they are read. If you trust the file, take the tensors out of it once: content = torch.load(old, "
            "weights_only=False); torch.save({'state_dict': content['state_dict']}, new)"
        )
    if _is_program(path):
        return (
            f"{path} is a TorchScript program, which runs code when it is read. If you trust the file, take the "
            "tensors out of it once: torch.save(torch.jit.load(old).state_dict(), new)"
        )
    return (
        f"{path} cannot be read as weights ({type(error).__name__}): it must be a file of torch.save that holds "
        "only tensors and plain values, or of safetensors; is it complete?"
    )


def _refused(error: Exception) -> list[str]:
    """Name of the class at which the reader stopped, of files older than zip archives."""
    return re.findall(r"GLOBAL ([\w.]+) was not an allowed global", str(error))[:1]


def _is_program(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


def _foreign(path: Path) -> list[str]:
    """Names of the classes in a file that weights have no need of; none of a file that is broken."""
    try:
        with torch.serialization.safe_globals(_NUMBERS):
            return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # no zip archive, or cut off
        return []
