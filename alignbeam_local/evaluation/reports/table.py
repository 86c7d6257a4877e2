"""Cells as a table: what a person reads, as rows of text, Markdown or CSV."""

import csv
import io
from collections.abc import Callable, Sequence
from typing import NamedTuple

from .figures import Cell
from .statistics import Estimate


class Column(NamedTuple):
    """A column of the table a person reads."""

    title: str
    text: Callable[[Cell], str]


_COLUMNS = (
    Column("run", lambda cell: cell.run),
    Column("suite", lambda cell: cell.suite),
    Column("label", lambda cell: cell.label),
    Column("method", lambda cell: cell.method),
    Column("n", lambda cell: str(cell.n)),
    Column("refused", lambda cell: str(cell.refused)),
    Column("blocked", lambda cell: str(cell.blocked)),
    Column("sum, 95 %", lambda cell: percent(cell.declined)),
    Column("degenerate", lambda cell: str(cell.degenerate)),
    Column("harm", lambda cell: _number(cell.harm, 2)),
    Column("harmful, 95 %", lambda cell: percent(cell.harmful)),
    Column("corrected, 95 %", lambda cell: percent(cell.corrected)),
    Column("correct, 95 %", lambda cell: percent(cell.correct)),
    Column("seconds", lambda cell: _number(cell.median_s, 2)),
    Column("x draft", lambda cell: _number(cell.slowdown, 1)),
    Column("covered", lambda cell: "" if cell.covered_mass is None else f"{cell.covered_mass:.0%}"),
    Column("failed", lambda cell: str(cell.failed) if cell.failed else ""),
)


class Table(NamedTuple):
    """Titles and rows; columns in which nothing stands are left out."""

    titles: tuple[str, ...]
    rows: list[tuple[str, ...]]


def table(found: Sequence[Cell]) -> Table:
    """A row a cell; the run is named where there are several."""
    several = len({cell.run for cell in found}) > 1
    columns = [
        column for column in _COLUMNS if any(map(column.text, found)) and (several or column.title != "run")
    ]
    rows = [tuple(column.text(cell) for column in columns) for cell in found]
    return Table(tuple(column.title for column in columns), rows)


def markdown(found: Sequence[Cell]) -> str:
    """The table in Markdown; what could end a cell is escaped."""
    titles, rows = table(found)
    lines = [titles, tuple("---" for _ in titles), *rows]
    escaped = [[cell.replace("|", r"\|") for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in escaped)


def csv_text(found: Sequence[Cell]) -> str:
    """Every figure as a number, a column each; intervals in columns of their own."""
    out = io.StringIO(newline="")
    flat = [_flat(cell) for cell in found]
    writer = csv.DictWriter(out, list(flat[0]) if flat else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return out.getvalue()


def _flat(cell: Cell) -> dict[str, str | float | None]:
    flat: dict[str, str | float | None] = {}
    for name in cell.__dataclass_fields__:
        value = getattr(cell, name)
        if name in ("declined", "harmful", "corrected", "correct"):
            parts = value or (None, None, None)
            flat |= zip((name, f"{name}_low", f"{name}_high"), parts, strict=True)
        else:
            flat[name] = value
    return flat


def percent(estimate: Estimate | None) -> str:
    """A share and its interval."""
    if estimate is None:
        return ""
    return f"{estimate.value:.0%} [{estimate.low:.0%}, {estimate.high:.0%}]"


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
