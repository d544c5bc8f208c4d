"""Files of weights and the contracts beside them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from monai_cl._files import atomic_write, read_json
from monai_cl.weights._finite import require_finite


def save_network(network: nn.Module, path: str | Path, *, contract: Mapping[str, Any] | None = None) -> None:
    """Write a network's plain state dict to ``path``, and beside it a ``.json`` with what its users must know.

    Raises:
        NonFiniteWeightsError: If a tensor holds NaN or infinities; nothing is written then.
    """
    path, state = Path(path), network.state_dict()
    require_finite(state, f"the network for {path}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path.with_suffix(".json")) as temporary:
        Path(temporary).write_text(json.dumps(dict(contract or {}), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    # an open file: given a path, torch.save puts the temporary name into the file, and no two were alike
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        torch.save({name: t.detach().cpu() for name, t in state.items()}, file)


def read_contract(path: str | Path) -> dict[str, Any]:
    """Contract that :func:`save_network` stored beside a file of weights; empty where there is none."""
    beside = Path(path).with_suffix(".json")
    if not beside.exists():
        return {}
    content: dict[str, Any] = read_json(beside)
    return content


def read_checkpoint(checkpoint: str | Path | Mapping[str, Any]) -> Mapping[str, Any]:
    """Content of a file of ``torch.save``, read with ``weights_only=True``; a mapping is taken as it is.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read, or holds no mapping.
    """
    if isinstance(checkpoint, Mapping):
        return checkpoint
    path = Path(checkpoint)
    if not path.is_file():
        raise FileNotFoundError(
            f"no file of weights at {path}; run the step that writes it first, or give another path"
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(_unreadable(path, error)) from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} must hold a state dict, got {type(content).__name__}")
    return content


def _unreadable(path: Path, error: Exception) -> str:
    if foreign := _foreign(path):
        return (
            f"{path} must hold only tensors and plain values, got objects of {', '.join(foreign)}, which run code when "
            "they are read. If you trust the file, take the tensors out of it once: content = torch.load(old, "
            "weights_only=False); torch.save({'state_dict': content['state_dict']}, new)"
        )
    return (
        f"{path} cannot be read as weights ({type(error).__name__}): it must be a file of torch.save that holds "
        "only tensors and plain values; is it complete?"
    )


def _foreign(path: Path) -> list[str]:
    """Names of the classes in a file that weights have no need of; none of a file that is broken."""
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # no zip archive, or cut off
        return []
