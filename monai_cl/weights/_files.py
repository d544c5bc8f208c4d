"""Files of weights and the contracts beside them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from monai_cl._files import atomic_write, write_json
from monai_cl.weights._finite import require_finite
from monai_cl.weights._origin import as_contract
from monai_cl.weights._receipt import receipt_of


def save_network(network: nn.Module, path: str | Path, *, contract: Mapping[str, Any] | None = None) -> None:
    """Write a network's plain state dict to ``path``, and beside it a ``.json`` with what its users must know.

    Origin, licence and citations of published weights that the network began from are written there too.

    Raises:
        NonFiniteWeightsError: If a tensor holds NaN or infinities; nothing is written then.
    """
    path, state = Path(path), network.state_dict()
    require_finite(state, f"the network for {path}")
    contract = with_origins(network, contract)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path.with_suffix(".json"), contract, sort_keys=True)
    # an open file: given a path, torch.save puts the temporary name into the file, and no two were alike
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        torch.save({name: t.detach().cpu() for name, t in state.items()}, file)


def with_origins(network: nn.Module, contract: Mapping[str, Any] | None) -> dict[str, Any]:
    """Contract of a network with the origins of the weights that it began from, if it began from any."""
    receipt = receipt_of(network)
    return {**(contract or {}), **({} if receipt is None else as_contract(receipt.origins))}
