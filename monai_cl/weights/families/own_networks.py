"""Published checkpoints of networks that MONAI lacks; they are written in ``monai_cl.networks``."""

from monai_cl.weights._preparation import Preparation
from monai_cl.weights.families.key_map import KeyMap

_NORM = r"(?:weight|bias|running_mean|running_var|num_batches_tracked)"

ANATOMIX = KeyMap(
    "anatomix",
    "anatomix (arXiv 2411.02372)",
    {"_target_": "monai_cl.networks.AnatomixUNet", "features": 16, "width": 16, "levels": 4},
    marks=("model.0.", "head."),
    rules=(),
    # indices of layers of a network with four poolings: its decoder begins with the 38th
    encoder=tuple(f"model.{index}." for index in range(37)),
    parts=("model.0.",),
    pretrained=("model.",),
    trained="encoder and decoder up to its 16 features, on synthetic volumes; the head is yours",
    names=(rf"model\.\d+\.{_NORM}",),
    needs=(r"model\.0\.weight", r"model\.1\.running_mean", r"model\.65\.weight"),
    shapes={"model.0.weight": (16, 1), "model.65.weight": (16, 16)},
    licence="MIT",
    citation=("arXiv 2411.02372",),
    preparation=Preparation(scaling="min-max", range=(0, 1)),
    remedy="see `width`, `features` and `levels` of AnatomixUNet",
)
_BLOCK = r"\d+\.\d+\.(?:conv[123]|norm[12])\.(?:weight|bias)"
STU_NET = KeyMap(
    "stu_net",
    "STU-Net (arXiv 2304.06716)",
    {"_target_": "monai_cl.networks.STUNet"},
    marks=("conv_blocks_context.", "upsample_layers.", "conv_blocks_localization."),
    rules=(),
    encoder=("conv_blocks_context.",),
    pretrained=("conv_blocks_context.", "upsample_layers.", "conv_blocks_localization."),
    trained="encoder and decoder, with labels of 104 structures of CT",
    names=(
        rf"conv_blocks_(?:context|localization)\.{_BLOCK}",
        r"upsample_layers\.\d+\.conv\.(?:weight|bias)",
        r"seg_outputs\.\d+\.(?:weight|bias)",
    ),
    needs=(r"conv_blocks_context\.0\.0\.conv1\.weight", r"upsample_layers\.0\.conv\.weight"),
    licence="Apache-2.0 (code); of the weights see the card",
    citation=("arXiv 2304.06716",),
    remedy="see `dims`, `depth` and `strides` of STUNet: S, B, L and H differ in them",
)
