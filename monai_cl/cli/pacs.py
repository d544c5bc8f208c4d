"""Verbs on picture archives: pull, push."""

from pathlib import Path
from typing import Annotated, Any

import typer

from monai_cl._locks import alone_with
from monai_cl.cli._console import console

_CREDENTIALS = (
    "Credentials come from the environment alone: MONAI_CL_PACS_USER and MONAI_CL_PACS_PASSWORD, or "
    "MONAI_CL_PACS_TOKEN; MONAI_CL_PACS_CERT and MONAI_CL_PACS_KEY are files of our own certificate and its key, for "
    "servers that ask for it; MONAI_CL_PACS_CA is a file of certificates to trust. TLS is always checked."
)
_TIMEOUT = typer.Option(help="Seconds to wait for an answer.", min=0.1)
_RETRIES = typer.Option(help="Further attempts where the server is away or busy.", min=0, max=10)


def pull(
    server: Annotated[str, typer.Argument(help="Root of DICOMweb, as https://HOST:PORT/dicom-web.")],
    out: Annotated[Path, typer.Argument(help="Folder of the clinic: the files name patients as the PACS does.")],
    patient: Annotated[str | None, typer.Option(help="Patient ID; * and ? stand for anything.")] = None,
    study: Annotated[str | None, typer.Option(help="Study Instance UID.")] = None,
    series: Annotated[str | None, typer.Option(help="Series Instance UID.")] = None,
    accession: Annotated[str | None, typer.Option(help="Accession number.")] = None,
    date: Annotated[str | None, typer.Option(help="Study date, 20240131, or a range, 20240101-20240630.")] = None,
    modality: Annotated[str | None, typer.Option(help="Modality of the series, such as CT or MR.")] = None,
    description: Annotated[str | None, typer.Option(help="Series description, such as *T1*.")] = None,
    limit: Annotated[int | None, typer.Option(help="Studies at most.", min=1)] = None,
    timeout: Annotated[float, _TIMEOUT] = 30.0,
    retries: Annotated[int, _RETRIES] = 3,
) -> None:
    """Get series from a PACS by DICOMweb; the same command goes on where it ended, and counts what it could not get.

    The files name patients as the PACS does, and their folder must stay in the clinic; `monai-cl scan` makes a study
    of it in which nobody is named.
    """
    from rich.progress import Progress

    from monai_cl.io.pacs.pull import pull as pull_series
    from monai_cl.io.pacs.web import WebServer

    asked = {
        "PatientID": patient,
        "StudyInstanceUID": study,
        "SeriesInstanceUID": series,
        "AccessionNumber": accession,
        "StudyDate": date,
        "Modality": modality,
        "SeriesDescription": description,
    }
    filters = {keyword: value for keyword, value in asked.items() if value}
    if not filters:
        raise ValueError("choose the series to pull, by --patient, --study, --date, --modality or another filter")
    source = WebServer(server, timeout=timeout, retries=retries)
    with alone_with(out / "pull"), Progress(console=console, transient=True) as bar:
        task = bar.add_task("instances", total=None)
        result = pull_series(
            source, out, filters=filters, limit=limit, progress=lambda now: bar.update(task, completed=now.got)
        )
    console.print(result.summary(), soft_wrap=True)
    _end(result.stopped, complete=result.complete)
    console.print(f"next: monai-cl scan {out} --out study.json", soft_wrap=True)


def push(
    server: Annotated[
        str, typer.Argument(help="https://HOST:PORT/dicom-web (STOW), or dimses://AE@HOST:PORT (C-STORE).")
    ],
    files: Annotated[list[Path], typer.Argument(help="DICOM files, such as masks of --format dicom_seg, or folders.")],
    incomplete: Annotated[
        bool, typer.Option("--incomplete", help="Store masks of series that the server has in part or not at all.")
    ] = False,
    title: Annotated[str, typer.Option(help="Our AE title, for C-STORE; dimse:// is without TLS.")] = "MONAI_CL",
    timeout: Annotated[float, _TIMEOUT] = 30.0,
    retries: Annotated[int, _RETRIES] = 3,
) -> None:
    """Store DICOM objects, such as masks, in a PACS; the same command goes on where it ended."""
    from monai_cl.io.pacs.dimse import DimseStore
    from monai_cl.io.pacs.push import WebStore, push as push_files
    from monai_cl.io.pacs.web import WebServer

    store: Any
    if server.startswith("dimse"):
        store = DimseStore(server, title=title, timeout=timeout, retries=retries)
    else:
        store = WebStore(WebServer(server, timeout=timeout, retries=retries))
    result = push_files(store, files, incomplete=incomplete)
    console.print(result.summary(), soft_wrap=True)
    for line in result.refusals():
        console.print(line, soft_wrap=True, markup=False, highlight=False)
    _end(result.stopped, complete=result.complete)


def _end(stopped: str, *, complete: bool) -> None:
    """Report an early end of a transfer, and end the process with an error."""
    if stopped:
        raise RuntimeError(f"{stopped}; nothing is half written, the same command goes on")
    if not complete:
        raise typer.Exit(code=1)


for _verb in (pull, push):
    _verb.__doc__ = f"{_verb.__doc__}\n\n    {_CREDENTIALS}"
