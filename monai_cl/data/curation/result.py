"""Result of curating a study."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.table import Table
from rich.text import Text

from monai_cl.data.curation.duplicates import Pair
from monai_cl.data.curation.entries import Entry
from monai_cl.data.curation.leaks import Leak


@dataclass(frozen=True)
class CurationResult:
    """Result of curating a study.

    Args:
        datalist: The filtered datalist; ``None`` for a dry run.
        table_file: The CSV of kept and dropped; ``None`` for a dry run.
        entries: Every volume in the order of the study.
        pairs: Duplicates, as indices into ``entries``.
        leaks: Volumes and patients shared by pretraining and held-out sections, or by the two lists.
        thresholds: Kept slices by threshold.
        method: How slices were compared.
        threshold: The threshold applied.
        median_distance: Median distance of neighbouring slices in bits, for the hash.
    """

    datalist: Path | None
    table_file: Path | None
    entries: Sequence[Entry]
    pairs: Sequence[Pair]
    leaks: Sequence[Leak]
    thresholds: Mapping[float, int]
    method: str
    threshold: float
    total_slices: int
    median_distance: float | None = None
    slice_spacing: Sequence[float] = field(default_factory=tuple)

    def table(self) -> Table:
        """Kept and dropped volumes by reason."""
        table = Table("volumes", "count", title="Curation", title_justify="left")
        table.add_row("kept", str(sum(not entry.reason for entry in self.entries)))
        for reason, count in sorted(Counter(entry.reason for entry in self.entries if entry.reason).items()):
            table.add_row(Text(f"dropped: {reason}", style="yellow"), str(count))
        table.add_section()
        for kind, what in (
            ("exact", "exact duplicates"),
            ("near", "near duplicates"),
            ("part", "parts of another"),
            ("alike", "alike, both kept"),
        ):
            table.add_row(f"pairs: {what}", str(sum(pair.kind == kind for pair in self.pairs)))
        table.add_row("groups (a patient, or joined by duplicates)", str(len({entry.group for entry in self.entries})))
        table.add_row("shared with held-out volumes", str(len(self.leaks)))
        return table

    def threshold_table(self) -> Table:
        """Number of slices that each threshold would keep."""
        spacing = sorted(self.slice_spacing)
        caption = f"{self.total_slices} slices"
        if spacing:
            caption += f", {spacing[0]:.3g} to {spacing[-1]:.3g} mm apart"
        if self.median_distance is not None:
            caption += f", neighbours differ by {self.median_distance:.0f} of 64 bits in the median"
        table = Table(title=f"Slices kept by method {self.method}: {caption}", title_justify="left")
        for head in ("threshold", "kept", "share"):
            table.add_column(head, justify="right")
        for threshold, kept in self.thresholds.items():
            mark_used = " <- used" if threshold == self.threshold else ""
            share = 100 * kept / max(self.total_slices, 1)
            table.add_row(f"{threshold:g}", str(kept), f"{share:.0f} %{mark_used}")
        return table
