"""Search for quantitative maps below a folder by their names."""

import os
from collections.abc import Sequence
from pathlib import Path

from monai_cl.io.maps.files import files_below
from monai_cl.io.maps.kinds import KINDS, NAMES, named
from monai_cl.io.maps.names import MapNames
from monai_cl.privacy.hidden_paths import HiddenPath, shown


def find_maps(folder: str | os.PathLike[str]) -> dict[str, dict[str, Path]]:
    """Find the quantitative maps below a folder by their BIDS names, or by those of the hMRI toolbox.

    Args:
        folder: A BIDS dataset, a subject, or a folder of results of the hMRI toolbox.

    Returns:
        For each subject and session, named by what precedes the suffix (``sub-01_ses-2``), its files by BIDS suffix
        (``T1map``, ``R1map``, ``T2map``, ``R2map``, ``T2starmap``, ``R2starmap``, ``PDmap``, ``MTsat``, ``TB1map``,
        ``fieldmap``), sorted.

    Raises:
        ValueError: If none exists, or two files of a subject have one suffix.

    Source:
        Suffixes: BIDS specification, quantitative MRI appendix; hMRI toolbox, file names of its results.
    """
    root = Path(folder)
    if not root.is_dir():
        raise ValueError(f"folder must be a folder with quantitative maps, got {os.fspath(folder)!r}")
    names = MapNames(root)
    result: dict[str, dict[str, Path]] = {}
    for path in files_below(root):
        subject, kind = named(path)
        if kind is None:
            continue
        files = result.setdefault(subject, {})
        if kind in files:
            raise ValueError(
                f"{names.case(subject)} must have one {kind}, got {names.file(files[kind]).shown} and "
                f"{names.file(path).shown}; give load_maps the file to use"
            )
        files[kind] = path
    if not result:
        raise ValueError(f"{root} must hold maps with BIDS suffixes {tuple(KINDS)} or hMRI names, found none")
    return {subject: dict(sorted(result[subject].items())) for subject in sorted(result)}


def maps_by_name(paths: Sequence[str | os.PathLike[str]]) -> dict[str, Path | HiddenPath]:
    """Maps of one subject by BIDS suffix, named as for :func:`find_maps`.

    Raises:
        ValueError: If a name matches no map, or two files hold one kind of map.
    """
    result: dict[str, Path | HiddenPath] = {}
    for path in paths:
        kind = named(Path(path))[1]
        if kind is None:
            raise ValueError(f"{_shown(path)} must end on a BIDS suffix of {tuple(KINDS)} or an hMRI name, such as _R1")
        if kind in result:
            raise ValueError(f"one file is needed for each kind of map, got {_shown(result[kind])} and {_shown(path)}")
        result[kind] = path if isinstance(path, HiddenPath) else Path(path)
    return result


def _shown(path: str | os.PathLike[str]) -> str:
    return Path(shown(path)).name


def names_of_maps(paths: Sequence[str | os.PathLike[str]]) -> tuple[str, ...]:
    """Channels of :func:`load_maps` that the files of one subject give, in its order."""
    present = {KINDS[kind].name for kind in maps_by_name(paths)}
    return tuple(name for name in NAMES if name in present)
