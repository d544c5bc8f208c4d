"""One HTML page about a few runs: opens anywhere, asks the network for nothing, names no patient."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

from rich.console import Console

from monai_cl.report._folders import Found, find
from monai_cl.report._page import rendered, script, script_hash, write_page
from monai_cl.report._privacy import CaseNames
from monai_cl.report._sections import (
    Photo as Photo,
    Section,
    curve_sections,
    evaluation_section,
    invariance_sections,
    learning_sections,
    limits_section,
    neighbours_section,
    run_section,
    views_section,
    weights_section,
)
from monai_cl.report._sources import Sources
from monai_cl.report._volumes import volume_viewer

logger = logging.getLogger(__name__)


def write_report(
    runs: Sequence[str | Path],
    out: str | Path = "report.html",
    *,
    title: str | None = None,
    names: bool = False,
    neighbours: bool = True,
    datalist: str | Path | None = None,
    dataset_dir: str | Path | None = None,
    date: str | None = None,
    trust: bool = False,
    viewer: bool = False,
    console: Console | None = None,
) -> Path:
    """Write the report of a few runs.

    The folders are read as data: nothing in them is run, and no link leads out of them. Parts that would need code of
    theirs are left out, and the page lists them.

    Args:
        runs: Output folders of pretraining, fine-tuning and evaluation, bundle folders with such in ``runs/``, folders
            of curves or of `monai-cl invariance`.
        out: The page.
        title: Its title; the name of the first bundle when left out.
        names: Print the names of cases. They may identify a patient, so that numbers take their place by default.
        neighbours: Look for the nearest neighbours of crops; takes a dozen volumes to be prepared and embedded.
        datalist: The datalist, where the runs have not recorded it or it was moved.
        dataset_dir: The folder its paths start from, likewise.
        date: Day of the report; today when left out.
        trust: Build recipes and networks that come with the runs, which are code, and read the volumes that a datalist
            among them names.
        viewer: Show volumes in three planes and in 3-D, too: truth beside prediction, a view beside another, with one
            crosshair. Adds 2.3 MB of niivue and at most 24 MB of volumes to the page; the slices stay.
        console: Where to show how far it is.

    Returns:
        The path of the page.

    Raises:
        FileNotFoundError: If a folder of ``runs`` or the datalist is absent.
        ValueError: If no runs are given, a folder holds none, or a file of one cannot be read.
    """
    if not runs:
        raise ValueError("a report needs at least one run; give output folders or a bundle folder")
    result = find(runs, trusted=trust)
    sources = Sources(result, *(None if path is None else Path(path) for path in (datalist, dataset_dir)))
    show = CaseNames(shown=names)
    off = Section("neighbours", "Nearest neighbours", ["Switched off."])
    sections = [
        *_made("run", "What was run", lambda: [run_section(result, sources)]),
        *_made("curve", "Label efficiency", lambda: curve_sections(result, sources.datalist)),
        *_made("evaluation", "Evaluation", lambda: [evaluation_section(result, show, viewer)]),
        *_made("invariance", "Sequence invariance", lambda: invariance_sections(result)),
        *_made("learning", "Losses", lambda: learning_sections(result)),
        *_made("views", "Views and their correspondences", lambda: [views_section(sources, viewer)]),
        *_made(
            "neighbours", "Nearest neighbours", lambda: [neighbours_section(sources, console) if neighbours else off]
        ),
        *_made("weights", "Exported weights", lambda: [weights_section(result)]),
        *_made("limits", "Limits", lambda: [limits_section(result)]),
    ]
    absent = [f"{section.title}: {' '.join(section.remarks)}" for section in sections if section.empty]
    absent += _not_read(result)
    sections = [section for section in sections if not section.empty]
    sections += [Section("absent", "Not in this report", points=absent)] if absent else []
    heading = title or next((str(bundle.metadata.get("name")) for bundle in result.bundles), "Report")
    return write_page(out, _render(heading, sections, date or _today()))


def _made(name: str, title: str, make: Callable[[], Iterable[Section]]) -> list[Section]:
    """Sections, or the reason if files hold anything else than our commands write."""
    try:
        return list(make())
    except (TypeError, KeyError, IndexError, AttributeError, ArithmeticError, RecursionError) as error:
        logger.warning("%s cannot be made: %r", title, error)
        return [
            Section(name, title, [f"Cannot be made from these files ({type(error).__name__}), the log has the reason."])
        ]


def _not_read(found: Found) -> Iterator[str]:
    for run in found.runs:
        if run.elsewhere:
            yield f"{run.name}: links out of the folder are not followed ({', '.join(run.elsewhere)})."
        if run.unread:
            yield f"{run.name}: {', '.join(run.unread)} cannot be read without running what is in it, or is damaged."


def _render(title: str, sections: Sequence[Section], date: str) -> str:
    slices = script("slices.js")
    return rendered(
        "report.html.j2",
        title=title,
        sections=sections,
        date=date,
        version=version("monai_cl"),
        leads=_leads(sections),
        script=slices,
        script_hash=script_hash(slices),
        viewer=volume_viewer() if any(section.volumes for section in sections) else None,
    )


def _leads(sections: Sequence[Section]) -> list[str]:
    """Opening sentences of the report, each with the name of its curve if several exist."""
    leads = [(section.title, section.lead) for section in sections if section.lead]
    return [f"{title}: {lead}" if len(leads) > 1 else lead for title, lead in leads]


def _today() -> str:
    return datetime.now(timezone.utc).date().isoformat()
