"""Published checkpoints of MONAI's SegResNet and SegResNetDS."""

from typing import Any

from monai_cl.weights._preparation import Preparation
from monai_cl.weights.families.key_map import KeyMap

_NORM = r"(?:weight|bias|running_mean|running_var|num_batches_tracked)"
_BLOCK = rf"blocks\.\d+\.(?:norm|conv)[12]\.{_NORM}"
_DEEP: dict[str, Any] = {"_target_": "SegResNetDS", "blocks_down": [1, 2, 2, 4, 4]}
_DEEP_MARKS = ("encoder.conv_init.", "encoder.layers.", "up_layers.")
_FIRST = "encoder.conv_init.weight"

CT_FM = KeyMap(
    "ct_fm",
    "CT-FM (arXiv 2501.09001)",
    {**_DEEP, "init_filters": 32, "dsdepth": 4},
    marks=_DEEP_MARKS,
    rules=(
        (r"^(?:model\.)?backbone\.", ""),
        (r"^(?:model|criterion|projection_head)\.", None),
        (r"^(conv_init|layers)\.", r"encoder.\1."),
    ),
    encoder=("encoder.",),
    pretrained=("encoder.",),
    trained="encoder; a decoder is as in the file, untrained by its card",
    names=(
        r"(?:(?:model\.)?backbone\.)?(?:encoder\.)?conv_init\.weight",
        rf"(?:(?:model\.)?backbone\.)?(?:encoder\.)?layers\.\d\.(?:{_BLOCK}|downsample\.weight)",
        rf"(?:(?:model\.)?backbone\.)?up_layers\.\d\.(?:upsample\.deconv\.weight|{_BLOCK}|head\.(?:weight|bias))",
        r"(?:model\.)?(?:criterion|projection_head|nonlinear_projector)\..*",
    ),
    needs=(r".*conv_init\.weight", r".*layers\.4\.blocks\.3\.norm2\.running_mean"),
    shapes={_FIRST: (32, 1), "encoder.layers.4.blocks.3.conv2.weight": (512, 512)},
    licence="Apache-2.0",
    citation=("arXiv 2501.09001",),
    preparation=Preparation("SPL", (1, 1, 3), "window", (-1024, 2048), (0, 1)),
    recipe="ct_whole",
    remedy="see `init_filters`, `blocks_down` and `norm` of the network",
)
_HALVES = r"image_encoder\.up_layers(?:_auto)?\.\d\.(?:upsample\.deconv\.weight|{}|head\.(?:weight|bias))"


def _vista(name: str, branch: str, *rules: tuple[str, str | None]) -> KeyMap:
    return KeyMap(
        name,
        f"VISTA3D, NV-Segment-CT (arXiv 2406.05285), {branch}",
        {**_DEEP, "init_filters": 48, "norm": "instance", "dsdepth": 1},
        marks=_DEEP_MARKS,
        rules=((r"^(?:class_head|point_head)\.", None), (r"^image_encoder\.", ""), *rules),
        encoder=("encoder.",),
        pretrained=("encoder.", "up_layers"),
        trained="encoder and decoder, with labels of 127 classes of CT",
        names=(
            r"image_encoder\.encoder\.conv_init\.weight",
            rf"image_encoder\.encoder\.layers\.\d\.(?:{_BLOCK}|downsample\.weight)",
            _HALVES.format(_BLOCK),
            r"(?:class_head|point_head)\..*",
        ),
        needs=(r"image_encoder\.encoder\.conv_init\.weight", r"image_encoder\.up_layers\.", r"class_head\."),
        licence="of its card (NVIDIA); some releases are not for commercial use",
        free=False,
        citation=("arXiv 2406.05285",),
        preparation=Preparation("RAS", (1.5, 1.5, 1.5), "window", (-963.8, 1053.7), (0, 1)),
        recipe="ct_abdomen",
        recipe_options={"window": [-963.8, 1053.7]},
        remedy="see `init_filters`, `blocks_down` and `norm` of the network",
    )


VISTA3D = _vista("vista3d", "its branch by points")
VISTA3D_AUTO = _vista(
    "vista3d_auto", "its automatic branch", (r"^up_layers\.", None), (r"^up_layers_auto\.", "up_layers.")
)
SUPREM_SEGRESNET = KeyMap(
    "suprem_segresnet",
    "SuPreM (arXiv 2501.11253), SegResNet",
    {"_target_": "SegResNet", "init_filters": 16, "blocks_down": [1, 2, 2, 4], "blocks_up": [1, 1, 1]},
    marks=("convInit.", "down_layers.", "up_layers.", "conv_final."),
    rules=((r"^backbone\.", ""),),
    encoder=("convInit.", "down_layers."),
    pretrained=("convInit.", "down_layers.", "up_samples.", "up_layers.", "conv_final.0."),
    trained="encoder and decoder, with labels of 25 organs",
    names=(r"(?:backbone\.)?(?:convInit|down_layers|up_samples|up_layers|conv_final)\..*",),
    needs=(
        r"(?:backbone\.)?convInit\.conv\.weight",
        r"(?:backbone\.)?down_layers\.3\.",
        r"(?:backbone\.)?conv_final\.",
    ),
    entries=("net",),
    wrapped=True,
    shapes={"convInit.conv.weight": (16, 1)},
    licence="CC BY-NC-ND 4.0",
    free=False,
    citation=("arXiv 2501.11253",),
    preparation=Preparation("RAS", (1.5, 1.5, 1.5), "window", (-175, 250), (0, 1)),
    recipe="ct_abdomen",
    remedy="see `init_filters`, `blocks_down` and `blocks_up` of the network",
)
