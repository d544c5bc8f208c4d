"""One HTML page about a few runs: opens anywhere, asks the network for nothing, names no patient."""

from __future__ import annotations

import base64
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from zipfile import BadZipFile

from rich.console import Console
from rich.progress import track

from monai_cl.engine.drawing import COLOURS
from monai_cl.engine.save_cases import INDEX, read_cases
from monai_cl.evaluation import Curve, load_curve
from monai_cl.evaluation.sequence_invariance import INVARIANCE_FILE
from monai_cl.report._curves import draw_histories
from monai_cl.report._drawing import Picture
from monai_cl.report._facts import details, facts, handed_over
from monai_cl.report._folders import Found, Run, find
from monai_cl.report._headline import headline
from monai_cl.report._invariance import invariance_tables
from monai_cl.report._label_curve import curve_details, curve_tables, curve_warnings
from monai_cl.report._neighbours import draw_neighbours
from monai_cl.report._page import rendered, script, script_hash, write_page
from monai_cl.report._privacy import CaseNames
from monai_cl.report._pseudo_labels import pseudo_label_picture
from monai_cl.report._results import case_table, result_tables
from monai_cl.report._safety import inside, own_picture
from monai_cl.report._slices import Viewer, viewer as slices_of
from monai_cl.report._sources import NotAvailableError, PreparedVolume, Sources
from monai_cl.report._views import draw_correspondences, two_views
from monai_cl.report._volumes import VolumeSet, case_volumes, fitting, volume_viewer
from monai_cl.report.tables import Table

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Photo:
    """A PNG in the page, with a text for those who cannot see it."""

    png: bytes
    alt: str
    caption: str

    @property
    def source(self) -> str:
        """Data URI for ``src``."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode("ascii")


@dataclass
class Section:
    """Section of the page: a heading and its content, or in ``remarks`` the reason for having none."""

    name: str
    title: str
    remarks: list[str] = field(default_factory=list)
    points: list[str] = field(default_factory=list)
    photos: list[Photo] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    viewers: list[Viewer] = field(default_factory=list)
    volumes: list[VolumeSet] = field(default_factory=list)
    classes: dict[str, str] = field(default_factory=dict)
    folded: list[Table] = field(default_factory=list)
    lead: str = ""  # its sentence at the head of the report

    @property
    def empty(self) -> bool:
        """Return whether the section has nothing but the reason for being empty."""
        return not (self.points or self.photos or self.tables or self.pictures or self.viewers or self.folded)


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
        *_made("run", "What was run", lambda: [_what_was_run(result, sources)]),
        *_made("curve", "Label efficiency", lambda: _curves_of_labels(result, sources.datalist)),
        *_made("evaluation", "Evaluation", lambda: [_evaluations(result, show, viewer)]),
        *_made("invariance", "Sequence invariance", lambda: _invariance(result)),
        *_made("learning", "Losses", lambda: _learning(result)),
        *_made("views", "Views and their correspondences", lambda: [_views(sources, viewer)]),
        *_made("neighbours", "Nearest neighbours", lambda: [_neighbours(sources, console) if neighbours else off]),
        *_made("weights", "Exported weights", lambda: [_weights(result)]),
        *_made("limits", "Limits", lambda: [Section("limits", "Limits", points=_limits(result))]),
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


def _what_was_run(found: Found, sources: Sources) -> Section:
    return Section("run", "What was run", tables=facts(found, sources.datalist), folded=details(found))


def _curves_of_labels(found: Found, datalist: Path | None) -> Iterator[Section]:
    for number, run in enumerate(found.of("curve"), start=1):
        if not (run.has("curve.csv") and run.has("summary.json")):
            yield Section(f"curve-{number}", f"Label efficiency: {run.name}", ["Its tables lie elsewhere."])
            continue
        curve, remarks = _load(run.folder, datalist)
        section = Section(f"curve-{number}", f"Label efficiency: {run.name}", [*remarks, *curve_warnings(curve)])
        section.lead = headline(curve)
        section.tables, section.folded = curve_tables(curve), curve_details(curve)
        if picture := own_picture(run.folder, "curve.png"):
            alt = "Dice against the number of labels, an arm a line with its interval; the table below has the numbers."
            section.photos.append(Photo(picture, alt, "Dice against the number of labels"))
        yield section


def _load(folder: Path, datalist: Path | None) -> tuple[Curve, list[str]]:
    """Load a curve, with the reason if the datalist of the report lacks its patients."""
    try:
        return load_curve(folder, datalist=datalist), []
    except ValueError as error:
        if datalist is None:
            raise
        logger.warning("the datalist of the report is not that of %s: %s", folder, error)
        return load_curve(folder), ["The datalist given to the report does not know the cases of this curve."]


def _invariance(found: Found) -> Iterator[Section]:
    if runs := [run for run in found.of("invariance") if run.has(INVARIANCE_FILE)]:
        yield Section("invariance", "Sequence invariance", tables=invariance_tables(runs))


def _evaluations(found: Found, show: CaseNames, volumes: bool) -> Section:
    runs = found.of("evaluate")
    section = Section("evaluation", "Evaluation", tables=result_tables(runs))
    if not runs:
        section.remarks.append("No evaluation was given.")
        return section
    section.folded = [case_table(runs, metric, show) for metric in dict.fromkeys(m for run in runs for m in run.scores)]
    for run in runs:
        _add_cases(section, run, show, volumes)
    _fit(section)
    return section


def _fit(section: Section) -> None:
    """Keep the page bounded."""
    section.volumes, without = fitting(section.volumes)
    if without:
        section.remarks.append(f"{without} cases are shown in slices alone: the volumes of a page are at most 24 MB.")


def _add_cases(section: Section, run: Run, show: CaseNames, volumes: bool) -> None:
    folder = run.folder / "cases"
    kept = read_cases(folder) if inside(run.folder, folder / INDEX) else {}
    if not kept:
        section.remarks.append(f"{run.name} kept no volumes to look at (monai_cl.report.SaveCases does).")
        _add_picture(section, run, show)
        return
    section.classes = {name: COLOURS[(int(label) - 1) % len(COLOURS)] for label, name in kept["classes"].items()}
    order = ("best", "median", "worst")
    for case in sorted(kept["cases"], key=lambda case: min(map(order.index, case.roles), default=len(order))):
        dice = "Dice not defined" if case.dice is None else f"Dice {case.dice:.3f}"
        role = f"{' and '.join(case.roles)} case, " if case.roles else ""
        words = f"{run.name}: {role}{show(case.case)}, {dice}"
        try:
            section.viewers.append(slices_of(folder, case, words))
            if volumes and section.viewers[-1].depth > 1:
                section.volumes.append(case_volumes(folder, case, words))
        except (ValueError, OSError, KeyError, BadZipFile) as error:
            logger.warning("passed over %s of %s: %s", case.file, folder, error)
            section.remarks.append(f"{words}: its volumes cannot be read, the log has the reason.")


def _add_picture(section: Section, run: Run, show: CaseNames) -> None:
    picture = own_picture(run.folder, "predictions.png")
    if picture is None:
        return
    if not show.shown:  # the names of the cases are part of the picture
        section.remarks.append(f"The picture predictions.png of {run.name} carries names of cases and is left out.")
        return
    alt = f"Best, median and worst case of {run.name}: image, truth and prediction side by side."
    section.photos.append(Photo(picture, alt, run.name))


def _learning(found: Found) -> Iterator[Section]:
    for kind, title in (("pretrain", "Pretraining: loss and health"), ("train", "Fine-tuning: loss")):
        runs = [run for run in found.of(kind) if run.history]
        remarks = [] if runs else ["No run given here kept a history."]
        section = Section(kind, title, remarks, pictures=draw_histories(runs) if runs else [])
        for run in found.of(kind):
            _add_pseudo_labels(section, run)
        yield section


def _add_pseudo_labels(section: Section, run: Run) -> None:
    """Pseudo-labels of a self-training as they grew up."""
    try:
        picture = pseudo_label_picture(run)
    except (ValueError, OSError, KeyError, BadZipFile) as error:
        logger.warning("passed over the pseudo-labels of %s: %s", run.folder, error)
        section.remarks.append(f"{run.name}: the pictures of its pseudo-labels cannot be read, the log has the reason.")
        return
    if picture is None:
        return
    alt = f"Pseudo-labels of unlabelled slices in {run.name}, the same ones at several steps, the last at the right."
    section.photos.append(Photo(picture, alt, f"{run.name}: pseudo-labels as they grew up"))


def _views(sources: Sources, volumes: bool) -> Section:
    section = Section("views", "Views and their correspondences")
    try:
        section.pictures = draw_correspondences(sources)
        if volumes:
            section.volumes = two_views(sources)
    except (NotAvailableError, ValueError) as reason:
        section.remarks.append(f"Not shown: {reason}.")
    return section


def _neighbours(sources: Sources, console: Console | None) -> Section:
    section = Section("neighbours", "Nearest neighbours")
    terminal = console or Console(stderr=True)

    def watch(volumes: Iterable[PreparedVolume], total: int, title: str) -> Iterable[PreparedVolume]:
        return track(volumes, title, total=total, console=terminal, transient=True, disable=not terminal.is_terminal)

    try:
        picture, table = draw_neighbours(sources, watch)
        section.pictures, section.tables = [picture], [table]
    except (NotAvailableError, ValueError) as reason:
        section.remarks.append(f"Not shown: {reason}.")
    return section


def _weights(found: Found) -> Section:
    section = Section("weights", "Exported weights", tables=handed_over(found))
    if not section.tables:
        section.remarks.append("No receipt was recorded and no bundle with weights was given.")
    return section


def _limits(found: Found) -> list[str]:
    """One sentence or two a limit."""
    return [*_of_runs(found), *dict.fromkeys(text for bundle in found.bundles for text in _of_card(bundle.folder))]


def _of_runs(found: Found) -> list[str]:
    evaluations, curves = found.of("evaluate"), found.of("curve")
    remarks = ["For research. Not for diagnosis or treatment."]
    if evaluations and not curves:
        remarks.append(
            "This page holds no label-efficiency curve: each evaluation is of one network, from one seed and one "
            "subset of labels. They do not show whether pretraining helped."
        )
    if not evaluations and not curves:
        remarks.append("Nothing here was evaluated on unseen cases: losses alone do not show that pretraining helped.")
    silent = [run.name for run in found.of("pretrain", "train", "evaluate") if not run.record]
    if silent:
        remarks.append(f"Versions, hardware, data and times were not recorded by: {', '.join(silent)}.")
    cut = [run.name for run in found.runs if run.record.get("parts") and not run.record["parts"][-1].get("finished")]
    if cut:
        remarks.append(f"These runs had not finished when the report was made: {', '.join(cut)}.")
    resumed = [run.name for run in found.runs if len(run.record.get("parts", ())) > 1]
    if resumed:
        remarks.append(f"These runs were stopped and went on later: {', '.join(resumed)}.")
    return remarks


def _of_card(bundle: Path) -> list[str]:
    """The points under the heading "Limits" of a bundle's model card."""
    card = bundle / "docs/README.md"
    text = card.read_text(encoding="utf-8") if inside(bundle, card) else ""
    section = re.search(r"^## Limit(?:ation)?s\s*\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    points = re.split(r"^- ", section.group(1), flags=re.MULTILINE)[1:] if section else []
    return [" ".join(point.split()).replace("`", "") for point in points]


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
