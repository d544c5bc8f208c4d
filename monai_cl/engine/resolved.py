"""Settings of a run as they were resolved: read off the objects that train, whichever config or override made them."""

import functools
import hashlib
import inspect
import json
import os
from collections.abc import Mapping
from enum import Enum
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine
from monai.transforms import Transform
from torch import Tensor, nn
from torch.utils.data import Dataset

from monai_cl.engine.distributed import unwrap
from monai_cl.networks import MomentumTeacher

CLASS = "class"
_PARAMETERS = "parameters"
_CODE, _STRUCTURE = "code", "structure"  # read off libraries as they are: another version of them may print otherwise
_SHORT = 64  # values; longer arrays and lists are given by their digest
_DEPTH = 40  # of objects within objects
# state of MONAI's random transforms, of its readers and of modules, which does not describe their settings
_STATE = frozenset({"R", "_do_transform", "device", "filenames", "training", *vars(nn.Module())})
# of datasets: the data have a digest of their own, and shares of processes do not change what a run is
_SHARED_OUT = frozenset({"rank", "world_size", "max_faults"})
_THIRD_PARTY = ("torch.", "monai.networks")


def resolved_settings(engine: Engine) -> dict[str, Any]:
    """Return what a trainer trains and on which views, as plain values.

    Attributes of the method (or of the network and its loss), of the optimiser and of every transform that a volume
    passes are read off the objects, so no override can change them without changing this. A network of MONAI or torch
    is given by its class, its number of parameters and a digest of its structure. Paths, devices, numbers of processes
    and the length of the run are left out: they set only place and length.

    Args:
        engine: A trainer or evaluator, before its first step.

    Returns:
        Nested dictionaries, lists and plain values, as JSON and ``torch.load(weights_only=True)`` can carry them.
    """
    result: dict[str, Any] = {}
    if (method := getattr(engine, "method", None)) is not None:
        result["method"] = describe(unwrap(method))
    elif (network := getattr(engine, "network", None)) is not None:
        result["network"] = describe(unwrap(network))
    for name in ("loss_function", "prepare_batch"):
        if getattr(engine, name, None) is not None:
            result[name] = describe(getattr(engine, name))
    if (optimizer := getattr(engine, "optimizer", None)) is not None:
        groups = [{k: v for k, v in group.items() if k == "weight_decay"} for group in optimizer.param_groups]
        result["optimizer"] = {CLASS: _name(type(optimizer)), **describe(optimizer.defaults), "groups": groups}
    if hasattr(engine, "max_grad_norm"):
        result["max_grad_norm"] = engine.max_grad_norm
    dataset = getattr(getattr(engine, "data_loader", None), "dataset", None)
    if dataset is not None:
        result["views"] = _dataset(dataset)
    return result


def differences(then: Mapping[str, Any], now: Mapping[str, Any], *, alike: bool = True) -> list[str]:
    """Name each setting that differs, with both values; of another class alone, whose parameters and form follow.

    Args:
        then: Settings from :func:`resolved_settings`.
        now: Settings to compare with them.
        alike: Whether both come from the same versions of the packages. If not, settings that one side lacks are
            passed over, since another version may know more of them.

    Example:
        >>> differences({"loss": {"link": "ce"}}, {"loss": {"link": "relu"}})
        ["loss.link: 'ce' -> 'relu'"]
    """
    before, after = dict(_flat(then)), dict(_flat(now))
    names = before.keys() | after.keys()
    if not alike:
        names = {name for name in before.keys() & after.keys() if name.rpartition(".")[2] not in (_CODE, _STRUCTURE)}
    changed = {name for name in names if name not in before or name not in after or before[name] != after[name]}
    replaced = {name.removesuffix(CLASS) for name in changed if f".{name}".endswith(f".{CLASS}")}
    changed -= {f"{place}{what}" for place in replaced for what in (_PARAMETERS, _STRUCTURE)}
    return [f"{name}: {_shown(before, name)} -> {_shown(after, name)}" for name in sorted(changed)]


def describe(value: Any) -> Any:
    """Return an object as plain values: its class and its attributes, and so on inwards.

    Args:
        value: Any object; parameters, random states, paths and devices in it are passed over.

    Example:
        >>> describe(nn.Dropout(0.25))
        {'class': 'torch.nn.modules.dropout.Dropout', 'parameters': 0, 'structure': 'Dropout(p=0.25, inplace=False)'}
    """
    return _Describer()(value)


