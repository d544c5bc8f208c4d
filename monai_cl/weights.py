"""Handing weights over: from pretraining to fine-tuning, with a receipt of what arrived."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from monai_cl._files import atomic_write

logger = logging.getLogger(__name__)
_receipts: WeakKeyDictionary[nn.Module, "Receipt"] = WeakKeyDictionary()

# containers that frameworks put a state dict into, and prefixes that wrappers put before its keys
_CONTAINERS = ("state_dict", "model_state_dict", "network", "model", "net", "student", "teacher")
_PREFIXES = ("module.", "_orig_mod.", "student.network.", "student.", "network.", "backbone.", "model.", "net.")


class WeightsMismatchError(ValueError):
    """Too little of a network would be filled by a checkpoint.

    Attributes:
        receipt: What would have been loaded.
    """

    def __init__(self, message: str, receipt: "Receipt") -> None:
        super().__init__(message)
        self.receipt = receipt


@dataclass(frozen=True)
class Receipt:
    """What a checkpoint gave to a network.

    Attributes:
        matched: Names of the network's tensors that were loaded.
        missing: Names of the network's tensors that the checkpoint lacks; they keep their values.
        unexpected: Names in the checkpoint that the network lacks.
        wrong_shape: Name, the network's shape, the checkpoint's shape; these keep their values too.
        matched_parameters: Number of values loaded.
        total_parameters: Number of values in the network.
        touched: Names of the parameters that pretraining changed, where the checkpoint says so.
    """

    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    wrong_shape: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    matched_parameters: int
    total_parameters: int
    touched: tuple[str, ...] = ()

    @property
    def share(self) -> float:
        """Share of the network's values that were loaded."""
        return self.matched_parameters / self.total_parameters if self.total_parameters else 0.0

    def __str__(self) -> str:
        total = len(self.matched) + len(self.missing) + len(self.wrong_shape)
        rows = [
            ("matched", f"{len(self.matched)} of {total} tensors, {100 * self.share:.1f} % of parameters"),
            ("missing", _some(self.missing)),
            ("unexpected", _some(self.unexpected)),
            ("wrong shape", _some([f"{n} {list(own)} <- {list(got)}" for n, own, got in self.wrong_shape])),
        ]
        if self.touched:
            carried = sum(name in set(self.touched) for name in self.matched)
            rows.append(
                ("pretrained", f"{carried} of the {len(self.matched)} matched tensors; the rest is as initialised")
            )
        return "\n".join(f"{name:<12} {text}" for name, text in rows)


def transfer(network: nn.Module, checkpoint: str | Path | Mapping[str, Any], *, min_matched: float = 0.9) -> Receipt:
    """Load what fits of a checkpoint into ``network`` and say what did.

    Containers (``{"state_dict": ...}``) are opened and prefixes such as ``module.`` removed; no other name is
    guessed. The network is changed only if enough matched.

    Args:
        network: The network to fill, in place.
        checkpoint: A file written by ``torch.save`` (read with ``weights_only=True``) or a state dict.
        min_matched: Least share of the network's parameters that must match, in [0, 1].

    Returns:
        The receipt; print it.

    Raises:
        WeightsMismatchError: If less than ``min_matched`` matched; the receipt is in its ``receipt``.
        FileNotFoundError: If there is no such file.
        ValueError: If the file cannot be read or holds no tensors.

    Example:
        >>> receipt = transfer(nn.Linear(2, 1), {"module.weight": torch.ones(1, 2), "module.bias": torch.ones(1)})
        >>> receipt.share
        1.0
    """
    if not 0 <= min_matched <= 1:
        raise ValueError(f"min_matched must be between 0 and 1, got {min_matched!r}")
    own = network.state_dict()
    state = _strip(_tensors(_load(checkpoint)), set(own))
    receipt = _compare(network, own, state, touched=_touched(checkpoint))
    if receipt.share < min_matched:
        raise WeightsMismatchError(
            f"at least {100 * min_matched:.0f} % of the parameters of {type(network).__name__} must match, got "
            f"{100 * receipt.share:.1f} %; is this the checkpoint of another network or configuration?\n{receipt}",
            receipt,
        )
    own.update({name: state[name] for name in receipt.matched})
    network.load_state_dict(own)
    return receipt


def start_from(network: nn.Module, pretrained: str | Path | None, *, min_matched: float = 0.9) -> Receipt | None:
    """Begin fine-tuning from a file of weights and log the receipt; ``None`` or ``"none"`` begins from scratch.

    Raises:
        WeightsMismatchError: As :func:`transfer`.
    """
    if pretrained is None or str(pretrained).lower() in ("none", "null", ""):
        logger.info("from scratch: no pretrained weights were asked for")
        return None
    receipt = transfer(network, pretrained, min_matched=min_matched)
    _receipts[network] = receipt
    logger.info("weights from %s\n%s", pretrained, receipt)
    return receipt


