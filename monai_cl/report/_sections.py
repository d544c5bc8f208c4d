"""Sections of a report: a heading and its content, or the reason for having none."""

from __future__ import annotations

import base64
import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
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
from monai_cl.report._folders import Found, Run
from monai_cl.report._headline import headline
from monai_cl.report._invariance import invariance_tables
from monai_cl.report._label_curve import curve_details, curve_tables, curve_warnings
from monai_cl.report._neighbours import draw_neighbours
from monai_cl.report._privacy import CaseNames
from monai_cl.report._pseudo_labels import pseudo_label_picture
from monai_cl.report._results import case_table, result_tables
from monai_cl.report._safety import inside, own_picture
from monai_cl.report._slices import Viewer, viewer as slices_of
from monai_cl.report._sources import NotAvailableError, PreparedVolume, Sources
from monai_cl.report._views import draw_correspondences, two_views
from monai_cl.report._volumes import VolumeSet, case_volumes, fitting
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


def run_section(found: Found, sources: Sources) -> Section:
    """The runs, their settings, data and machines."""
    return Section("run", "What was run", tables=facts(found, sources.datalist), folded=details(found))


def curve_sections(found: Found, datalist: Path | None) -> Iterator[Section]:
    """A section for each curve of labels."""
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


def invariance_sections(found: Found) -> Iterator[Section]:
    """Invariance across sequences, where it was measured."""
    if runs := [run for run in found.of("invariance") if run.has(INVARIANCE_FILE)]:
        yield Section("invariance", "Sequence invariance", tables=invariance_tables(runs))


def evaluation_section(found: Found, show: CaseNames, volumes: bool) -> Section:
    """Scores of evaluations, with their volumes as far as they were kept."""
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


def learning_sections(found: Found) -> Iterator[Section]:
    """Losses and health of pretraining, then losses of fine-tuning."""
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


def views_section(sources: Sources, volumes: bool) -> Section:
    """Views and their correspondences, or the reason for showing none."""
    section = Section("views", "Views and their correspondences")
    try:
        section.pictures = draw_correspondences(sources)
        if volumes:
            section.volumes = two_views(sources)
    except (NotAvailableError, ValueError) as reason:
        section.remarks.append(f"Not shown: {reason}.")
    return section


def neighbours_section(sources: Sources, console: Console | None) -> Section:
    """Nearest neighbours of crops, or the reason for showing none."""
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


def weights_section(found: Found) -> Section:
    """Weights that bundles export, with the receipts of transfers."""
    section = Section("weights", "Exported weights", tables=handed_over(found))
    if not section.tables:
        section.remarks.append("No receipt was recorded and no bundle with weights was given.")
    return section


def limits_section(found: Found) -> Section:
    """Limits of the runs and of the bundles, one sentence or two a limit."""
    of_cards = dict.fromkeys(text for bundle in found.bundles for text in _of_card(bundle.folder))
    return Section("limits", "Limits", points=[*_of_runs(found), *of_cards])


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
