"""Tables that fit the terminal they are printed on."""

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .terminal import is_terminal

_UNBOUNDED = 1_000_000  # cells; a table is only as wide as what it holds


class Column(NamedTuple):
    """A column, left out where the terminal is narrower than `width` cells; `grows`: it gets what is left."""

    title: str
    width: int
    cell: Callable[[Any], Text | str]
    is_number: bool = False
    grows: bool = False


def table_console() -> Console:
    """Stdout; off a terminal a row stays one line, however long."""
    return Console(highlight=False, width=None if is_terminal(sys.stdout) else _UNBOUNDED)


def table(columns: Sequence[Column], rows: Iterable[Any], width: int) -> Table:
    """Rows under the columns for which there is room; what is too long for its cell is cut."""
    shown = [column for column in columns if width >= column.width]
    expand = any(column.grows for column in shown)
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", expand=expand)
    for column in shown:
        made.add_column(
            Text(column.title),
            justify="right" if column.is_number else "left",
            no_wrap=True,
            overflow="ellipsis",
            ratio=1 if column.grows else None,
        )
    for row in rows:
        made.add_row(*(_as_text(column.cell(row)) for column in shown))
    return made


def two_columns(rows: Iterable[tuple[str, str]]) -> Table:
    """Names, and beside them what is to say of each, wrapped."""
    made = Table.grid(padding=(0, 2, 0, 0))
    made.add_column(no_wrap=True)
    made.add_column()
    for name, about in rows:
        made.add_row(Text(name), Text(about))
    return made


def _as_text(value: Text | str) -> Text:
    """Text in which nothing is markup."""
    return value if isinstance(value, Text) else Text(value)
