"""Key maps: how published checkpoints name the tensors of a network that can be fine-tuned here."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from monai_cl.weights._preparation import Preparation

Rules = tuple[tuple[str, str | None], ...]
WRAPPERS = re.compile(r"^(?:module\.)+")


@dataclass(frozen=True)
class KeyMap:
    """Names in a published checkpoint -> names in a network.

    Attributes:
        name: Its name in ``key_map``.
        source: Whose checkpoints these are.
        network: MONAI configuration of the network they fit, without channels.
        marks: Beginnings of names by which such a network is known, each of which it has.
        rules: Patterns and what replaces them, one after the other; a tensor is left out where that is ``None``. Or a
            function that makes them from the names in the file.
        encoder: Beginnings of the network's names that make its encoder.
        parts: Parts that the checkpoint must fill.
        pretrained: Beginnings of the network's names that pretraining has trained.
        trained: The same in words.
        names: Patterns of the names in the file, of which each name must be one.
        needs: Patterns that must each match a name.
        entries: Entries of the file of which one holds the tensors; any where empty.
        wrapped: True where all names in the file begin with ``module.``.
        beside: Entries that lie beside it.
        shapes: Sizes of the first axes of tensors, under the network's names, that distinguish this network from
            others with the same names.
        licence: Licence of the weights.
        free: False where the licence forbids uses that the common open ones allow.
        citation: Papers to cite.
        preparation: Preparation of the images it was pretrained with; ``None`` where it is not stated or varies.
        remedy: Advice where the network does not fit.
        channels: Names of the arguments for input and output channels.
        recipe: Recipe that prepares images so, with
        recipe_options: the values given to it; empty if none exists.
    """

    name: str
    source: str
    network: Mapping[str, Any]
    marks: tuple[str, ...]
    rules: Rules | Callable[[Iterable[str]], Rules]
    encoder: tuple[str, ...]
    pretrained: tuple[str, ...]
    trained: str
    names: tuple[str, ...]
    needs: tuple[str, ...]
    licence: str
    citation: tuple[str, ...]
    parts: tuple[str, ...] = ()
    entries: tuple[str, ...] = ()
    wrapped: bool = False
    beside: tuple[str, ...] = ()
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    free: bool = True
    preparation: Preparation | None = None
    remedy: str = ""
    channels: tuple[str, str] = ("in_channels", "out_channels")
    recipe: str = ""
    recipe_options: Mapping[str, Any] = field(default_factory=dict)

    def fits(self, network: Collection[str]) -> bool:
        """Return whether the key map leads to a network with tensors of these names."""
        return all(any(name.startswith(mark) for name in network) for mark in self.marks)

    def apply(self, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
        """The state under the network's names, and the names that are left out.

        Raises:
            ValueError: If two tensors would receive the same name.
        """
        rules = self.rules(_bare(state)) if callable(self.rules) else self.rules
        renamed: dict[str, Tensor] = {}
        dropped = []
        for name, tensor in state.items():
            new = _rename(WRAPPERS.sub("", name), rules)
            if new is None:
                dropped.append(name)
            elif new in renamed:
                raise ValueError(
                    f"key map {self.name!r} gives two tensors the name {new!r}; is this a checkpoint of it?"
                )
            else:
                renamed[new] = tensor
        return renamed, tuple(dropped)

    def covered(self, network: Iterable[str], state: Iterable[str]) -> list[str]:
        """Names of the network's encoder tensors to fill: of the required parts and of those that the state has."""
        present = {part for part in self.encoder if any(name.startswith(part) for name in state)}
        return [name for name in network if name.startswith(tuple({*(self.parts or self.encoder), *present}))]

    def homeless(self, network: Iterable[str], state: Iterable[str]) -> list[str]:
        """Names of the state's encoder tensors that the network lacks: without them its features are others."""
        own = set(network)
        return [name for name in state if name.startswith(self.encoder) and name not in own]

    def carried(self, matched: Iterable[str]) -> tuple[str, ...]:
        """Names among those loaded that pretraining has trained."""
        return tuple(name for name in matched if name.startswith(self.pretrained))

    def recognises(
        self, state: Mapping[str, Tensor], *, entry: str | None = None, entries: Collection[str] = ()
    ) -> bool:
        """Return whether all names in a checkpoint, and the sizes that matter, are those of this source.

        Args:
            state: The tensors.
            entry: Where they lie in the file; ``None`` where that is not known.
            entries: All entries of the file.
        """
        names = _bare(state)
        if entry is not None and self.entries and entry.rsplit(".", maxsplit=1)[-1] not in self.entries:
            return False
        if not set(self.beside) <= set(entries) or (self.wrapped and not all(map(WRAPPERS.match, state))):
            return False
        known = [re.compile(pattern) for pattern in self.names]
        if not all(any(pattern.fullmatch(name) for pattern in known) for name in names):
            return False
        if not all(any(re.match(need, name) for name in names) for need in self.needs):
            return False
        return not self.shapes or self._has_shapes(state)

    def nearness(self, state: Iterable[str]) -> float:
        """Share of the names in a checkpoint that are names of this source."""
        names = _bare(state)
        known = [re.compile(pattern) for pattern in self.names]
        return sum(any(p.fullmatch(name) for p in known) for name in names) / max(len(names), 1)

    def _has_shapes(self, state: Mapping[str, Tensor]) -> bool:
        renamed = self.apply(state)[0]
        return all(
            name in renamed and tuple(renamed[name].shape[: len(shape)]) == shape for name, shape in self.shapes.items()
        )


def _bare(state: Iterable[str]) -> list[str]:
    return [WRAPPERS.sub("", name) for name in state]


def _rename(name: str, rules: Rules) -> str | None:
    for pattern, replacement in rules:
        if re.search(pattern, name):
            if replacement is None:
                return None
            name = re.sub(pattern, replacement, name, count=1)
    return name
