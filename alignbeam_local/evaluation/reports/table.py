"""Cells as a table: what a person reads, as rows of text, Markdown or CSV."""

import csv
import io
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..suites.attacks import split_suite
from .figures import Figure
from .statistics import Estimate


class ReportColumn(NamedTuple):
    """A column of the table a person reads: its name, what stands above it, and a cell."""

    name: str
    title: str
    text: Callable[[Figure], str]


_COLUMNS = (
    ReportColumn("run", "run", lambda figure: figure.run),
    ReportColumn("suite", "suite", lambda figure: split_suite(figure.suite)[0]),
    ReportColumn("attack", "attack", lambda figure: split_suite(figure.suite)[1]),
    ReportColumn("label", "prompts", lambda figure: figure.label),
    ReportColumn("method", "method", lambda figure: figure.method),
    ReportColumn("n", "answers", lambda figure: str(figure.n)),
    ReportColumn("refused", "refused, by phrases", lambda figure: str(figure.refused)),
    ReportColumn(
        "declines",
        "refused, by meaning",
        lambda figure: "" if figure.declines is None else str(figure.declines),
    ),
    ReportColumn("blocked", "blocked", lambda figure: str(figure.blocked)),
    ReportColumn(
        "blocked_before",
        "of them before anything was generated",
        lambda figure: str(figure.blocked_before) if figure.blocked_before else "",
    ),
    ReportColumn("declined", "refused or blocked [95 % interval]", lambda figure: percent(figure.declined)),
    ReportColumn(
        "decisions",
        "requests read as clear / doubtful / harmful",
        lambda figure: "" if figure.read_clear is None else _decisions(figure),
    ),
    ReportColumn("degenerate", "empty or repetitive", lambda figure: str(figure.degenerate)),
    ReportColumn("harm", "mean harm (1 to 5)", lambda figure: _number(figure.harm, 2)),
    ReportColumn("harmful", "judged harmful [95 % interval]", lambda figure: percent(figure.harmful)),
    ReportColumn(
        "unread",
        "harmless whatever it said, unread",
        lambda figure: str(figure.unread) if figure.unread else "",
    ),
    ReportColumn(
        "corrected",
        "harmful, judge's error removed [95 % interval]",
        lambda figure: percent(figure.corrected),
    ),
    ReportColumn("correct", "solved [95 % interval]", lambda figure: percent(figure.correct)),
    ReportColumn("median_s", "median seconds", lambda figure: _number(figure.median_s, 2)),
    ReportColumn("slowdown", "times the draft's seconds", lambda figure: _number(figure.slowdown, 1)),
    ReportColumn(
        "covered_mass",
        "anchor's probability that crossed",
        lambda figure: "" if figure.covered_mass is None else f"{figure.covered_mass:.0%}",
    ),
    ReportColumn("failed", "failed", lambda figure: str(figure.failed) if figure.failed else ""),
)


class Table(NamedTuple):
    """Columns by name, their titles, and rows; columns in which nothing stands are left out."""

    names: tuple[str, ...]
    titles: tuple[str, ...]
    rows: list[tuple[str, ...]]

    def without(self, name: str) -> "Table":
        """The same without a column, if it is there."""
        kept = [index for index, own in enumerate(self.names) if own != name]
        names, titles, *rows = (
            tuple(line[index] for index in kept) for line in (self.names, self.titles, *self.rows)
        )
        return Table(names, titles, rows)


def table(found: Sequence[Figure]) -> Table:
    """A row a cell; the run is named where there are several."""
    several = len({figure.run for figure in found}) > 1
    columns = [
        column for column in _COLUMNS if any(map(column.text, found)) and (several or column.name != "run")
    ]
    rows = [tuple(column.text(figure) for column in columns) for figure in found]
    return Table(tuple(column.name for column in columns), tuple(column.title for column in columns), rows)


def markdown(found: Sequence[Figure]) -> str:
    """The table in Markdown."""
    return markdown_text(table(found))


def markdown_text(found: Table) -> str:
    """A table in Markdown; what could end a cell is escaped."""
    _, titles, rows = found
    lines = [titles, tuple("---" for _ in titles), *rows]
    escaped = [[" ".join(figure.replace("|", r"\|").splitlines()) for figure in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in escaped)


def csv_text(found: Sequence[Figure]) -> str:
    """Every figure as a number, a column each; intervals in columns of their own."""
    out = io.StringIO(newline="")
    flat = [_flat(figure) for figure in found]
    for lately in ("declines", "read_clear", "read_doubtful", "read_harmful", "attack"):
        if all(
            row[lately] is None for row in flat
        ):  # counts that are older, requests that nobody read or attacked
            flat = [{name: value for name, value in row.items() if name != lately} for row in flat]
    writer = csv.DictWriter(out, list(flat[0]) if flat else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return out.getvalue()


def _flat(figure: Figure) -> dict[str, str | float | None]:
    flat: dict[str, str | float | None] = {}
    suite, attack = split_suite(figure.suite)
    for name in figure.__dataclass_fields__:
        value = suite if name == "suite" else getattr(figure, name)
        if name in ("declined", "harmful", "corrected", "correct"):
            parts = value or (None, None, None)
            flat |= zip((name, f"{name}_low", f"{name}_high"), parts, strict=True)
        else:
            flat[name] = value
    return flat | {"attack": attack or None}


def _decisions(figure: Figure) -> str:
    return f"{figure.read_clear} / {figure.read_doubtful} / {figure.read_harmful}"


def percent(estimate: Estimate | None) -> str:
    """A share and its interval."""
    if estimate is None:
        return ""
    return f"{estimate.value:.0%} [{estimate.low:.0%}, {estimate.high:.0%}]"


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
