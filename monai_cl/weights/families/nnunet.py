"""Checkpoints of nnU-Net version 2 and of nnssl: plain and residual-encoder U-Nets."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from monai_cl.weights._preparation import Preparation
from monai_cl.weights.families.key_map import KeyMap, Rules

_UNET = "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet"
RESENC_L: dict[str, Any] = {
    "_target_": _UNET,
    "n_stages": 6,
    "features_per_stage": [32, 64, 128, 256, 320, 320],
    "conv_op": "$torch.nn.Conv3d",
    "kernel_sizes": 3,
    "strides": [1, 2, 2, 2, 2, 2],
    "n_blocks_per_stage": [1, 3, 4, 6, 6, 6],
    "n_conv_per_stage_decoder": 1,
    "conv_bias": True,
    "norm_op": "$torch.nn.InstanceNorm3d",
    "norm_op_kwargs": {"eps": 1e-5, "affine": True},
    "nonlin": "$torch.nn.LeakyReLU",
    "nonlin_kwargs": {"inplace": True},
}
_NNUNET = "doi 10.1038/s41592-020-01008-z"
_LAYER = r"(?:conv|norm|all_modules\.\d)\.(?:weight|bias)"
_DECODER = (
    rf"decoder\.stages\.\d+\.convs\.\d+\.{_LAYER}",
    r"decoder\.(?:transpconvs|seg_layers)\.\d+\.(?:weight|bias)",
)
_RESIDUAL = (
    rf"encoder\.stem\.convs\.\d+\.{_LAYER}",
    rf"encoder\.stages\.\d+\.blocks\.\d+\.(?:conv[12]|skip\.\d)\.{_LAYER}",
)
_PLAIN = (rf"encoder\.stages\.\d+\.0\.convs\.\d+\.{_LAYER}",)
_COPIES = (r"^decoder\.encoder\.", r"\.all_modules\.\d\.")  # further names of the same tensors
# what methods of nnssl have beside the encoder: projectors of contrast (SimCLR, VoCo), heads of the tasks of SwinUNETR,
# the network that PCRL trains, of which the encoder is named once more
_HEADS = r"^(?:projector|predictor|projection_head|(?:\w+_)?(?:proj_head|heads?|norms)|network)\."


def _with_copies(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(rf"(?:decoder\.)?{name}" if name.startswith("encoder") else name for name in names)


def _residual(name: str, source: str, *, rules: Rules = (), heads: tuple[str, ...] = (), **more: Any) -> KeyMap:
    return KeyMap(
        name,
        source,
        RESENC_L,
        marks=("encoder.stem.", "encoder.stages.", "decoder.stages."),
        rules=rules,
        encoder=("encoder.",),
        names=(*_with_copies(_RESIDUAL), *_DECODER, *heads),
        needs=(r"encoder\.stem\.convs\.0\.", r"encoder\.stages\.0\.blocks\.0\.conv2\."),
        channels=("input_channels", "num_classes"),
        remedy="see `features_per_stage`, `n_blocks_per_stage`, `kernel_sizes` and `conv_bias` of the network",
        **more,
    )


NNSSL_RESENC = _residual(
    "nnssl_resenc",
    "nnssl (OpenMind, nnFoundation, SSL3D, MissingPiece), ResEnc-L",
    rules=((_HEADS, None),),
    heads=(rf"{_HEADS}.*",),
    beside=("nnssl_adaptation_plan",),
    pretrained=("encoder.", "decoder.stages.", "decoder.transpconvs."),
    trained="encoder, and the decoder by masked images alone (contrast leaves it as it was); not the outputs",
    licence="CC BY 4.0 (OpenMind) or CC BY-SA 4.0 (nnFoundation): see the card",
    citation=("arXiv 2412.17041", "arXiv 2410.23132"),
    preparation=Preparation(None, (1, 1, 1), "z-score"),
    recipe="brain_mr",
)
NNUNET_RESENC = _residual(
    "nnunet_resenc",
    "nnU-Net v2, residual encoder",
    pretrained=("encoder.", "decoder."),
    trained="encoder and decoder, with labels",
    licence="of the data set it was trained on",
    citation=(_NNUNET, "arXiv 2404.09556"),
)


def plain_rules(names: Iterable[str]) -> Rules:
    """Rules from nnU-Net's plain U-Net to ``DynUNet``, for the number of stages in the names.

    A bias before a normalisation cancels in it; ``DynUNet`` has none, and it is left out.
    """
    names = list(names)
    stages = 1 + max((int(m[1]) for name in names if (m := re.match(r"encoder\.stages\.(\d+)\.", name))), default=0)
    ups, last = stages - 1, stages - 1
    own = [("encoder.stages.0.0", "input_block"), (f"encoder.stages.{last}.0", "bottleneck")]
    own += [(f"encoder.stages.{i}.0", f"downsamples.{i - 1}") for i in range(1, last)]
    own += [(f"decoder.stages.{i}", f"upsamples.{i}.conv_block") for i in range(ups)]
    rules: list[tuple[str, str | None]] = [(copy, None) for copy in _COPIES]
    rules.append((r"^(encoder|decoder)\.stages\..*\.conv\.bias$", None))
    for theirs, mine in own:
        for conv in (0, 1):
            rules.append((rf"^{re.escape(theirs)}\.convs\.{conv}\.conv\.", f"{mine}.conv{conv + 1}.conv."))
            rules.append((rf"^{re.escape(theirs)}\.convs\.{conv}\.norm\.", f"{mine}.norm{conv + 1}."))
    rules.append((r"^decoder\.transpconvs\.(\d+)\.", r"upsamples.\1.transp_conv.conv."))
    rules.append((rf"^decoder\.seg_layers\.{ups - 1}\.", "output_block.conv.conv."))
    rules += [  # coarse to fine there, fine to coarse here
        (rf"^decoder\.seg_layers\.{i}\.", f"deep_supervision_heads.{ups - 2 - i}.conv.conv.") for i in range(ups - 1)
    ]
    return tuple(rules)


NNUNET_PLAIN = KeyMap(
    "nnunet_plain",
    "nnU-Net v2, plain U-Net",
    {"_target_": "DynUNet", "res_block": False, "trans_bias": True, "norm_name": ["INSTANCE", {"affine": True}]},
    marks=("input_block.", "bottleneck.", "upsamples.", "output_block."),
    rules=plain_rules,
    encoder=("input_block.", "downsamples.", "bottleneck."),
    pretrained=("input_block.", "downsamples.", "bottleneck.", "upsamples."),
    trained="encoder and decoder, as its trainer had them",
    names=(*_with_copies(_PLAIN), *_DECODER),
    needs=(r"encoder\.stages\.0\.0\.convs\.0\.conv\.weight", r"decoder\.transpconvs\.0\."),
    licence="of the data set it was trained on",
    citation=(_NNUNET,),
    remedy="make the network from `monai_cl.weights.dynunet_arguments(file)`",
)


def dynunet_shape(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Arguments of the ``DynUNet`` that the tensors of a plain U-Net of nnU-Net fill, channels included.

    Raises:
        ValueError: If they are not those of one with two convolutions a stage.
    """
    layer = re.compile(r"(?:encoder\.stages\.\d+\.0|decoder\.stages\.\d+)\.convs\.\d+\.conv\.weight")
    convs = {name: tensor for name, tensor in state.items() if layer.fullmatch(name)}
    first = [name for name in convs if re.match(r"encoder\.stages\.\d+\.0\.convs\.0\.", name)]
    if not first or any(".convs.2." in name for name in convs) or len(convs) != 2 * (2 * len(first) - 1):
        raise ValueError(
            "the checkpoint must be of a plain U-Net of nnU-Net with two convolutions a stage, DynUNet has no other; "
            f"got {len(first)} stages and {len(convs)} convolutions"
        )
    first.sort(key=lambda name: int(name.split(".")[2]))
    ups = [state[f"decoder.transpconvs.{i}.weight"] for i in range(len(first) - 1)]
    strides = [list(up.shape[2:]) for up in reversed(ups)]
    return {
        "spatial_dims": convs[first[0]].ndim - 2,
        "in_channels": convs[first[0]].shape[1],
        "out_channels": state[f"decoder.seg_layers.{len(first) - 2}.weight"].shape[0],
        "filters": [convs[name].shape[0] for name in first],
        "kernel_size": [list(convs[name].shape[2:]) for name in first],
        "strides": [[1] * (convs[first[0]].ndim - 2), *strides],
        "upsample_kernel_size": strides,
        "norm_name": ["INSTANCE", {"affine": True}],
        "act_name": ["leakyrelu", {"inplace": True, "negative_slope": 0.01}],
        "res_block": False,
        "trans_bias": True,
    }


def planned(content: Mapping[str, Any]) -> Preparation | None:
    """Preparation by the plan in a file of nnssl; ``None`` without a plan."""
    plan = content.get("nnssl_adaptation_plan")
    inner = plan.get("pretrain_plan") if isinstance(plan, Mapping) else None
    listed = inner.get("configurations") if isinstance(inner, Mapping) else None
    if not isinstance(listed, Mapping) or not listed:
        return None
    first = next(iter(listed.values()))
    spacing = first.get("spacing") if isinstance(first, Mapping) else None
    if not isinstance(spacing, list | tuple) or len(spacing) != 3:
        return Preparation(scaling="z-score")
    edges = [float(edge) for edge in reversed(spacing)]  # head-foot comes first there
    return Preparation(None, (edges[0], edges[1], edges[2]), "z-score")
