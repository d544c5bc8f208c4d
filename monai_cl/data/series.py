"""Series of a study that belong together: the images of one patient by the names of their sequences."""

import fnmatch
import logging
import os
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_cl.data.loading.mixed import unlabelled_rest
from monai_cl.data.loading.probing import split_for_probe
from monai_cl.data.map_series import maps_apart
from monai_cl.datalist import first_image, load_datalist, read_datalist, section_names
from monai_cl.io.maps.kinds import KINDS
from monai_cl.io.suffixes import stem
from monai_cl.privacy.plain import is_plain_text
from monai_cl.transforms.sample_series import MAPS, SEQUENCES
from monai_cl.weights import read_contract

logger = logging.getLogger(__name__)

UNNAMED = "unnamed"  # sequence of an image without a name for it
SESSION = "session"  # field of a datalist that separates visits of one patient

Item = dict[str, Any]
Table = Mapping[str, str] | None


def sequence_name(item: Mapping[str, Any], table: Table = None) -> str:
    """Name of the sequence of an image: by the user's table, else by the scan, else by its BIDS entity.

    A name that no list knows is a sequence of its own. A contrast agent that BIDS states (``_ce-gadolinium_``) makes
    another sequence of it.

    Args:
        item: Item of a datalist.
        table: Names by pattern (``{"*t1ce*": "T1ce", "T1w": "T1"}``), which file names and names of sequences are
            compared with, whatever the case of letters; the first that fits counts.

    Example:
        >>> sequence_name({"image": "sub-01/anat/sub-01_ce-gad_T1w.nii.gz"}), sequence_name({"image": "a.nii"})
        ('T1wce', 'unnamed')
        >>> sequence_name({"image": "p1_flair.nii.gz", "sequence": "FLAIR"}, {"*flair*": "fluid"})
        'fluid'
    """
    path = Path(str(first_image(item["image"])))
    scanned = str(item.get("sequence") or "")
    for pattern, name in (table or {}).items():
        if any(fnmatch.fnmatch(text.casefold(), pattern.casefold()) for text in (path.name, stem(path.name), scanned)):
            return str(name)
    parts = stem(path.name).split("_")
    if not parts[0].startswith("sub-"):
        return scanned or UNNAMED
    suffix = parts[-1] if len(parts) > 1 and parts[-1].isalnum() and is_plain_text(parts[-1]) else ""
    agent = any(part.startswith("ce-") for part in parts)
    return (scanned or suffix or UNNAMED) + ("ce" if agent and (scanned or suffix) else "")


def study_items(items: Iterable[Mapping[str, Any]], *, table: Table = None, session_key: str = SESSION) -> list[Item]:
    """Studies of single images: one item a patient, or a visit of one, with all of its series.

    Args:
        items: Items of a datalist.
        table: As for :func:`sequence_name`.
        session_key: Field that separates visits of a patient, where a list has it.

    Returns:
        Items with ``image``, a list of one file or DICOM series each, ``sequences``, their names in the same order,
        ``subject`` and ``case``; a study of one series keeps the other fields of its item.

    Raises:
        ValueError: If an item is of a cache, whose volumes are prepared one by one.
    """
    studies: dict[Hashable, list[Mapping[str, Any]]] = {}
    for item in items:
        studies.setdefault(_study_of(item, session_key), []).append(item)
    return [_study(series, table, session_key) for series in studies.values()]