class _Describer:
    def __init__(self) -> None:
        self._open: list[int] = []  # objects being described, for those that hold themselves

    def __call__(self, value: Any) -> Any:
        if isinstance(value, Enum):
            return self(value.value)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return str(value)  # a subclass of it could not be loaded again
        if isinstance(value, (int, float, np.generic)):
            return _number(value)
        if isinstance(value, (Tensor, np.ndarray)):
            return self._array(value)
        if isinstance(value, (type, functools.partial)) or (callable(value) and hasattr(value, "__code__")):
            return self._function(value)
        if id(value) in self._open or len(self._open) >= _DEPTH:
            return {CLASS: _name(type(value))}
        self._open.append(id(value))
        try:
            return self._nested(value)
        finally:
            self._open.pop()

    def _nested(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(key): self(one) for key, one in value.items() if _defines_the_run(one)}
        if isinstance(value, tuple) and hasattr(value, "_asdict"):
            return self(value._asdict())
        if isinstance(value, (set, frozenset)):
            return sorted(map(str, value))
        if isinstance(value, (list, tuple, range)):
            return _long_list([self(one) for one in value])
        if isinstance(value, nn.Module):
            return self._module(value)
        attributes = vars(value) if hasattr(value, "__dict__") else {}
        if isinstance(value, Transform):
            attributes = {name: one for name, one in attributes.items() if _is_given(type(value), name, one)}
        return {CLASS: _name(type(value)), **self._attributes(attributes)}

    def _attributes(self, attributes: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name.lstrip("_"): self(one)
            for name, one in attributes.items()
            if name not in _STATE and _defines_the_run(one)
        }

    def _module(self, module: nn.Module) -> dict[str, Any]:
        kind = _name(type(module))
        if isinstance(module, MomentumTeacher):  # a copy of what is described already
            return {CLASS: kind}
        if isinstance(module, nn.ModuleDict):
            return {name: self(part) for name, part in module.items()}
        if kind.startswith(_THIRD_PARTY):
            return {CLASS: kind, _PARAMETERS: sum(p.numel() for p in module.parameters()), _STRUCTURE: _form(module)}
        return {CLASS: kind, **self._attributes(vars(module)), **self._attributes(dict(module.named_children()))}

    def _array(self, value: Tensor | np.ndarray) -> Any:
        array = value.detach().cpu().float().numpy() if isinstance(value, Tensor) else value
        if array.size <= _SHORT and array.dtype != object:
            return self(np.asarray(array).tolist())
        digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]
        return f"{array.dtype} {array.shape} {digest}"

    def _function(self, value: Any) -> Any:
        if isinstance(value, functools.partial):
            return {CLASS: self(value.func), "args": self(value.args), **self(value.keywords)}
        result: dict[str, Any] = {}
        if "<lambda>" in _name(value):
            result[_CODE] = _digest([value.__code__.co_code.hex(), str(value.__code__.co_consts)])
        if getattr(value, "__closure__", None):  # a function made by another one holds that one's settings
            cells = [cell.cell_contents for cell in value.__closure__]
            result["closure"] = self([one for one in cells if _defines_the_run(one)])
        return {CLASS: _name(value), **result} if result else _name(value)


def _dataset(dataset: Any) -> dict[str, Any]:
    """Settings and transforms of a dataset, and of the one that it draws from; not its volumes."""
    plain = {
        name: describe(value)
        for name, value in vars(dataset).items()
        if name not in _SHARED_OUT and not name.startswith("_") and isinstance(value, (bool, int, float, str, tuple))
    }
    inner = {name: _dataset(value) for name, value in vars(dataset).items() if isinstance(value, Dataset)}
    return {CLASS: _name(type(dataset)), **plain, "transform": describe(getattr(dataset, "transform", None)), **inner}


def _is_given(kind: type, name: str, value: Any) -> bool:
    """False for what a random transform keeps of its last draw: it is no argument, and private outside of MONAI."""
    if hasattr(value, "__dict__") and not isinstance(value, (Tensor, np.ndarray)):
        return True
    if name.lstrip("_") in _arguments(kind):
        return True
    return not (name.startswith("_") or kind.__module__.startswith("monai."))


@functools.cache
def _arguments(kind: type) -> frozenset[str]:
    """Names of the arguments of a class and of those it is made of."""
    makers = [vars(base)["__init__"] for base in kind.__mro__ if "__init__" in vars(base) and base is not object]
    return frozenset(name for maker in makers for name in inspect.signature(maker).parameters)


def _defines_the_run(value: Any) -> bool:
    """Return whether a value defines the run, unlike paths, devices, generators and locks."""
    if isinstance(value, (os.PathLike, torch.device, torch.Generator, np.random.RandomState, np.random.Generator)):
        return False
    if isinstance(value, nn.Parameter):
        return False
    return type(value).__module__ not in ("_thread", "threading", "weakref", "_io", "logging")


def _form(module: nn.Module) -> str:
    """Structure of a network of third parties: as it prints itself, or the digest of that and of its attributes."""
    printed = repr(module)
    attributes = {
        f"{name}.{key}": str(value)
        for name, part in module.named_modules()
        for key, value in vars(part).items()
        if key not in _STATE and isinstance(value, (bool, int, float, str, tuple))
    }
    if len(printed) <= _SHORT and not any(module.children()):
        return printed
    return _digest([printed, attributes])


def _long_list(values: list[Any]) -> Any:
    if len(values) <= _SHORT:
        return values
    return f"{len(values)} values {_digest(values)}"


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _number(value: Any) -> Any:
    plain = value.item() if isinstance(value, np.generic) else int(value) if isinstance(value, int) else float(value)
    return plain if plain == plain else "nan"  # NaN is unlike itself


def _name(value: Any) -> str:
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__qualname__)}"


def _flat(value: Any, name: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, Mapping):
        pairs = [(str(key), one) for key, one in value.items()]
    elif isinstance(value, (list, tuple)) and any(isinstance(one, (Mapping, list, tuple)) for one in value):
        pairs = [(str(number), one) for number, one in enumerate(value)]
    else:
        return [(name, list(value) if isinstance(value, tuple) else value)]
    return [entry for key, one in pairs for entry in _flat(one, f"{name}.{key}" if name else key)]


def _shown(values: Mapping[str, Any], name: str) -> str:
    if name not in values:
        return "absent"
    text = repr(values[name])
    return text if len(text) <= 80 else f"{text[:77]}..."
