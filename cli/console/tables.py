"""Tables that fit the terminal they are printed on."""

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import IO, Any, NamedTuple

from rich.console import Console, JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

from .terminal import is_terminal, printable

_UNBOUNDED = 1_000_000  # cells; a table is only as wide as what it holds
_GAP = 2  # cells between columns
_SHORTEST = 6  # cells of what is cut


class Column(NamedTuple):
    """A column, left out where the terminal is narrower than `width` cells.

    `grows`: it gets what is left. `cuts`: its cells are cut before those of any other column.
    """

    title: str
    width: int
    cell: Callable[[Any], Text | str]
    is_number: bool = False
    grows: bool = False
    cuts: bool = False


def table_console(stream: IO[str] | None = None) -> Console:
    """Stdout, or this stream; off a terminal a row stays one line, however long."""
    out = stream or sys.stdout
    return Console(file=out, highlight=False, width=None if is_terminal(out) else _UNBOUNDED)


def table(columns: Sequence[Column], rows: Iterable[Any], width: int) -> Table:
    """Rows under the columns for which there is room; what is too long for its cell is cut."""
    shown = [column for column in columns if width >= column.width]
    cells = [[_as_text(column.cell(row)) for column in shown] for row in rows]
    _cut(shown, cells, width)
    made = _empty(expand=width < _UNBOUNDED and any(column.grows for column in shown))
    for column in shown:
        made.add_column(
            Text(column.title),
            justify="right" if column.is_number else "left",
            no_wrap=True,
            overflow="ellipsis",
            ratio=1 if column.grows else None,
        )
    for row in cells:
        made.add_row(*row)
    return made


def _cut(columns: Sequence[Column], rows: Sequence[Sequence[Text]], width: int) -> None:
    """Cut the cells of those columns that are to be cut to one length at which each row fits."""
    widths = [
        max([len(column.title), *(row[index].cell_len for row in rows)])
        for index, column in enumerate(columns)
    ]
    sides = range(len(columns))
    room = width - _GAP * (len(columns) - 1)
    room -= sum(widths[i] for i in sides if not (columns[i].cuts or columns[i].grows))
    cut = [i for i in sides if columns[i].cuts]
    longest = max((widths[i] for i in cut), default=0)
    while longest > _SHORTEST and sum(min(widths[i], longest) for i in cut) > room:
        longest -= 1
    for row in rows:
        for i in cut:
            row[i].truncate(longest, overflow="ellipsis")


def plain_table(
    titles: Sequence[str], rows: Iterable[Sequence[RenderableType]], *, figures: bool = False, names: int = 0
) -> Table:
    """Rows under their titles; on a terminal that is too narrow cells are wrapped, and nothing is cut.

    Args:
        rows: text in a cell is one line in which nothing is markup or steers the terminal.
        figures: what stands behind the first column is put to the right.
        names: so many columns at the left are never wrapped either.
    """
    made = _empty()
    for index, title in enumerate(titles):
        justify: JustifyMethod = "right" if figures and made.columns else "left"
        made.add_column(Text(title), justify=justify, no_wrap=index < names)
    for row in rows:
        made.add_row(*(Text(_one_line(cell)) if isinstance(cell, str) else cell for cell in row))
    return made


def two_columns(rows: Iterable[tuple[str, str]]) -> Table:
    """Names, and beside them what is to say of each, wrapped."""
    made = Table.grid(padding=(0, 2, 0, 0))
    made.add_column(no_wrap=True)
    made.add_column()
    for name, about in rows:
        made.add_row(Text(name), Text(about))
    return made


def _empty(*, expand: bool = False) -> Table:
    return Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="dim", expand=expand)


def _one_line(text: str) -> str:
    return " ".join(printable(text).split())


def _as_text(value: Text | str) -> Text:
    """Text in which nothing is markup."""
    return value if isinstance(value, Text) else Text(value)
