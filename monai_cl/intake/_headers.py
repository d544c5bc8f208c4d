"""Reading the headers of many files in threads, with memory that does not grow with their number."""

import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from monai_cl._cores import threads as allowed_threads
from monai_cl.intake._concealment import Concealer
from monai_cl.intake._findings import Findings
from monai_cl.intake._slice_store import SliceStore
from monai_cl.intake.decathlon import DATASET_JSON
from monai_cl.io.dicom import SliceHeader, is_dicom, read_slice_headers
from monai_cl.io.errors import UnusableImageError
from monai_cl.io.grid import Grid, read_grid, read_itk_grid
from monai_cl.io.streams import not_regular
from monai_cl.io.suffixes import is_itk, is_nifti

_BLOCK = 1024  # files whose headers are in memory at a time
_DICOM_SUFFIXES = (".dcm", ".ima", ".dicom")
_OTHER_VOLUMES = (
    *(".mgz", ".mgh", ".mnc", ".hdr", ".img", ".img.gz", ".par", ".rec", ".v", ".npy", ".mif"),
    *(".nii.bz2", ".nii.xz", ".nii.zst"),
)
_ARCHIVES = (
    *(".zip", ".7z", ".rar", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst"),
    *(".dcm.gz", ".ima.gz", ".dicom.gz", ".nrrd.gz", ".mha.gz"),
)
_Found = Grid | list[SliceHeader] | UnusableImageError | None


@dataclass
class Files:
    """Files of a folder by kind; DICOM slices are in the store."""

    grids: dict[str, Grid] = field(default_factory=dict)
    unusable: dict[str, str] = field(default_factory=dict)
    listings: list[str] = field(default_factory=list)
    other: int = 0


def read_files(
    folder: Path,
    paths: Iterable[str],
    store: SliceStore,
    concealer: Concealer,
    findings: Findings,
    *,
    workers: int | None,
    console: Console | None,
) -> Files:
    """Read the header of each file, in the order of the paths.

    Args:
        folder: Folder that the paths are relative to.
        paths: Files, perhaps more than memory holds.
        store: Takes the slices.
        concealer: Collects words of headers that name persons.
        findings: Receives what cannot be used.
        workers: Number of threads.
        console: Where to show progress.
    """
    files = Files()
    for path, result in _read(folder, paths, workers, console):
        if isinstance(result, Grid):
            files.grids[path] = result
        elif isinstance(result, list):
            if (person := result[0].person) is not None:
                concealer.learn(person)
            store.add(result)
        elif isinstance(result, UnusableImageError):
            files.unusable[path] = result.reason
            if result.person is not None:
                concealer.learn(result.person)
            findings.leave_out([path], result.reason, result.detail)
            if not is_nifti(path) and not is_itk(path) and not path.lower().endswith(_ARCHIVES):
                store.count_file(path)
        elif os.path.basename(path) == DATASET_JSON:
            files.listings.append(path)
            files.other += 1
        else:
            files.other += 1
    return files


def _read(
    folder: Path, paths: Iterable[str], workers: int | None, console: Console | None
) -> Iterator[tuple[str, _Found]]:
    threads = workers or min(16, 2 * allowed_threads())
    paths = iter(paths)
    columns = (SpinnerColumn(), TextColumn("reading headers: {task.completed:,.0f} files"), TimeElapsedColumn())
    with (
        warnings.catch_warnings(),
        ThreadPoolExecutor(threads) as pool,
        Progress(*columns, console=console, transient=True, disable=console is None) as progress,
    ):
        # Readers warn about malformed values and quote them: a quoted value may name a patient.
        warnings.simplefilter("ignore")
        task = progress.add_task("", total=None)
        while block := list(islice(paths, _BLOCK)):
            yield from zip(block, pool.map(_inspector(folder), block), strict=True)
            progress.advance(task, len(block))


def _inspector(folder: Path) -> Callable[[str], _Found]:
    return lambda path: _inspect(folder, path)


def _inspect(folder: Path, path: str) -> _Found:
    """Read the header of a file; ``None`` for a file that is no volume."""
    source = folder / path
    as_dicom = source.suffix.lower() in _DICOM_SUFFIXES
    named = is_nifti(path) or is_itk(path) or as_dicom or source.name == DATASET_JSON
    try:
        if not source.is_file():  # opening a pipe would wait for ever
            return not_regular() if named or source.exists() else None
        if is_nifti(path):
            return read_grid(source)
        if is_itk(path):
            return read_itk_grid(source, root=folder)
        if source.stat().st_size == 0:
            return UnusableImageError("zero bytes", "the file is empty; copy it again") if as_dicom else None
        if is_dicom(source):
            by_link = source.is_symlink()
            return [replace(header, path=Path(path), by_link=by_link) for header in read_slice_headers(source)]
    except UnusableImageError as error:
        return error
    except PermissionError:
        return UnusableImageError("unreadable", "no permission to open the file; ask its owner")
    except OSError as error:
        return UnusableImageError("unreadable", f"{type(error).__name__}: the file cannot be opened")
    except Exception as error:  # one odd file must not end the scan of all; its text may quote a header
        return UnusableImageError("unreadable", f"no reader knows what to make of it ({type(error).__name__})")
    if as_dicom:
        return UnusableImageError("unreadable", "named as DICOM, but without a DICOM header")
    if path.lower().endswith(_OTHER_VOLUMES):
        return UnusableImageError("format that scan does not read", "convert it to NIfTI")
    if path.lower().endswith(_ARCHIVES):
        return UnusableImageError("archive", "images in it are not read; unpack it and scan again")
    return None
