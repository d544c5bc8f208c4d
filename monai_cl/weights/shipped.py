"""Weights that come with the bundles: of random anatomies, so of no patient, each for one network."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_cl import bundles
from monai_cl._files import atomic_write
from monai_cl.weights._contract import NOTE, read_contract
from monai_cl.weights._safetensors import tensor_shapes

if TYPE_CHECKING:  # what ships is listed without torch
    from torch import Tensor, nn

FOLDER = Path("models") / "shipped"  # in a bundle
ENDING = ".safetensors"
LIMIT = 25_000_000  # bytes of a file, as of the model zoo
_DISTINCT = ("filters", "init_filters", "norm")  # settings that distinguish networks of one class


@dataclass(frozen=True)
class Shipped:
    """File of weights that comes with a bundle.

    Attributes:
        path: The file; its name is that of its network.
        shapes: Shapes of its tensors, by their names in the network.
        contract: Network, data, licence, seed, steps, settings and the command that makes the file again.
    """

    path: Path
    shapes: Mapping[str, tuple[int, ...]] = field(repr=False)
    contract: Mapping[str, Any] = field(repr=False)

    @property
    def name(self) -> str:
        """Name of the network, as files have it."""
        return self.path.stem

    def __str__(self) -> str:
        kept = self.contract
        parts = [f"{kept.get('network', '?')}, {kept.get('spatial_dims', '?')}-D"]
        parts += [f"{key} {_named(kept[key])}" for key in _DISTINCT if key in kept]
        return f"{self.name} ({', '.join(parts)})"

    def fits(self, network: nn.Module, *, inflate_channels: bool = False) -> bool:
        """Return whether the weights were made for this network, its output layer aside.

        Each tensor of the file must have its shape there and belong to a layer of its class. Layers that the file lacks
        must be those that pretraining left alone, or lie in a part of the network that had no share in it, such as
        heads of deep supervision.

        Args:
            network: The network.
            inflate_channels: Whether the first convolutions may have other input channels.
        """
        import torch

        from monai_cl.weights._channels import inflatable
        from monai_cl.weights._names import tensors_of

        own, _ = tensors_of(network)
        result = {name: torch.empty(shape, device="meta") for name, shape in self.shapes.items()}
        inflated = inflatable(network, own, result) if inflate_channels else {}
        if any(name not in own or own[name].shape != one.shape for name, one in result.items() if name not in inflated):
            return False
        layers, left = self.contract.get("layers", {}), self.contract.get("left_out", ())
        parts = {layer.partition(".")[0] for layer in layers}
        further = {_layer(name) for name in own if name not in result} - set(left)
        if any(layer in layers or layer.partition(".")[0] in parts for layer in further):
            return False
        return all(type(network.get_submodule(name)).__name__ == kind for name, kind in layers.items())


def shipped_weights(bundle_root: str | Path | None = None) -> tuple[Shipped, ...]:
    """Weights in ``models/shipped`` of a bundle, then those of the bundles that come with the package.

    Args:
        bundle_root: A bundle whose own come first; ``None`` for those of the package alone.
    """
    roots = ([] if bundle_root is None else [Path(bundle_root)]) + [bundles.path(name) for name in bundles.names()]
    files = [path for root in roots for path in sorted((root / FOLDER).glob(f"*{ENDING}"))]
    return tuple(_read(path) for path in dict.fromkeys(path.resolve() for path in files))


def shipped_for(
    network: nn.Module, bundle_root: str | Path | None = None, *, inflate_channels: bool = False
) -> Shipped | None:
    """The first of the weights of :func:`shipped_weights` that fit a network; ``None`` if none do."""
    every = shipped_weights(bundle_root)
    return next((one for one in every if one.fits(network, inflate_channels=inflate_channels)), None)


def save_shipped(network: nn.Module, path: str | Path, *, touched: Iterable[str], contract: Mapping[str, Any]) -> None:
    """Write the layers of a network that pretraining has changed, with their contract inside.

    Tensors of other layers, such as the output layer, are as they were drawn and are left out.

    Args:
        network: The network.
        path: The file, ``.safetensors``.
        touched: Names of the tensors that pretraining has changed.
        contract: Facts that users of the weights need; class and dimensions of the network are added.

    Raises:
        NonFiniteWeightsError: If a tensor holds NaN or infinities.
        ValueError: If nothing is left, or the file would be larger than 25 MB.
    """
    from safetensors.torch import save

    from monai_cl.weights._finite import require_finite
    from monai_cl.weights._names import tensors_of

    own, others = tensors_of(network)
    changed = {_layer(others.get(name, name)) for name in touched}
    kept = {name: tensor.detach().cpu().contiguous() for name, tensor in own.items() if _layer(name) in changed}
    require_finite(kept, f"the network for {path}")
    if not kept:
        raise ValueError("the contract of the weights must list the tensors that pretraining has changed, got none")
    inside = {
        **contract,
        "network": type(network).__name__,
        "spatial_dims": _spatial_dims(kept),
        "layers": {layer: type(network.get_submodule(layer)).__name__ for layer in sorted(changed)},
        "left_out": sorted({_layer(name) for name in own} - changed),
        "touched": list(kept),
    }
    # one text beside the tensors: the library writes several in any order, and no two files would be alike
    content = save(kept, metadata={NOTE: json.dumps({"contract": inside}, sort_keys=True)})
    if len(content) > LIMIT:
        raise ValueError(f"weights that are shipped must have at most {LIMIT} bytes, got {len(content)}")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        Path(temporary).write_bytes(content)


def _read(path: Path) -> Shipped:
    return Shipped(path, tensor_shapes(path), read_contract(path))


def _named(value: Any) -> Any:
    """A normalisation that has options by its name alone; anything else as it is."""
    return value[0].lower() if isinstance(value, list) and value and isinstance(value[0], str) else value


def _layer(name: str) -> str:
    return name.rpartition(".")[0]


def _spatial_dims(state: Mapping[str, Tensor]) -> int:
    return max(tensor.ndim for tensor in state.values()) - 2


__all__ = ["Shipped", "save_shipped", "shipped_for", "shipped_weights"]