def receipt_of(network: nn.Module) -> Receipt | None:
    """The receipt of :func:`start_from` for this network; ``None`` if it begins from scratch."""
    return _receipts.get(network)


def save_network(network: nn.Module, path: str | Path, *, contract: Mapping[str, Any] | None = None) -> None:
    """Write a network's plain state dict to ``path``, and beside it a ``.json`` with what its users must know."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path.with_suffix(".json")) as temporary:
        Path(temporary).write_text(json.dumps(dict(contract or {}), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    # an open file: given a path, torch.save puts the temporary name into the file, and no two were alike
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        torch.save({name: t.detach().cpu() for name, t in network.state_dict().items()}, file)


def load_network(network: nn.Module, path: str | Path) -> nn.Module:
    """Fill ``network`` completely from a file of :func:`save_network` and return it.

    Raises:
        WeightsMismatchError: If any tensor is missing or has another shape; names the settings that the file's
            contract records.
        FileNotFoundError: If there is no such file.
    """
    contract = read_contract(path)
    try:
        receipt = transfer(network, path, min_matched=1.0)
    except WeightsMismatchError as error:
        settings = ", ".join(f"{k}={v}" for k, v in contract.items() if k not in ("touched", "steps"))
        hint = f"\nThe file was written with {settings}; pass the same settings and overlays" if settings else ""
        raise WeightsMismatchError(f"{path} does not fill the network: {error}{hint}", error.receipt) from error
    if receipt.missing or receipt.wrong_shape:
        raise WeightsMismatchError(f"{path} does not fill the network:\n{receipt}", receipt)
    return network


def read_contract(path: str | Path) -> dict[str, Any]:
    """What :func:`save_network` stored beside a file of weights; empty where there is nothing."""
    beside = Path(path).with_suffix(".json")
    if not beside.exists():
        return {}
    content: dict[str, Any] = json.loads(beside.read_text(encoding="utf-8"))
    return content


def _touched(checkpoint: str | Path | Mapping[str, Any]) -> tuple[str, ...]:
    if isinstance(checkpoint, Mapping):
        return ()
    return tuple(read_contract(checkpoint).get("touched", ()))


def _load(checkpoint: str | Path | Mapping[str, Any]) -> Mapping[str, Any]:
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
        raise ValueError(
            f"{path} cannot be read as weights ({type(error).__name__}): it must be a file of torch.save that holds "
            "only tensors and plain values; is it complete?"
        ) from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} must hold a state dict, got {type(content).__name__}")
    return content


def _tensors(content: Mapping[str, Any]) -> dict[str, Tensor]:
    state = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
    if state:
        return state
    if isinstance(content.get("method"), Mapping):  # a run's own checkpoint: the student's network is what is wanted
        inside = {k: v for k, v in content["method"].items() if k.startswith("student.network.")}
        return inside or _tensors(content["method"])
    for name in _CONTAINERS:
        if isinstance(content.get(name), Mapping):
            return _tensors(content[name])
    raise ValueError(f"the checkpoint holds no tensors; its entries are {sorted(map(str, content))[:10]}")


def _strip(state: dict[str, Tensor], wanted: set[str]) -> dict[str, Tensor]:
    # wrappers nest (a compiled module in a parallel one), so up to three prefixes in any order; ties keep the fewest
    best, candidates = state, [state]
    for _ in range(3):
        stripped = [(old, _without(old, prefix)) for old in candidates for prefix in _PREFIXES]
        candidates = [new for old, new in stripped if new.keys() != old.keys()]
        best = max([best, *candidates], key=lambda option: len(wanted & option.keys()))
    return best


def _without(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items()}


def _compare(
    network: nn.Module, own: Mapping[str, Tensor], state: Mapping[str, Tensor], *, touched: tuple[str, ...]
) -> Receipt:
    shared = [name for name in own if name in state]
    matched = [name for name in shared if own[name].shape == state[name].shape]
    parameters = {name: p.numel() for name, p in network.named_parameters()}
    return Receipt(
        matched=tuple(matched),
        missing=tuple(name for name in own if name not in state),
        unexpected=tuple(name for name in state if name not in own),
        wrong_shape=tuple(
            (name, tuple(own[name].shape), tuple(state[name].shape)) for name in shared if name not in set(matched)
        ),
        matched_parameters=sum(parameters.get(name, 0) for name in matched),
        total_parameters=sum(parameters.values()),
        touched=touched,
    )


def _some(names: Any, most: int = 4) -> str:
    names = list(names)
    if not names:
        return "none"
    more = f", and {len(names) - most} more" if len(names) > most else ""
    return f"{len(names)}: " + ", ".join(names[:most]) + more
