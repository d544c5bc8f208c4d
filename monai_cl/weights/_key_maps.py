"""Key maps: how published checkpoints name the tensors of MONAI's SwinUNETR."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

SWIN = "swinViT."
ENCODER = (SWIN, "encoder1.", "encoder2.", "encoder3.", "encoder4.", "encoder10.")
_DECODER = ("decoder", "out.")
_WRAPPERS = re.compile(r"^(?:module\.|_orig_mod\.)+")


@dataclass(frozen=True)
class KeyMap:
    """Names in a published checkpoint -> names in MONAI's SwinUNETR.

    Attributes:
        name: What it is called in ``key_map``.
        source: Whose checkpoints these are.
        rules: Patterns and what replaces them, one after the other; a tensor is left out where that is ``None``.
        parts: Prefixes of the network's tensors that the checkpoint must fill.
    """

    name: str
    source: str
    rules: tuple[tuple[str, str | None], ...]
    parts: tuple[str, ...] = ENCODER

    def apply(self, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
        """The state under the network's names, and the names that are left out.

        Raises:
            ValueError: If two tensors would receive the same name.
        """
        renamed: dict[str, Tensor] = {}
        dropped = []
        for name, tensor in state.items():
            new = self._rename(name)
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
        present = {part for part in ENCODER if any(name.startswith(part) for name in state)}
        return [name for name in network if name.startswith(tuple({*self.parts, *present}))]

    def homeless(self, network: Iterable[str], state: Iterable[str]) -> list[str]:
        """Names of the state's encoder tensors that the network lacks: without them its features are others."""
        own = set(network)
        return [name for name in state if name.startswith(ENCODER) and name not in own]

    def _rename(self, name: str) -> str | None:
        name = _WRAPPERS.sub("", name)
        for pattern, replacement in self.rules:
            if re.search(pattern, name):
                if replacement is None:
                    return None
                name = re.sub(pattern, replacement, name, count=1)
        return name


KEY_MAPS = {
    key_map.name: key_map
    for key_map in (
        # projectors lie beside the backbone and are called student and teacher
        KeyMap("voco_v2", "VoCo of 2024 (arXiv 2410.09890)", ((r"^(student|teacher)\.", None), (r"^backbone\.", ""))),
        # student and teacher are whole networks, each with its projector
        KeyMap(
            "voco_10k",
            "VoCo-10k (arXiv 2402.17300, later code)",
            ((r"^student\.", None), (r"^(teacher\.)?proj_head\.", None), (r"^teacher\.", "")),
        ),
        KeyMap(
            "voco_10k_student",
            "VoCo-10k, its student",
            ((r"^teacher\.", None), (r"^(student\.)?proj_head\.", None), (r"^student\.", "")),
        ),
        KeyMap("voco_cvpr", "VoCo of CVPR 2024 (arXiv 2402.17300)", ((r"^p\.", None),), (SWIN,)),
        KeyMap(
            "monai_swin_vit",
            "MONAI's early SwinUNETR and its self-supervised weights",
            (
                (r"^(swin_vit\.)?norm\.", None),  # of the pretraining's transformer; SwinUNETR has none
                (r"^swin_vit\.", SWIN),
                (r"^(patch_embed|layers[1-4]c?)\.", rf"{SWIN}\1."),
                (r"\.mlp\.fc([12])\.", r".mlp.linear\1."),
            ),
            (SWIN,),
        ),
    )
}


def fits(network: Iterable[str]) -> bool:
    """Tell whether a network with these names is one that the key maps lead to."""
    return any(name.startswith(SWIN) for name in network)


def detect(state: Iterable[str]) -> KeyMap | None:
    """The key map that the names in a checkpoint call for; ``None`` if they are no published ones."""
    names = {_WRAPPERS.sub("", name) for name in state}

    def any_begins(*prefixes: str) -> bool:
        return any(name.startswith(prefixes) for name in names)

    def begins_bare() -> bool:
        return "patch_embed.proj.weight" in names and any_begins("layers1.0.blocks.")

    found = None
    if any_begins(f"teacher.{SWIN}"):
        found = "voco_10k"
    elif any_begins(f"student.{SWIN}"):
        found = "voco_10k_student"
    elif any_begins(f"backbone.{SWIN}"):
        found = "voco_v2"
    elif any_begins("swin_vit.") or begins_bare():
        found = "monai_swin_vit"
    elif any_begins(SWIN) and not any_begins(*_DECODER):  # an encoder alone, as its authors hand it out
        found = "voco_v2" if any_begins("encoder10.") else "voco_cvpr"
    return None if found is None else KEY_MAPS[found]
