"""Published checkpoints of MONAI's SwinUNETR."""

from typing import Any

from monai_cl.weights._preparation import Preparation
from monai_cl.weights.families.key_map import KeyMap

SWIN = "swinViT."
ENCODER = (SWIN, "encoder1.", "encoder2.", "encoder3.", "encoder4.", "encoder10.")
_PART = r"encoder(?:1|2|3|4|10)\..*"
_WHOLE = (rf"{SWIN}.*", _PART, r"decoder[1-5]\..*", r"out\..*")
_VIEWS = Preparation("RAS", (1.5, 1.5, 1.5), "window", (-175, 250), (0, 1))
_V2: dict[str, Any] = {"_target_": "SwinUNETR", "feature_size": 48, "use_v2": True}
_V1: dict[str, Any] = {"_target_": "SwinUNETR", "feature_size": 48, "use_v2": False}
_VOCO = "Apache-2.0 (code); of the weights see the card"
_COMMON: dict[str, Any] = {
    "marks": (SWIN,),
    "encoder": ENCODER,
    "remedy": "see `use_v2` and `feature_size` of the network, or name another key_map",
}
_AS_VOCO: dict[str, Any] = {
    **_COMMON,
    "pretrained": ENCODER,
    "trained": "encoder",
    "licence": _VOCO,
    "preparation": _VIEWS,
    "recipe": "ct_abdomen",
}

VOCO_V2 = KeyMap(  # projectors lie beside the backbone and are called student and teacher
    "voco_v2",
    "VoCo of 2024 (arXiv 2410.09890)",
    _V2,
    rules=((r"^(student|teacher)\.", None), (r"^backbone\.", "")),
    parts=ENCODER,
    names=(rf"(?:backbone\.)?{SWIN}.*", rf"(?:backbone\.)?{_PART}", r"(?:student|teacher)\.(?!swinViT|encoder).*"),
    needs=(rf"(?:backbone\.)?{SWIN}", r"(?:backbone\.)?encoder10\."),
    citation=("arXiv 2410.09890", "arXiv 2402.17300"),
    **_AS_VOCO,
)
_NETWORKS = tuple(rf"(?:student|teacher)\.{part}" for part in (rf"{SWIN}.*", _PART, r"proj_head\..*"))
VOCO_10K = KeyMap(  # student and teacher are whole networks, each with its projector
    "voco_10k",
    "VoCo-10k (arXiv 2402.17300, later code)",
    _V2,
    rules=((r"^student\.", None), (r"^(teacher\.)?proj_head\.", None), (r"^teacher\.", "")),
    parts=ENCODER,
    names=(*_NETWORKS, r"proj_head\..*"),
    needs=(rf"teacher\.{SWIN}",),
    citation=("arXiv 2402.17300",),
    **_AS_VOCO,
)
VOCO_10K_STUDENT = KeyMap(
    "voco_10k_student",
    "VoCo-10k, its student",
    _V2,
    rules=((r"^teacher\.", None), (r"^(student\.)?proj_head\.", None), (r"^student\.", "")),
    parts=ENCODER,
    names=(*_NETWORKS, r"proj_head\..*"),
    needs=(rf"student\.{SWIN}",),
    citation=("arXiv 2402.17300",),
    **_AS_VOCO,
)
VOCO_CVPR = KeyMap(
    "voco_cvpr",
    "VoCo of CVPR 2024 (arXiv 2402.17300)",
    _V1,
    rules=((r"^p\.", None),),
    parts=(SWIN,),
    names=(rf"{SWIN}.*", r"encoder[1-4]\..*", r"p\..*"),
    needs=(SWIN,),
    citation=("arXiv 2402.17300",),
    **_AS_VOCO,
)
MONAI_SWIN_VIT = KeyMap(
    "monai_swin_vit",
    "MONAI's early SwinUNETR and its self-supervised weights",
    _V1,
    rules=(
        (r"^(swin_vit\.)?norm\.", None),  # of the pretraining's transformer; SwinUNETR has none
        (r"^swin_vit\.", SWIN),
        (r"^(patch_embed|layers[1-4]c?)\.", rf"{SWIN}\1."),
        (r"\.mlp\.fc([12])\.", r".mlp.linear\1."),
    ),
    parts=(SWIN,),
    pretrained=(*ENCODER, "decoder"),
    trained="encoder, and the decoder where the file has one",
    names=(
        r"(?:swin_vit\.)?(?:norm|patch_embed|layers[1-4]c?)\..*",
        *_WHOLE[1:],
        r"(?:rotation|contrastive)_(?:head|pre)\..*",
        r"conv(?:Trans\w*)?\..*",
    ),
    needs=(r"(?:swin_vit\.)?patch_embed\.proj\.weight", r"(?:swin_vit\.)?layers1\.0\.blocks\."),
    licence="Apache-2.0",
    citation=("arXiv 2111.14791", "arXiv 2201.01266"),
    preparation=Preparation("RAS", (1.5, 1.5, 2.0), "window", (-175, 250), (0, 1)),
    recipe="ct_abdomen",
    recipe_options={"spacing": [1.5, 1.5, 2.0]},
    **_COMMON,
)
MONAI_SWIN_SSL = KeyMap(
    "monai_swin_ssl",
    "MONAI's SwinUNETR, self-supervised on 50 000 CT",
    _V1,
    rules=(
        (r"^encoder\.(mask_token$|norm\.)", None),
        (r"^out\.", None),
        (r"^encoder\.(patch_embed)\.", rf"{SWIN}\1."),
        (r"^encoder\.(layers[1-4])\.0\.0\.", rf"{SWIN}\1.0."),
    ),
    parts=ENCODER,
    pretrained=(*ENCODER, "decoder"),
    trained="encoder and decoder, by masked images; the output layer is left out",
    names=(r"encoder\.(?:patch_embed|norm|layers[1-4]\.0\.0)\..*", r"encoder\.mask_token", *_WHOLE[1:]),
    needs=(r"encoder\.patch_embed\.proj\.weight", r"encoder\.layers1\.0\.0\.", r"encoder10\.", r"decoder1\."),
    licence="of its card; none is stated beside the file",
    citation=("arXiv 2111.14791", "arXiv 2201.01266"),
    **_COMMON,
)
_PROMPTS = r"(?:organ_embedding|text_to_vision|precls_conv|GAP|controller)"
SUPREM_SWIN = KeyMap(
    "suprem_swin",
    "SuPreM (arXiv 2501.11253), SwinUNETR",
    _V1,
    rules=((rf"^{_PROMPTS}\b", None), (r"^backbone\.", "")),
    parts=ENCODER,
    pretrained=(*ENCODER, "decoder"),
    trained="encoder and decoder, with labels of 25 organs",
    names=(*(rf"backbone\.{name}" for name in _WHOLE), rf"{_PROMPTS}(?:\..*)?"),
    needs=(rf"backbone\.{SWIN}", r"backbone\.decoder1\."),
    licence="CC BY-NC-ND 4.0",
    free=False,
    citation=("arXiv 2501.11253",),
    preparation=_VIEWS,
    recipe="ct_abdomen",
    **_COMMON,
)
