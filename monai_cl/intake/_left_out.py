"""The table of what a scan has left out: one row a series, or a file that belongs to none."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from monai_cl._files import atomic_write
from monai_cl.intake._findings import LeftOut
from monai_cl.privacy.quoting import Quoting

COLUMNS = ("series", "path", "files", "reason", "detail")


def one_a_series(left_out: Iterable[LeftOut]) -> list[LeftOut]:
    """Entries in order of their reasons and paths, the files of a series with the same reason as one entry.

    Example:
        >>> from monai_cl.intake._findings import LeftOut
        >>> files = [LeftOut((f"{name}.dcm",), "cut short", f"{name} ends early", series="s") for name in "ab"]
        >>> [(entry.paths, entry.detail) for entry in one_a_series(files)]
        [(('a.dcm', 'b.dcm'), 'a ends early; 1 more file of this series alike')]
    """
    rows: list[LeftOut] = []
    of_series: dict[tuple[str, str], list[LeftOut]] = {}
    for entry in left_out:
        if entry.series:
            of_series.setdefault((entry.series, entry.reason), []).append(entry)
        else:
            rows.append(entry)
    rows += [_joined(sorted(entries, key=lambda entry: entry.paths)) for entries in of_series.values()]
    return sorted(rows, key=lambda entry: (entry.reason, entry.paths))


def _joined(entries: Sequence[LeftOut]) -> LeftOut:
    first = entries[0]
    if len(entries) == 1:
        return first
    paths = tuple(path for entry in entries for path in entry.paths)
    files = sum(entry.count for entry in entries)
    more = files - first.count
    alike = Quoting(f"{more} more file{'s'[: more > 1]} of this series alike")
    detail = Quoting("{}; {}", first.detail, alike) if first.detail else alike
    return LeftOut(paths, first.reason, detail, first.mentions, first.series, files)


def write_left_out(path: Path, left_out: Iterable[LeftOut]) -> None:
    """Write the table: series, directory or first file, number of files, reason and detail."""
    with (
        atomic_write(path) as temporary,
        open(temporary, "w", encoding="utf-8", errors="backslashreplace", newline="") as stream,
    ):
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows((one.series, one.paths[0], one.count, one.reason, one.detail) for one in left_out)
