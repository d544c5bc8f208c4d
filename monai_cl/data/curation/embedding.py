"""Embeddings of slices by a network that the user brings, read as data: no file of it is run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from monai_cl.data.curation.reduction import Embed

if TYPE_CHECKING:
    from torch import nn

_WAYS = (
    "export the network to ONNX (torch.onnx.export(network, (torch.zeros(1, 1, 64, 64),), 'net.onnx', "
    "external_data=False)), or give models/pretrained.pt of the bundle global_local_contrast; in Python, `curate` "
    "takes any function as `embed`"
)


def load_embedding(path: str | os.PathLike[str]) -> Embed:
    """An embedding from an ONNX file, or from what ``global_local_contrast`` has pretrained on slices.

    Programs of ``torch.export`` (``.pt2``) are refused: of version 2.13, ``torch.export.load`` unpickles constants and,
    where it must, all the rest, and evaluates the texts of symbolic shapes, so that reading such a file runs it.

    Args:
        path: An ``.onnx`` file, run by ``onnxruntime``, that takes one slice ``(1, 1, 64, 64)`` in [0, 1] and returns
            numbers; or a ``.pt`` file of weights with the contract beside it, whose encoder's features are averaged
            over the quarters of the slice.

    Raises:
        FileNotFoundError: If no such file exists.
        ValueError: If it is neither, or cannot be read.
        ModuleNotFoundError: If ``onnxruntime`` is needed and not installed.
    """
    source = Path(path)
    if not source.is_file():
        raise FileNotFoundError(f"no such network: {source}; {_WAYS}")
    if source.suffix == ".onnx":
        return _onnx(source)
    if source.suffix in (".pt", ".pth"):
        return _encoder(source)
    raise ValueError(f"an embedding must be an .onnx or .pt file, reading {source.name} could run code in it: {_WAYS}")


def _onnx(source: Path) -> Embed:
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("embeddings by ONNX need onnxruntime: pip install 'monai_cl[embedding]'") from error
    try:
        # its content, not its path: a graph may name files with further weights, anywhere
        session = onnxruntime.InferenceSession(source.read_bytes(), providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
    except Exception as error:
        raise ValueError(f"{source} is no ONNX network in one file ({type(error).__name__}: {error})") from error

    def embed(slices: NDArray[np.float32]) -> NDArray[Any]:
        return np.stack([np.ravel(session.run(None, {name: one[None, None]})[0]) for one in slices])

    return embed


def _encoder(source: Path) -> Embed:
    import torch

    from monai_cl import weights
    from monai_cl.networks import encoder_features, pool_pyramid

    network = weights.load_network(_network(source, weights.read_contract(source)), source).eval()

    def embed(slices: NDArray[np.float32]) -> NDArray[Any]:
        with torch.inference_mode():
            images = [torch.from_numpy(one)[None, None] for one in slices]
            return torch.cat([pool_pyramid(encoder_features(network, image), 2) for image in images]).numpy()

    return embed


def _network(source: Path, contract: dict[str, Any]) -> nn.Module:
    """The network that the contract of a ``global_local_contrast`` file describes, by numbers and names alone."""
    from monai.networks.nets import DynUNet

    filters = contract.get("filters")
    if not (isinstance(filters, list) and filters and all(isinstance(size, int) for size in filters)):
        raise ValueError(f"{source.with_suffix('.json')} must give the filters of a 2-D network, it does not: {_WAYS}")
    if contract.get("in_channels") != 1:
        raise ValueError(f"slices have one channel, {source} is for {contract.get('in_channels')}: {_WAYS}")
    down = len(filters) - 1
    norm = contract.get("norm", "batch")
    network: nn.Module = DynUNet(
        spatial_dims=2,
        in_channels=1,
        out_channels=int(contract.get("out_channels", 1)),
        filters=filters,
        kernel_size=[3] * len(filters),
        strides=[1] + [2] * down,
        upsample_kernel_size=[2] * down,
        norm_name=tuple(norm) if isinstance(norm, list) else norm,
    )
    return network