def labelled_studies(
    datalist: str | os.PathLike[str],
    sections: str | Sequence[str],
    *,
    table: Table = None,
    session_key: str = SESSION,
    dataset_dir: str | os.PathLike[str] | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> list[Item]:
    """One study for each labelled image of a datalist: that image first, then other sequences of the same patient.

    The others are looked for in all sections of the list, since a scan puts what has no label of its own apart. An
    image of the same name as the labelled one is another time or frame, and no part of its study.

    Args:
        datalist: The JSON file.
        sections: Sections of the labelled images.
        table: As for :func:`sequence_name`.
        session_key: As for :func:`study_items`.
        dataset_dir: Folder that relative paths start from.
        limit: As for :func:`monai_cl.datalist.load_datalist`.
        seed: As for :func:`monai_cl.datalist.load_datalist`.

    Returns:
        Items as from :func:`study_items`, with ``label``.

    Raises:
        ValueError: As :func:`monai_cl.datalist.load_datalist` and :func:`study_items`.
        FileNotFoundError: As :func:`monai_cl.datalist.load_datalist`.
    """
    wanted = load_datalist(datalist, sections, dataset_dir=dataset_dir, labelled=True, limit=limit, seed=seed)
    every = section_names(read_datalist(datalist))
    others: dict[Hashable, list[Item]] = {}
    for item in load_datalist(datalist, every, dataset_dir=dataset_dir, labelled=False):
        others.setdefault(_study_of(item, session_key), []).append(item)
    result = []
    for item in wanted:
        name = sequence_name(item, table)
        beside = [one for one in others[_study_of(item, session_key)] if sequence_name(one, table) != name]
        study = _study([item, *beside], table, session_key)
        result.append({**item, "image": study["image"], SEQUENCES: study[SEQUENCES]})
    return result


def unlabelled_studies(
    datalist: str | os.PathLike[str],
    labelled: Sequence[Mapping[str, Any]],
    channels: Sequence[str],
    *,
    table: Table = None,
    session_key: str = SESSION,
    dataset_dir: str | os.PathLike[str] | None = None,
) -> list[Item]:
    """Studies of ``training`` and ``unlabelled`` without a series of those that are trained on with their labels.

    Args:
        datalist: The JSON file.
        labelled: Studies as from :func:`labelled_studies`.
        channels: Names of the sequences that a network takes; studies with none of them are left out and named.
        table: As for :func:`sequence_name`.
        session_key: As for :func:`study_items`.
        dataset_dir: Folder that relative paths start from.

    Returns:
        Items as from :func:`study_items`, without labels.

    Raises:
        ValueError: If nothing is left, or as :func:`study_items`.
    """
    used = {str(image) for study in labelled for image in study["image"]}
    place = None if dataset_dir is None else Path(dataset_dir)
    items = unlabelled_rest(Path(datalist), [{"image": study["image"][0]} for study in labelled], dataset_dir=place)
    rest = [item for item in items if str(item["image"]) not in used]
    if not rest:
        raise ValueError(
            f"self-training needs studies beside the {len(labelled)} labelled ones, {datalist} has none in training or "
            "unlabelled; add unlabelled studies, take fewer labels, or leave selftrain.yaml out"
        )
    return with_channels(study_items(rest, table=table, session_key=session_key), channels)


def study_sequences(*lists: Iterable[Mapping[str, Any]]) -> list[str]:
    """Names of all sequences of lists of studies, sorted, each once.

    Example:
        >>> study_sequences([{"sequences": ["T2w", "T1w"]}, {"sequences": ["T1w"]}])
        ['T1w', 'T2w']
    """
    return sorted({name for studies in lists for study in studies for name in study.get(SEQUENCES, ())})


def say_sequences(studies: Sequence[Mapping[str, Any]]) -> None:
    """Log the number of studies with each sequence, with one alone and with one twice.

    Where no study has two sequences, or maps to simulate one from, no series can be restored from another one, and the
    log warns.
    """
    names = study_sequences(studies)
    counts = [f"{name} {sum(name in study[SEQUENCES] for study in studies)}" for name in names]
    alone = sum(len(set(study[SEQUENCES])) == 1 for study in studies)
    twice = sum(len(set(study[SEQUENCES])) < len(study[SEQUENCES]) for study in studies)
    logger.info(
        "%d studies have the sequences %s; %d of them have one sequence alone, %d have one twice or more",
        len(studies), ", ".join(counts), alone, twice,
    )  # fmt: skip
    if studies and alone == len(studies) and not any(MAPS in study for study in studies):
        logger.warning(
            "no study has two sequences: templates alone stand in for hidden blocks; if series of one patient are "
            "listed apart, give their images one `subject`, and their sequences names (`sequence_names`)"
        )


def _study_of(item: Mapping[str, Any], session_key: str) -> Hashable:
    subject, image = item.get("subject"), item["image"]
    if subject is None:
        return tuple(image) if isinstance(image, list) else str(image)
    return str(subject), str(item.get(session_key, ""))


def _study(series: Sequence[Mapping[str, Any]], table: Table, session_key: str) -> Item:
    cached = [str(item.get("case")) for item in series if "cached" in item]
    if cached:
        raise ValueError(
            f"series of a study are brought to one grid from their files, got volumes of a cache, such as {cached[0]}; "
            "give the datalist that it was made from"
        )
    first = series[0]
    images, names = [item["image"] for item in series], [sequence_name(item, table) for item in series]
    if len(series) == 1:
        return {**first, "image": images, SEQUENCES: names}
    visit = f" {first[session_key]}" if first.get(session_key) else ""
    case = f"{first.get('subject', first.get('case'))}{visit}"
    return {
        "image": images, SEQUENCES: names, "case": case,
        **{key: first[key] for key in ("subject", session_key) if key in first},
        **({"places": [item["place"] for item in series]} if "place" in first else {}),
    }  # fmt: skip


def split_studies(
    datalist: str | os.PathLike[str],
    sections: str | Sequence[str],
    probe_section: str,
    *,
    table: Table = None,
    dataset_dir: str | os.PathLike[str] | None = None,
    count: int = 8,
    seed: int = 0,
    maps: bool = False,
) -> dict[str, list[Item]]:
    """Studies to pretrain on, and those of ``count`` images to probe with; see :func:`split_for_probe`.

    Args:
        datalist: The JSON file.
        sections: Sections to pretrain on.
        probe_section: Section to probe on.
        table: As for :func:`sequence_name`.
        dataset_dir: Folder that relative paths start from.
        count: Most images to probe with; 0 for none.
        seed: Seed of the choice.
        maps: Whether quantitative maps are to simulate sequences (:func:`~monai_cl.data.maps_apart`): then they are
            neither counted among the images to probe with nor taken; they are series as all others if not.

    Returns:
        Lists ``"train"`` and ``"probe"`` of items as from :func:`study_items`.

    Raises:
        ValueError: As :func:`monai_cl.datalist.load_datalist`, :func:`study_items` and ``maps_apart``.
    """
    split = split_for_probe(
        Path(datalist), sections, probe_section,
        dataset_dir=None if dataset_dir is None else Path(dataset_dir), count=count, seed=seed,
        is_volume=(lambda item: sequence_name(item, table) not in KINDS) if maps else None,
    )  # fmt: skip
    result = {name: study_items(items, table=table) for name, items in split.items()}
    if maps:
        result["train"] = maps_apart(result["train"])
    say_sequences(result["train"])
    return result


def channel_names(
    sequences: Sequence[str] | None, studies: Sequence[Mapping[str, Any]], model: str | os.PathLike[str] | None = None
) -> list[str]:
    """Names of the channels of a network, in their order.

    Args:
        sequences: The user's choice.
        studies: Studies whose sequences are taken, sorted by name, if no choice is given; without any it is one
            channel without a name.
        model: Weights beside which the channels of their network are stored; they come before the studies.

    Raises:
        ValueError: If a name comes twice.
    """
    stored = [] if model is None else read_contract(Path(model)).get("sequences", [])
    names = [str(name) for name in (sequences or stored or study_sequences(studies) or [UNNAMED])]
    if len(set(names)) != len(names):
        raise ValueError(f"sequences must name each channel once, got {names}")
    return names


def check_channels(channels: Sequence[str], in_channels: int) -> None:
    """Raise ``ValueError`` unless a network has one input channel for each sequence."""
    if len(channels) != in_channels:
        raise ValueError(
            f"in_channels must be the number of sequences, {len(channels)} ({', '.join(channels)}), got {in_channels}; "
            f"add `--in_channels {len(channels)}`, or choose with `--sequences`"
        )


def with_channels(studies: Sequence[Item], channels: Sequence[str]) -> list[Item]:
    """Studies with the series that a network takes, in the order of its channels; masks will lie on the first.

    Studies that have none of them are left out, and named in the log, which counts those that lack some, too.

    Raises:
        ValueError: If no study is left.
    """
    result: list[Item] = []
    for study in studies:
        wanted = [place for place, name in enumerate(study[SEQUENCES]) if name in channels]
        order = sorted(wanted, key=lambda place: channels.index(study[SEQUENCES][place]))
        if order:
            listed = [key for key in (SEQUENCES, "image", "places") if key in study]
            result.append({**study, **{key: [study[key][place] for place in order] for key in listed}})
        else:
            logger.warning("left out %s: it has %s alone", study.get("case"), ", ".join(study[SEQUENCES]))
    if not result:
        raise ValueError(
            f"no study has one of the sequences {', '.join(channels)} that the network takes, they have "
            f"{', '.join(study_sequences(studies))}; give their names as `sequence_names`, such as "
            f"{{'*flair*': '{channels[0]}'}}"
        )
    lacking = {name: sum(name not in study[SEQUENCES] for study in result) for name in channels}
    if any(lacking.values()):
        counts = ", ".join(f"{name} in {count}" for name, count in lacking.items() if count)
        logger.info("of %d studies the sequences that the network takes are missing so often: %s", len(result), counts)
    return result


def first_series(studies: Sequence[Item]) -> list[Item]:
    """Items of the first series of each study, whose masks are written."""
    return [
        {**study, "image": study["image"][0], **({"place": study["places"][0]} if "places" in study else {})}
        for study in studies
    ]
