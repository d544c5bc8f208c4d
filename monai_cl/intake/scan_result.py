"""Result of a scan, for the terminal and for the summary page."""

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.table import Table
from rich.text import Text

from monai_cl._files import printable
from monai_cl.datalist import beside_datalist
from monai_cl.intake._findings import Item, LeftOut


@dataclass(frozen=True)
class ScanResult:
    """Result of a scan.

    Args:
        folder: The scanned folder, or what several have in common.
        datalist: The written datalist.
        exclusions: The written list of what was left out.
        sections: Items by section.
        left_out: Files that do not enter the datalist, with the reason.
        notes: Notes on files worth a look, with their paths.
        other_files: Number of files that are no volumes (texts, pictures, tables).
        shown_folder: The folder as it may be printed.
        pictures: PNG of the middle slice by the path of the image.
    """

    folder: Path = field(repr=False)
    datalist: Path
    exclusions: Path
    sections: Mapping[str, Sequence[Item]]
    left_out: Sequence[LeftOut]
    notes: Mapping[str, Sequence[str]]
    other_files: int = 0
    shown_folder: str = ""
    pictures: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    @property
    def counts(self) -> dict[str, int]:
        """Number of items by section."""
        return {section: len(items) for section, items in self.sections.items()}

    @property
    def reasons(self) -> dict[str, int]:
        """Number of series, or files of no series, that were left out, by reason."""
        return dict(sorted(Counter(entry.reason for entry in self.left_out).items()))

    @property
    def next_command(self) -> str:
        """Commands that hold out a validation if labels lack one, copy a bundle and pretrain on the datalist."""
        bundle = "my_bundle"
        hidden = self.shown_folder not in ("", self.folder.as_posix())
        folder = "THE_SCANNED_FOLDER" if hidden else str(self.folder)
        datalist, lines = self.datalist, []
        if self._can_hold_out():
            words = ["monai-cl", "curate", str(datalist), "--dataset-dir", folder, "--hold-out", "0.2"]
            lines.append(f"{shlex.join(words)}  # a fifth of the patients, to validate on")
            datalist = beside_datalist(datalist, ".curated.json")
        modalities = {str(item.get("modality", "")) for items in self.sections.values() for item in items}
        method, overlays = ("global_local_contrast", ["dense"]) if modalities == {"MR"} else ("volume_contrast", [])
        unsure = "" if modalities <= {"CT", "MR"} and len(modalities) == 1 else "  # CT; for MR global_local_contrast"
        lines.append(f"monai-cl bundles copy {method} {bundle}{unsure}")
        words = ["python", "-m", "monai.bundle", "run", "--bundle_root", bundle]
        words += ["--config_file", _listed([f"{bundle}/configs/{name}.yaml" for name in ("pretrain", *overlays)])]
        words += ["--dataset_dir", folder, "--datalist", str(datalist)]
        return "\n".join([*lines, f"{shlex.join(words)} --recipe NAME  # one of `monai-cl recipes`"])

    def _can_hold_out(self) -> bool:
        """Return whether several patients have labels to train on, and none to validate on."""
        labelled = {str(item["subject"]) for item in self.sections.get("training", ()) if item.get("label")}
        return len(labelled) > 1 and not self.sections.get("validation")

    def table(self) -> Table:
        """The counts as a table for the terminal."""
        table = Table(title=_text(f"Scan of {self.shown_folder or self.folder}"), title_justify="left")
        table.add_column("what")
        table.add_column("count", justify="right")
        table.add_column("which", overflow="fold")
        for section, items in self.sections.items():
            subjects = len({str(item["subject"]) for item in items})
            table.add_row(_text(section), str(len(items)), f"{subjects} subject{'s'[: subjects > 1]}" if items else "")
        table.add_section()
        for reason, count in self.reasons.items():
            entries = [entry.shown for entry in self.left_out if entry.reason == reason]
            table.add_row(_text(f"left out: {reason}", style="yellow"), str(count), _text(_some(entries)))
        for text, paths_noted in self.notes.items():
            table.add_row(_text(f"note: {text}"), str(len(paths_noted)), _text(_some(list(dict.fromkeys(paths_noted)))))
        if self.other_files:
            table.add_row("other files, passed over", str(self.other_files), "")
        return table


def _listed(files: Sequence[str]) -> str:
    """Config files as MONAI's command line takes them."""
    return files[0] if len(files) == 1 else str(list(files))


def _some(paths: Sequence[str], shown: int = 3) -> str:
    more = f" and {len(paths) - shown} more" if len(paths) > shown else ""
    return ", ".join(paths[:shown]) + more


def _text(text: str, style: str = "") -> Text:
    """The text as a terminal may show it, which is no markup."""
    return Text(printable(text), style=style)
