"""Description of a series in words from fixed lists: sequence family, body part, contradictions.

Free text of a header is searched for terms of imaging and never passed on: it can name a patient.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

# First match wins: what is particular stands before what is general.
_SEQUENCES: tuple[tuple[str, str], ...] = (
    ("ADC", r"\badc\b|apparent diffusion"),
    ("DWI", r"\bdwi\b|diff?usion|\bdti\b|trace ?w|\bep2d_diff|\bb ?(?:500|800|1000|2000)\b"),
    ("SWI", r"\bswi\b|\bswan\b|suscept|\bvenbold\b"),
    ("ASL", r"\b[p23d]*c?asl\b|arterial spin"),
    ("BOLD", r"\bbold\b|\bfmri\b|resting ?state"),
    ("DSC", r"\bdsc\b|perfusion|\bpwi\b|\brcbv\b"),
    ("TOF", r"\btof\b|time of flight|\bmra\b"),
    ("MP2RAGE", r"\bmp2rage\b"),
    ("FLAIR", r"flair|dark ?fluid|\btirm dark"),
    ("STIR", r"\bstir\b|\btirm\b"),
    ("LGE", r"\blge\b|\bpsir\b|late (?:gad|enh)|delayed enh"),
    ("cine", r"\bcine\b|\btrufi\b.*\bretro\b"),
    ("T2*w", r"t2 ?(?:star|\*)|\bhemo\b|\bt2s\b"),
    ("T1w", r"\bt1|mprage|\bspgr\b|\bbravo\b|\bmpr\b|\bvibe\b|\blava\b|\bthrive\b|\bmdixon\b"),
    ("T2w", r"\bt2|\bhaste\b|\bssfse\b"),
    ("PDw", r"\bpd(?:w|fs|_|\b)|proton"),
    ("bSSFP", r"\btrufi\b|\bfiesta\b|\bssfp\b|\bbffe\b"),
)
_CONTRAST = re.compile(
    r"\bt1 ?(?:post|ce|gd|c\b|km)|post ?(?:contrast|gd|gad)|\+ ?c\b|\bgd\b|\bgad|with contrast|contrast ?enh"
)
_BODY_PARTS: tuple[tuple[str, str], ...] = (
    ("HEART", r"heart|cardiac|cardio|\bcor(?:onary)? ?ct|atrium|ventric"),
    ("PROSTATE", r"prostat"),
    ("BREAST", r"breast|mamm"),
    ("SPINE", r"spine|spinal|lumbar|cervical|thoracic sp|[lct]-?spine|wirbel|\bhws\b|\bbws\b|\blws\b"),
    ("KNEE", r"\bknee|\bknie"),
    ("SHOULDER", r"shoulder|schulter"),
    ("HIP", r"\bhips?\b|h(?:ü|ue)fte"),
    ("WRIST", r"wrist|\bhand"),
    ("ANKLE", r"ankle|\bfoot|\bfuss"),
    ("NECK", r"\bneck|\bhals\b|larynx|thyroid|carotid"),
    ("WHOLEBODY", r"whole ?body|\bwb\b|ganzk"),
    ("BRAIN", r"brain|\bhead|cran|skull|kopf|sch(?:ä|ae)del|cerebr|hippoc|neuro|encephal"),
    ("COLON", r"colon|rectum|rectal"),
    ("LIVER", r"\bliver|hepat|\bleber"),
    ("PANCREAS", r"pancrea"),
    ("KIDNEY", r"kidney|\brenal|\bniere"),
    ("PELVIS", r"pelvis|pelvic|becken"),
    ("CHEST", r"chest|thorax|lung|pulmo"),
    ("ABDOMEN", r"abdom|\babd\b"),
    ("LEG", r"\bleg\b|femur|tibia|lower extrem"),
    ("ARM", r"\barm\b|humerus|elbow|forearm"),
)
_PARTS_ALIKE = (
    {"BRAIN", "NECK"},
    {"ABDOMEN", "LIVER", "PANCREAS", "KIDNEY", "COLON", "PELVIS", "PROSTATE"},
    {"CHEST", "HEART"},
)
_OF_MR = ("tr", "te", "ti", "scanning_sequence", "field_strength", "b_value")
_SOP_CT, _SOP_MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"


@dataclass(frozen=True)
class Description:
    """Description of a series by its tags.

    Args:
        sequence: Family of the MR sequence, such as ``"T1w"`` or ``"FLAIR"``; empty for CT and where unknown.
        body_part: A term such as ``"BRAIN"``; empty where unknown.
        contrast: Whether a contrast agent is named.
        contradictions: Tags that contradict each other.
    """

    sequence: str = ""
    body_part: str = ""
    contrast: bool = False
    contradictions: tuple[str, ...] = ()


def describe(modality: str, sop_class: str, image_type: tuple[str, ...], facts: Mapping[str, str]) -> Description:
    """Judge a series by its tags.

    Args:
        modality: ``CT`` or ``MR``.
        sop_class: SOP class UID.
        image_type: Values of ImageType.
        facts: Texts of further tags by the names of :data:`monai_cl.io.dicom.FACTS`.
    """
    words = _words(" ".join((facts.get("series_description", ""), facts.get("sequence_name", ""))))
    contrast = bool(facts.get("contrast")) or bool(_CONTRAST.search(words))
    body, part_contradiction = _body_part(facts)
    result = [*_modality_contradictions(modality, sop_class, facts), *part_contradiction]
    if modality != "MR":
        return Description("", body, contrast, tuple(result))
    named = sequence_by_words(words) or sequence_by_words(_words(facts.get("protocol", "")))
    measured = sequence_by_numbers(facts, image_type)
    pair = {named, measured}
    if pair in ({"T1w", "T2w"}, {"T1w", "FLAIR"}, {"T2w", "T1w"}, {"T2w", "FLAIR"}):
        result.append(f"described as {named}, but repetition, echo and inversion times are those of {measured}")
    return Description(named or measured, body, contrast, tuple(result))


def sequence_by_words(text: str) -> str:
    """Sequence family that a description names, or nothing.

    Example:
        >>> [sequence_by_words(name) for name in ("ax t2 flair", "sag t1 mprage", "loc")]
        ['FLAIR', 'T1w', '']
    """
    return next((family for family, pattern in _SEQUENCES if re.search(pattern, text)), "")


def body_part_by_words(text: str) -> str:
    """Body part that a description names, or nothing."""
    return next((part for part, pattern in _BODY_PARTS if re.search(pattern, text)), "")


def by_file_name(name: str) -> Description:
    """Description by a file name, such as ``sub-01_T1w`` or ``case3_flair``."""
    words = _words(name)
    return Description(sequence_by_words(words), body_part_by_words(words), bool(_CONTRAST.search(words)))


def sequence_by_numbers(facts: Mapping[str, str], image_type: tuple[str, ...]) -> str:
    """Sequence family by scanning sequence and by times in ms.

    Spin echo: short TR and TE make T1, long TR and TE make T2, long TR and short TE make proton density; an inversion
    pulse with a TI near the null of water makes FLAIR, near that of fat STIR. Gradient echo: a long TE makes T2*, the
    rest is T1.
    """
    kinds = set(facts.get("scanning_sequence", "").upper().split("\\"))
    tr, te, ti, b_value = (_number(facts.get(name)) for name in ("tr", "te", "ti", "b_value"))
    if "ADC" in image_type:
        return "ADC"
    if "DIFFUSION" in image_type or b_value:
        return "DWI"
    if facts.get("angio", "").upper() == "Y":
        return "TOF"
    if not tr or not te:
        return ""
    if "IR" in kinds or ti:
        if "GR" in kinds:
            return "T1w"
        if ti >= 1500:
            return "FLAIR"
        if 0 < ti <= 300:
            return "STIR"
    if "GR" in kinds and "SE" not in kinds:
        return "T2*w" if te >= 12 and tr >= 20 else "T1w"
    if kinds & {"SE", "RM", ""} and "EP" not in kinds:
        if tr <= 1200 and te <= 35:
            return "T1w"
        if tr >= 1800 and te >= 60:
            return "T2w"
        if tr >= 1800 and te <= 40:
            return "PDw"
    return ""


def _words(text: str) -> str:
    """Small letters, with underscores and hyphens as blanks, and T1post cut into two words."""
    spaced = re.sub(r"[_\-./()]+", " ", text)
    spaced = re.sub(r"(?<=[tT][12])(?=[a-zA-Z]{3})", " ", spaced)
    return re.sub(r"\s+", " ", spaced).casefold().strip()


def _body_part(facts: Mapping[str, str]) -> tuple[str, list[str]]:
    tagged = body_part_by_words(_words(facts.get("body_part", "")))
    described = [
        body_part_by_words(_words(facts.get(n, ""))) for n in ("series_description", "protocol", "study_description")
    ]
    named = next(filter(None, described), "")
    alike = not tagged or not named or tagged == named or any({tagged, named} <= alike for alike in _PARTS_ALIKE)
    if alike or "WHOLEBODY" in (tagged, named):
        return tagged or named, []
    return tagged, [f"the body part is tagged as {tagged}, but described as {named}"]


def _modality_contradictions(modality: str, sop_class: str, facts: Mapping[str, str]) -> list[str]:
    of_mr = [name for name in _OF_MR if _number(facts.get(name)) or (name == "scanning_sequence" and facts.get(name))]
    if modality == "CT" and (sop_class.startswith(_SOP_MR) or of_mr):
        return ["Modality is CT, but the tags are those of MR"]
    if modality == "MR" and (sop_class == _SOP_CT or sop_class.startswith(_SOP_CT + ".") or _number(facts.get("kvp"))):
        return ["Modality is MR, but the tags are those of CT"]
    return []


def _number(text: str | None) -> float:
    try:
        return float((text or "0").split("\\")[0])
    except ValueError:
        return 0.0
