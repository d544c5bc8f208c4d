"""Networks for other programs: safetensors with their contract inside, and encoders as ONNX or ``torch.export``."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from monai_cl._files import atomic_write
from monai_cl.networks import encoder_features, input_channels
from monai_cl.weights._contract import NOTE
from monai_cl.weights._files import with_origins
from monai_cl.weights._finite import require_finite
from monai_cl.weights._names import tensors_of
from monai_cl.weights._receipt import receipt_of

KINDS = (".onnx", ".pt2")
_COUNTED = ("matched", "missing", "unexpected", "wrong_shape", "dropped", "touched")


def save_safetensors(network: nn.Module, path: str | Path, *, contract: Mapping[str, Any] | None = None) -> None:
    """Write a network as safetensors, each tensor once, with its contract and receipt among the texts of the file.

    :func:`monai_cl.weights.read_contract` and :func:`monai_cl.weights.transfer` read them.

    Raises:
        NonFiniteWeightsError: If a tensor holds NaN or infinities; nothing is written then.
    """
    from safetensors.torch import save_file

    own, _ = tensors_of(network)
    require_finite(own, f"the network for {path}")
    receipt = receipt_of(network)
    summary = None if receipt is None else asdict(receipt)
    if summary is not None:
        summary.update({key: len(summary[key]) for key in _COUNTED})
    inside = {
        "contract": _without_folder(with_origins(network, contract)),
        "receipt": summary,
        "network": type(network).__name__,
    }
    notes = {"format": "pt", NOTE: json.dumps(inside, sort_keys=True, default=str)}
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in own.items()}, temporary, metadata=notes)


def _without_folder(contract: dict[str, Any]) -> dict[str, Any]:
    """The contract with the name alone of a recipe that is a file of the user: its folders are of no use elsewhere."""
    return {**contract, "recipe": Path(str(contract["recipe"])).name} if contract.get("recipe") else contract


class Encoder(nn.Module):
    """Encoder of a network alone: an image in, its feature maps out, fine to coarse.

    Args:
        network: A network that :func:`monai_cl.networks.encoder_features` knows.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Feature maps of images (B, C, *S)."""
        return tuple(encoder_features(self.network, image))


def save_encoder(network: nn.Module, path: str | Path, *, size: Sequence[int]) -> None:
    """Write the encoder of a network as a program: ``.onnx`` (needs onnx and onnxscript) or ``.pt2``.

    Its input is one image of this size, its outputs are the feature maps, fine to coarse.

    Args:
        network: A network that :func:`monai_cl.networks.encoder_features` knows.
        path: The file; its ending sets the kind.
        size: Voxels of the image.

    Raises:
        ValueError: If the ending is another.
        ModuleNotFoundError: If ONNX is asked for and not installed.
    """
    path = Path(path)
    if path.suffix not in KINDS:
        raise ValueError(f"an encoder is written as one of {KINDS}, got {path.suffix!r}")
    # a copy: the network keeps its mode and device
    encoder, image = Encoder(deepcopy(network)).eval().cpu(), torch.zeros(1, input_channels(network), *size)
    path.parent.mkdir(parents=True, exist_ok=True)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporters, about themselves
        _write(encoder, image, path)


def _write(encoder: nn.Module, image: Tensor, path: Path) -> None:
    with atomic_write(path) as temporary:
        if path.suffix == ".pt2":
            with open(temporary, "wb") as file:
                torch.export.save(_without_places(torch.export.export(encoder, (image,))), file)
            return
        try:
            import onnxscript  # noqa: F401 - the exporter asks for it with another message
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError("writing ONNX needs onnx and onnxscript: pip install onnx onnxscript") from error
        outputs = [f"level_{number}" for number in range(len(encoder(image)))]
        program: Any = torch.onnx.export(
            encoder, (image,), dynamo=True, verbose=False, input_names=["image"], output_names=outputs
        )
        for node in program.model.graph.all_nodes():
            node.metadata_props.pop("pkg.torch.onnx.stack_trace", None)
        program.save(temporary, external_data=False)


def _without_places(program: Any) -> Any:
    """The program without the lines of code that its nodes are from, whose paths name folders of this machine."""
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)
    return program
