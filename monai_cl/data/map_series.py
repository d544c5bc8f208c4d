"""Quantitative maps among the series of studies: taken apart, for sequences that are simulated from them."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from monai_cl.io.maps.kinds import KINDS
from monai_cl.qmri.maps import MAP_NAMES
from monai_cl.transforms.sample_series import MAPS, SEQUENCES

logger = logging.getLogger(__name__)

Item = dict[str, Any]


def maps_apart(studies: Sequence[Item]) -> list[Item]:
    """Studies whose quantitative maps are no series of theirs but lie under ``maps``, by BIDS suffix.

    A series is a map where its sequence bears the suffix of one (``T1map``, ``R1map``, ``PDmap``, ``R2starmap``,
    ``MTsat``, ...). Maps without one of proton density or of T1 simulate nothing and are left out; so is a study that
    has maps alone. The log counts both.

    Args:
        studies: Items as from :func:`monai_cl.data.study_items`.

    Raises:
        ValueError: If a study has a map twice or in many files, or no study has a series beside its maps.

    Example:
        >>> (study,) = maps_apart([{"image": ["a", "b", "c"], "sequences": ["T1w", "PDmap", "R1map"]}])
        >>> study
        {'image': ['a'], 'sequences': ['T1w'], 'maps': {'PDmap': 'b', 'R1map': 'c'}}
    """
    split = [_apart(study) for study in studies]
    result = [study for study in split if study["image"]]
    if studies and not result:
        raise ValueError(f"studies need a series beside their maps, got {len(studies)} studies of maps alone")
    if len(result) < len(split):
        logger.warning("left out %d of %d studies: they have maps and no series", len(split) - len(result), len(split))
    short = [study for study in result if _falls_short(study)]
    if short:
        logger.warning(
            "left out the maps of %d of %d studies, such as %s: simulation needs those of proton density (PDmap) and "
            "T1 (T1map or R1map)", len(short), len(result), short[0].get("case"),
        )  # fmt: skip
    return [_without_maps(study) if _falls_short(study) else study for study in result]


def study_maps(studies: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Maps that all studies with maps have, of ``pd``, ``t1``, ``t2``, ``t2_star`` and ``mtsat``.

    Args:
        studies: Items as from :func:`maps_apart`.

    Raises:
        ValueError: If no study has maps.

    Example:
        >>> study_maps([{"maps": {"PDmap": "a", "R1map": "b", "MTsat": "c"}}, {"maps": {"T1map": "d", "PDmap": "e"}}])
        ('pd', 't1')
    """
    have = [_channels(study) for study in studies if MAPS in study]
    if not have:
        raise ValueError(
            f"simulated sequences need studies with maps of proton density (PDmap) and T1 (T1map or R1map), none of "
            f"{len(studies)} has both; list the maps under the `subject` of the study, give names that are not of BIDS "
            "by `sequence_names`, such as {'*_R1.nii*': R1map}, or set `simulated` to 0"
        )
    result = tuple(name for name in MAP_NAMES if all(name in names for names in have))
    logger.info("%d of %d studies have maps of %s to simulate from", len(have), len(studies), ", ".join(result))
    return result


def _apart(study: Item) -> Item:
    files = {name: study["image"][place] for place, name in enumerate(study[SEQUENCES]) if name in KINDS}
    kept = [place for place, name in enumerate(study[SEQUENCES]) if name not in KINDS]
    if len(files) + len(kept) < len(study[SEQUENCES]):
        twice = [name for name in files if study[SEQUENCES].count(name) > 1]
        raise ValueError(
            f"a study must have one map of a kind, {study.get('case')} has {', '.join(twice)} twice or more; leave one "
            "in the datalist, or separate visits by `session`"
        )
    if any(isinstance(file, list) for file in files.values()):
        raise ValueError(f"a map must be one file, {study.get('case')} has one in many; convert it to NIfTI")
    if not files:
        return study
    listed = [key for key in ("image", SEQUENCES, "places") if key in study]
    return {**study, **{key: [study[key][place] for place in kept] for key in listed}, MAPS: files}


def _channels(study: Mapping[str, Any]) -> set[str]:
    return {KINDS[suffix].name for suffix in study[MAPS]}


def _falls_short(study: Mapping[str, Any]) -> bool:
    """Return whether a study has maps, but not those that a simulation needs."""
    return MAPS in study and not {"pd", "t1"} <= _channels(study)


def _without_maps(study: Item) -> Item:
    return {key: value for key, value in study.items() if key != MAPS}
