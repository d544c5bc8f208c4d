"""Study of quantitative maps: subjects, the maps that all subjects have, and probe subjects."""

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai_cl.datalist import few_labels, load_datalist, subject_of
from monai_cl.io.maps.finding import find_maps, names_of_maps
from monai_cl.io.maps.fractions import FRACTION_TISSUES, find_fractions, fractions_by_tissue
from monai_cl.io.maps.names import MapNames
from monai_cl.io.suffixes import stem
from monai_cl.privacy.hidden_paths import shown
from monai_cl.qmri.maps import MAP_NAMES

logger = logging.getLogger(__name__)

HELD_OUT_SHARE = 0.1  # at most, of the subjects
_COMMON = 0.5  # share of the subjects from which a map that others lack is worth a word


def map_items(
    dataset_dir: str | os.PathLike[str],
    datalist: str | os.PathLike[str] | None = None,
    sections: str | Sequence[str] = "training",
) -> list[dict[str, Any]]:
    """Items with the files of each subject's quantitative maps.

    Args:
        dataset_dir: A folder with BIDS or hMRI names, at any depth, see :func:`find_maps`; or the folder that paths in
            the datalist start from.
        datalist: A JSON file whose items have a list of files as ``image``; every subject found when left out.
        sections: Which lists of it.

    Returns:
        Items with ``image`` (files), ``subject`` and ``case``, and with ``fractions`` where files of tissue fractions
        lie in the folder or among the files of the list, see :func:`find_fractions`. Names that are not of BIDS are
        replaced by pseudonyms, those of a datalist as :func:`~monai_cl.datalist.load_datalist` does.

    Raises:
        ValueError: If nothing is found, or an item of the datalist is no list of maps.
    """
    if datalist is None:
        names = MapNames(Path(dataset_dir))
        result = find_maps(dataset_dir)
        shares = find_fractions(dataset_dir, result)
        return [
            {"image": [names.file(path) for path in files.values()], "subject": names.subject(n), "case": names.case(n)}
            | ({"fractions": [names.file(path) for path in shares[n].values()]} if shares[n] else {})
            for n, files in result.items()
        ]
    items = load_datalist(datalist, sections, dataset_dir=dataset_dir, labelled=False)
    bare = [str(item["case"]) for item in items if not isinstance(item["image"], list)]
    if bare:
        raise ValueError(
            f"pretraining with simulated contrasts needs quantitative maps, a list of files as `image` of each item; "
            f"{len(bare)} of {len(items)} items of {datalist} have a single image, such as {', '.join(bare[:3])}. "
            "Plain MR images can be pretrained on by the bundle volume_contrast"
        )
    items = [_with_fractions_apart(item) for item in items]
    for item in items:
        names_of_maps(item["image"])  # names what is no map
    return items


def _with_fractions_apart(item: dict[str, Any]) -> dict[str, Any]:
    shares = [path for path in item["image"] if stem(path).endswith("_probseg")]
    maps = [path for path in item["image"] if path not in shares]
    return {**item, "image": maps, "fractions": shares} if shares else item


def common_maps(items: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """The maps that all subjects have, of ``pd``, ``t1``, ``t2``, ``t2_star`` and ``mtsat``; at least PD and T1.

    Raises:
        ValueError: If PD or T1 is missing for somebody, named.
    """
    have = {str(item["case"]): set(names_of_maps(item["image"])) for item in items}
    count = Counter(name for names in have.values() for name in names)
    for name in ("pd", "t1"):
        lacking = [case for case, names in have.items() if name not in names]
        if lacking:
            raise ValueError(
                f"every subject needs maps of proton density (PDmap) and T1 (T1map or R1map); {name} is missing for "
                f"{len(lacking)} of {len(have)}, such as {', '.join(lacking[:3])}: add it, or list the others alone"
            )
    for name in MAP_NAMES:
        if _COMMON * len(have) <= count[name] < len(have):
            logger.warning("%s is left out: %d of %d subjects lack it", name, len(have) - count[name], len(have))
    return tuple(name for name in MAP_NAMES if count[name] == len(have))


def common_fractions(items: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """The tissues whose fractions all subjects have, for :class:`~monai_cl.transforms.LoadMapsd`; perhaps none."""
    have = [set(fractions_by_tissue(item.get("fractions", ()))) for item in items]
    return tuple(tissue for tissue in FRACTION_TISSUES if have and all(tissue in tissues for tissues in have))


def split_subjects(
    items: Sequence[dict[str, Any]], *, count: int = 8, seed: int = 0
) -> dict[str, list[dict[str, Any]]]:
    """Items to pretrain on and items of other subjects to probe with: ``count`` of them, a tenth at most.

    Args:
        items: Items as from :func:`map_items`.
        count: Most items to probe with; 0 for none.
        seed: Seed of the choice.

    Returns:
        Lists ``"train"`` and ``"probe"``.
    """
    listed = list(items)
    count = min(count, int(HELD_OUT_SHARE * len(listed)))
    if count < 1:
        logger.info("too few subjects to probe with: only %d", len(listed))
        return {"train": listed, "probe": []}
    probe = few_labels(listed, count, seed=seed)
    chosen = {subject_of(item) for item in probe}
    return {"train": [item for item in listed if subject_of(item) not in chosen], "probe": probe}


def digest_items(items: Sequence[dict[str, Any]]) -> str:
    """SHA-256 of the file names of a study, to detect changed data when a run resumes."""
    names = sorted("/".join(Path(shown(path)).name for path in item["image"]) for item in items)
    return hashlib.sha256("\n".join(names).encode()).hexdigest()
