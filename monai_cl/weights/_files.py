"""Files of weights and the contracts beside them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from monai_cl._files import atomic_write, read_json
from monai_cl.weights._finite import require_finite
from monai_cl.weights._reading import safetensors_notes

NOTE = "monai_cl"  # under which a file of safetensors holds its contract


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
    """Contract that :func:`save_network` stored beside a file of weights, or one of safetensors holds inside.

    Empty where there is none.
    """
    beside = Path(path).with_suffix(".json")
    if beside.exists():
        content: dict[str, Any] = read_json(beside)
        return content
    text = safetensors_notes(Path(path)).get(NOTE)
    inside = {} if text is None else json.loads(text)
    return inside.get("contract", {}) if isinstance(inside, dict) else {}
