"""Weights for nnU-Net's fine-tuning of pretrained networks: its names, and the plan that it reads.

Its readers hand images over with their axes in reverse order, head-foot first, so that kernels are turned to match.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.networks.nets import DynUNet
from torch import Tensor, nn

from monai_cl._files import atomic_write
from monai_cl.weights._contract import NOTE
from monai_cl.weights._finite import require_finite
from monai_cl.weights._origin import LISTS, Origin, as_contract
from monai_cl.weights._preparation import preparation_of
from monai_cl.weights._receipt import receipt_of

_STEM = {"ResidualEncoderUNet": "encoder.stem", "PlainConvUNet": "encoder.stages.0"}
_FIRST = {
    "ResidualEncoderUNet": ["encoder.stem.convs.0.conv", "encoder.stem.convs.0.all_modules.0"],
    "PlainConvUNet": ["encoder.stages.0.0.convs.0.all_modules.0", "encoder.stages.0.0.convs.0.conv"],
}
_TO_IMPORT = ["conv_op", "norm_op", "nonlin"]
_OURS = "monai_cl: self-supervised contrastive pretraining for CT and MR"


def save_for_nnunet(
    network: nn.Module,
    path: str | Path,
    *,
    patch_size: Sequence[int],
    recipe: str | Path | None = None,
    recipe_options: Mapping[str, Any] | None = None,
    spacing: Sequence[float] | None = None,
) -> None:
    """Write a network as nnU-Net's ``nnUNetv2_preprocess_like_nnssl`` and ``nnUNetv2_train_pretrained`` read it.

    Args:
        network: A ``DynUNet`` as nnU-Net's plain U-Net has it (``res_block=False``, ``trans_bias=True``, instance norm
            with weights, leaky ReLU), or a ``ResidualEncoderUNet`` of nnU-Net's own package.
        path: The file, ``.pth``.
        patch_size: Voxels of a patch in fine-tuning.
        recipe: The recipe that prepared the images, with
        recipe_options: the values given to it; they hold the spacing.
        spacing: Edges of a voxel in mm along the axes of the image, in place of the recipe's; without either nnU-Net
            keeps that of the scanner.

    Raises:
        ValueError: If nnU-Net has no such network.
        NonFiniteWeightsError: If a tensor holds NaN or infinities.
    """
    state, kind, arguments, channels = _as_nnunet(network)
    require_finite(state, f"the network for {path}")
    if spacing is None and recipe is not None:
        prepared = preparation_of(recipe, recipe_options).spacing
        spacing = prepared if prepared and all(prepared) else None
    receipt = receipt_of(network)
    origins = () if receipt is None else receipt.origins
    content = {
        "network_weights": state,
        "nnssl_adaptation_plan": _plan(kind, arguments, channels, patch_size, spacing),
        "citations": [_citation("Pretraining", "monai_cl", [_OURS]), *map(_begun_from, origins)],
        NOTE: as_contract(origins),
    }
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        torch.save(content, file)


def _plan(
    kind: str, arguments: dict[str, Any], channels: int, patch_size: Sequence[int], spacing: Sequence[float] | None
) -> dict[str, Any]:
    """The plan of which nnU-Net makes the network and its preparation; its first axis is ours last."""
    configuration = {
        "spacing": None if spacing is None else [float(edge) for edge in reversed(spacing)],
        "patch_size": [int(edge) for edge in reversed(patch_size)],
        "normalization_schemes": ["ZScoreNormalization"] * channels,
        "use_mask_for_norm": [False] * channels,
        "spacing_style": "noresample" if spacing is None else "fixed",
    }
    return {
        "architecture_plans": {
            "arch_class_name": kind,
            "arch_kwargs": arguments,
            "arch_kwargs_requiring_import": list(_TO_IMPORT),
        },
        "pretrain_plan": {"dataset_name": "monai_cl", "configurations": {"pretrained": configuration}},
        "pretrain_num_input_channels": channels,
        "recommended_downstream_patchsize": configuration["patch_size"],
        "key_to_encoder": "encoder.stages",
        "key_to_stem": _STEM[kind],
        "keys_to_in_proj": list(_FIRST[kind]),
        "key_to_lpe": None,
    }


def _citation(kind: str, name: str, papers: list[str]) -> dict[str, Any]:
    """Entry of the citations that nnU-Net prints to its log."""
    return {"type": kind, "name": name, LISTS[0]: papers}


def _begun_from(origin: Origin) -> dict[str, Any]:
    return _citation("Weights", origin.source, [*origin.citation, f"licence of these weights: {origin.licence}"])


def _as_nnunet(network: nn.Module) -> tuple[dict[str, Tensor], str, dict[str, Any], int]:
    """State dict under nnU-Net's names, class, arguments and input channels."""
    if isinstance(network, DynUNet):
        _require_plain(network)
        return dict(_plain_state(network)), "PlainConvUNet", _plain_arguments(network), network.in_channels
    if type(network).__name__ == "ResidualEncoderUNet":
        whole: Any = network
        state = {name: _copy(tensor) for name, tensor in network.state_dict().items()}
        first = state["encoder.stem.convs.0.conv.weight"]
        return state, "ResidualEncoderUNet", _residual_arguments(whole), first.shape[1]
    raise ValueError(
        f"nnU-Net fine-tunes its own networks, got {type(network).__name__}; pretrain a DynUNet with res_block=False "
        "and trans_bias=True, or a ResidualEncoderUNet (pip install 'monai_cl[nnunet]')"
    )


