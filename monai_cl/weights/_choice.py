"""Choice among the networks in a file of weights."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

# containers that frameworks put a state dict into, those of a network as it was trained before averages of it
_CONTAINERS = (
    "state_dict", "model_state_dict", "network_weights", "network", "model", "net", "module", "params", "student",
    "teacher", "ema_state_dict", "state_dict_ema", "model_ema", "ema_model", "module_ema", "ema", "params_ema",
    "shadow",
)  # fmt: skip
# wrappers that may lie around any part of a network: compiled, sharded, with checkpoints of activations
_AROUND = re.compile(r"(?<![^.])(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)\.")
# networks that learn in checkpoints of our runs, today and of version 0.1.0
_NETWORKS = ("network", "student.network", "position.student.network")
_AVERAGE = re.compile(r"(^|_)(ema|swa|averaged?|teacher|shadow)(_|$)")
_DEPTH = 3  # parts of a name that may name a network


@dataclass(frozen=True)
class Chosen:
    """Tensors of one network of a file.

    Attributes:
        tensors: By name.
        key: The entry that holds them, its parts joined by dots; empty where they lie in the file itself.
        beside: Entries with averages or teachers of the network, which ``weights_key`` takes instead.
    """

    tensors: dict[str, Tensor]
    key: str
    beside: tuple[str, ...]


def choose(content: Mapping[str, Any], key: str | None = None) -> Chosen:
    """Take the tensors of a network out of the containers around them.

    Args:
        content: Content of a file.
        key: The entry, or the beginning of the names, of the network that is wanted, such as ``ema_state_dict``. None:
            the network as it was trained (the student), and an average of it only where nothing else exists.

    Raises:
        ValueError: If no tensors are given, or none under that key.
    """
    if key is None:
        taken, state = _inside(content)
        if not state:
            raise ValueError(f"the checkpoint holds no tensors; its entries are {sorted(map(str, content))[:10]}")
    else:
        taken, state = _named(content, key)
    return Chosen(_unwrapped(state), taken, _averages(content, taken))


def _unwrapped(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names without those of wrappers; as they are where two would become one."""
    renamed = {_AROUND.sub("", name): tensor for name, tensor in state.items()}
    return renamed if len(renamed) == len(state) else state


def _inside(content: Mapping[str, Any], above: str = "") -> tuple[str, dict[str, Tensor]]:
    method = content.get("method")
    if isinstance(method, Mapping):  # a run's own checkpoint: the student's network is wanted
        for name in _NETWORKS:
            if inside := {k: v for k, v in method.items() if k.startswith(f"{name}.")}:
                return f"method.{name}", inside
        return _inside(method, f"{above}method.")
    # containers first: a tensor beside one is the best metric or a learning rate, no weight
    for name in _CONTAINERS:
        if isinstance(content.get(name), Mapping):
            key, inside = _inside(content[name], f"{above}{name}.")
            if inside:
                return key, inside
    return above.rstrip("."), {str(k): v for k, v in content.items() if isinstance(v, Tensor)}


def _named(content: Mapping[str, Any], key: str) -> tuple[str, dict[str, Tensor]]:
    flat = dict(_flat(content))
    for start in ("", "method.", *(f"{name}." for name in _CONTAINERS)):
        above = f"{start}{key}."
        if state := {name.removeprefix(above): t for name, t in flat.items() if name.startswith(above)}:
            return f"{start}{key}", state
    known = list(dict.fromkeys([_inside(content)[0], *_averages(content, "")]))
    listed = ", ".join(filter(None, known)) or "none: its tensors lie in no entry"
    raise ValueError(f"weights_key must name an entry of the checkpoint with tensors, got {key!r}; it has {listed}")


def _averages(content: Mapping[str, Any], taken: str) -> tuple[str, ...]:
    """Entries, or beginnings of names, that hold an average; not those in use or nested in them."""
    result: dict[str, None] = {}
    for name, tensor in _flat(content):
        parts = name.split(".")[:-1]
        for depth, part in enumerate(parts[:_DEPTH], start=1):
            if tensor.ndim and _AVERAGE.search(part):
                result.setdefault(".".join(parts[:depth]))
                break
    return tuple(key for key in result if not f"{taken}.".startswith(f"{key}."))


def _flat(content: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Tensor]]:
    for key, value in content.items():
        if isinstance(value, Tensor):
            yield f"{above}{key}", value
        elif isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.")
