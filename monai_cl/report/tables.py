"""Tables of results: one form for the report, the model card and the record that both are made from."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the page of a scan has tables as well
    from monai_cl.evaluation import Interval

NOT_DEFINED = "not defined"
_NOTHING = 1e-9  # rounding in the arithmetic of scores


@dataclass(frozen=True)
class Estimate:
    """Estimate with the ends of its interval; undefined ends are ``None``.

    Attributes:
        value: The number.
        low: Lower end.
        high: Upper end.
        remark: A word that stands beside the interval, such as ``"hint"``.

    Example:
        >>> str(Estimate(0.8123, 0.79, 0.834)), str(Estimate(0.012, 0.002, 0.022, "hint"))
        ('0.812 [0.790, 0.834]', '0.012 [0.002, 0.022] (hint)')
        >>> str(Estimate(0.8123)), str(Estimate(0.024, 0.00012, 0.048, "gain"))
        ('0.812 [interval not defined]', '0.024 [0.0001, 0.048] (gain)')
    """

    value: float
    low: float | None = None
    high: float | None = None
    remark: str = ""

    @classmethod
    def of(cls, interval: Interval, remark: str = "") -> Estimate:
        """Estimate as a cell of a table, from a result of :mod:`monai_cl.evaluation`."""
        low, high = (end if math.isfinite(end) else None for end in (interval.low, interval.high))
        return cls(interval.estimate, low, high, remark)

    def __str__(self) -> str:
        digits = 3 if abs(self.value) < 10 else 1
        value = rounded(self.value, digits)
        if self.low is None or self.high is None:
            return f"{value} [interval {NOT_DEFINED}]"
        remark = f" ({self.remark})" if self.remark else ""
        return f"{value} [{rounded(self.low, digits)}, {rounded(self.high, digits)}]{remark}"


def rounded(value: float, digits: int, *, sign: str = "-") -> str:
    """Number with so many digits, with more where it would otherwise show as 0: on which side it lies is seen.

    Args:
        value: The number.
        digits: Digits after the point.
        sign: ``"+"`` to give positive ones a sign too.

    Example:
        >>> rounded(0.0004, 3), rounded(-0.00002, 1), rounded(4.04, 1, sign="+"), rounded(-1e-17, 3)
        ('0.0004', '-0.00002', '+4.0', '0.000')
    """
    if abs(value) < _NOTHING:
        value = 0.0
    elif abs(value) < 0.5 * 10**-digits:
        digits = -math.floor(math.log10(abs(value)))
    return f"{value:{sign}.{digits}f}"


def span(values: Collection[int]) -> str:
    """Smallest and largest of some numbers, in words.

    Example:
        >>> span({5}), span({3, 5, 4})
        ('5', '3 to 5')
    """
    return str(min(values)) if len(set(values)) == 1 else f"{min(values)} to {max(values)}"


Cell = str | int | float | None | Estimate


@dataclass(frozen=True)
class Table:
    """Rows under a caption.

    Attributes:
        caption: Caption of the table.
        columns: Heads of the columns.
        rows: Cells, one a column in each row; ``None`` marks a value that was not recorded.
        notes: Remarks for the reader, shown below.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(
                    f"each row of {self.caption!r} needs {len(self.columns)} cells ({', '.join(self.columns)}), "
                    f"got {len(row)}: {row}"
                )


def cell_text(cell: Cell) -> str:
    """A cell in words and figures.

    Example:
        >>> [cell_text(cell) for cell in (None, 3, 0.00012345, float("nan"), "x")]
        ['not recorded', '3', '0.0001234', 'not defined', 'x']
    """
    if cell is None:
        return "not recorded"
    if isinstance(cell, float):
        return f"{cell:.4g}" if math.isfinite(cell) else NOT_DEFINED
    return str(cell)


def is_number(cell: Cell) -> bool:
    """Return whether a cell is set flush right."""
    return isinstance(cell, (int, float, Estimate)) and not isinstance(cell, bool)


def to_json(table: Table) -> dict[str, Any]:
    """A table in plain JSON types, for :func:`from_json`."""
    rows = [[_cell_to_json(cell) for cell in row] for row in table.rows]
    content: dict[str, Any] = {"caption": table.caption, "columns": list(table.columns), "rows": rows}
    return {**content, "notes": list(table.notes)}


def from_json(content: Mapping[str, Any]) -> Table:
    """The table that :func:`to_json` wrote.

    Raises:
        ValueError: If the content is no table.
    """
    try:
        rows = tuple(tuple(_cell_from_json(cell) for cell in row) for row in content["rows"])
        notes = tuple(str(note) for note in content.get("notes", ()))
        return Table(str(content["caption"]), tuple(map(str, content["columns"])), rows, notes)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"a table needs caption, columns and rows of cells, got {str(content)[:200]}") from error


def to_markdown(table: Table) -> str:
    """A table in GitHub's Markdown, its caption above and its notes below."""
    lines = [f"**{table.caption}**", "", _markdown_row(table.columns)]
    lines.append(_markdown_row(["---:" if _is_numeric(table, index) else "---" for index in range(len(table.columns))]))
    lines += [_markdown_row([cell_text(cell) for cell in row]) for row in table.rows]
    return "\n".join([*lines, *(f"\n{note[:1].upper()}{note[1:]}." for note in table.notes)])


def _is_numeric(table: Table, column: int) -> bool:
    return bool(table.rows) and all(is_number(row[column]) or row[column] is None for row in table.rows)


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _cell_to_json(cell: Cell) -> Any:
    if isinstance(cell, Estimate):
        remark = {"remark": cell.remark} if cell.remark else {}
        return {"value": cell.value, "low": cell.low, "high": cell.high, **remark}
    return NOT_DEFINED if isinstance(cell, float) and not math.isfinite(cell) else cell


def _cell_from_json(cell: Any) -> Cell:
    if isinstance(cell, Mapping):
        return Estimate(float(cell["value"]), cell.get("low"), cell.get("high"), str(cell.get("remark", "")))
    if cell is None or isinstance(cell, (str, int, float)):
        return cell
    raise TypeError(f"a cell must be a text, a number, null or an estimate, got {cell!r}")