def _require_plain(network: DynUNet) -> None:
    kernels = {str(kernel) for kernel in network.kernel_size}
    faults = []
    if hasattr(network.input_block, "conv3"):
        faults.append("res_block must be False")
    if network.upsamples[0].transp_conv.conv.bias is None:
        faults.append("trans_bias must be True")
    norm = network.input_block.norm1
    if not (isinstance(norm, nn.InstanceNorm2d | nn.InstanceNorm3d) and norm.affine):
        faults.append("norm_name must be ('INSTANCE', {'affine': True})")
    if not isinstance(network.input_block.lrelu, nn.LeakyReLU):
        faults.append("act_name must be leakyrelu")
    if len(kernels) > 1:
        faults.append("kernel_size must be the same in all levels")
    if faults:
        raise ValueError(f"nnU-Net's plain U-Net is a DynUNet of another kind: {'; '.join(faults)}")


def _plain_state(network: DynUNet) -> Iterator[tuple[str, Tensor]]:
    """Tensors with all names that nnU-Net's modules have for them; biases of convolutions, which cancel, are zero."""
    stages: list[Any] = [network.input_block, *network.downsamples, network.bottleneck]
    for number, stage in enumerate(stages):
        for prefix in ("encoder", "decoder.encoder"):
            yield from _convolutions(f"{prefix}.stages.{number}.0", stage)
    ups: list[Any] = list(network.upsamples)
    for number, up in enumerate(ups):
        yield from _convolutions(f"decoder.stages.{number}", up.conv_block)
        yield f"decoder.transpconvs.{number}.weight", _copy(up.transp_conv.conv.weight)
        yield f"decoder.transpconvs.{number}.bias", _copy(up.transp_conv.conv.bias)
        last = number == len(ups) - 1
        width = up.conv_block.conv2.conv.weight.shape[0]
        head = network.output_block.conv.conv
        shape = (head.weight.shape[0], width, *head.weight.shape[2:])
        yield f"decoder.seg_layers.{number}.weight", _copy(head.weight) if last else torch.zeros(shape)
        yield f"decoder.seg_layers.{number}.bias", _copy(head.bias) if last else torch.zeros(shape[0])


def _convolutions(name: str, block: Any) -> Iterator[tuple[str, Tensor]]:
    for number, (conv, norm) in enumerate(((block.conv1, block.norm1), (block.conv2, block.norm2))):
        for copy in ("conv", "all_modules.0"):
            yield f"{name}.convs.{number}.{copy}.weight", _copy(conv.conv.weight)
            yield f"{name}.convs.{number}.{copy}.bias", torch.zeros(conv.conv.weight.shape[0])
        for copy in ("norm", "all_modules.1"):
            yield f"{name}.convs.{number}.{copy}.weight", _copy(norm.weight)
            yield f"{name}.convs.{number}.{copy}.bias", _copy(norm.bias)


def _plain_arguments(network: DynUNet) -> dict[str, Any]:
    dims, levels = network.spatial_dims, len(network.filters)
    return {
        "n_stages": levels,
        "features_per_stage": list(network.filters),
        "kernel_sizes": [_each(kernel, dims) for kernel in network.kernel_size],
        "strides": [_each(stride, dims) for stride in network.strides],
        "n_conv_per_stage": [2] * levels,
        "n_conv_per_stage_decoder": [2] * (levels - 1),
        "conv_bias": True,
        **_layers(dims, float(network.input_block.lrelu.negative_slope)),
    }


def _residual_arguments(network: Any) -> dict[str, Any]:
    encoder, decoder = network.encoder, network.decoder
    dims = encoder.stem.convs[0].conv.weight.ndim - 2
    return {
        "n_stages": len(encoder.stages),
        "features_per_stage": [int(n) for n in encoder.output_channels],
        "kernel_sizes": [_each(kernel, dims) for kernel in encoder.kernel_sizes],
        "strides": [_each(stride, dims) for stride in encoder.strides],
        "n_blocks_per_stage": [len(stage.blocks) for stage in encoder.stages],
        "n_conv_per_stage_decoder": [len(stage.convs) for stage in decoder.stages],
        "conv_bias": encoder.stem.convs[0].conv.bias is not None,
        **_layers(dims, 0.01),
    }


def _layers(dims: int, slope: float) -> dict[str, Any]:
    return {
        "conv_op": f"torch.nn.modules.conv.Conv{dims}d",
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dims}d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True, "negative_slope": slope},
    }


def _each(value: int | Sequence[int], dims: int) -> list[int]:
    edges = [value] * dims if isinstance(value, int) else [int(edge) for edge in value]
    return edges[::-1]


def _copy(tensor: Tensor) -> Tensor:
    """Copy with the spatial axes of kernels in reverse order."""
    axes = [0, 1, *reversed(range(2, tensor.ndim))] if tensor.ndim > 2 else list(range(tensor.ndim))
    return tensor.detach().cpu().permute(axes).contiguous().clone()
