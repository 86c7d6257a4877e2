"""What `alignbeam eval report` shows."""

import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from textwrap import wrap

from rich.console import Console

from alignbeam_local.errors import UsageError
from alignbeam_local.evaluation.reports.contrast import contrast_table, contrasts
from alignbeam_local.evaluation.reports.figures import Figure
from alignbeam_local.evaluation.reports.page import page
from alignbeam_local.evaluation.reports.statistics import JudgeError
from alignbeam_local.evaluation.reports.table import Table as Rows
from alignbeam_local.evaluation.reports.table import csv_text, markdown, markdown_text, table
from alignbeam_local.evaluation.runs.saved_runs import SavedRun
from alignbeam_local.judge.check import JudgeReport
from alignbeam_local.reading import read_text
from alignbeam_local.refusals.check import confusion, read_beginnings
from alignbeam_local.refusals.detector import declines

from ..console.tables import plain_table, table_console
from ..console.terminal import is_terminal, say

#: What a narrow terminal does without, first to last; Markdown and CSV have it all.
_DISPENSABLE = (
    "declines",
    "covered_mass",
    "blocked_before",
    "unread",
    "decisions",
    "degenerate",
    "harm",
    "slowdown",
    "median_s",
    "blocked",
    "refused",
    "label",
)
_DISPENSABLE_OF_PAIRS = ("best", "area", "difference")
_NARROWEST = 9  # cells: a title that is wrapped needs no more lines than it must


def print_report(runs: Sequence[SavedRun], figures: Sequence[Figure]) -> None:
    """A table on stdout, as wide as the terminal allows, in full in a pipe; what is partial on stderr."""
    console = table_console()
    found = _fitting(table(figures), console.width, _DISPENSABLE)
    _print_table(found, console)
    if pairs := contrasts(figures):
        console.print()
        _print_table(_fitting(contrast_table(pairs), console.width, _DISPENSABLE_OF_PAIRS), console)
    say_partial(runs)
    _say_what_declines(found)


def _print_table(found: Rows, console: Console) -> None:
    titles = found.titles
    if is_terminal(sys.stdout):
        titles = tuple(map("\n".join, map(wrap, titles, _widths(found))))
    console.print(plain_table(titles, found.rows))


def _fitting(found: Rows, width: int, dispensable: Sequence[str]) -> Rows:
    for name in dispensable:
        if sum(needed + 2 for needed in _widths(found)) <= width:
            break
        found = found.without(name)
    return found


def _widths(found: Rows) -> list[int]:
    """Cells for each column, whose title may be wrapped between words."""
    words = [(" " * _NARROWEST, *title.split()) if " " in title else (title,) for title in found.titles]
    return [max(map(len, column)) for column in map(chain, words, zip(*found.rows, strict=True))]


def say_partial(runs: Sequence[SavedRun]) -> None:
    """What of the runs is missing."""
    for run in runs:
        for note in run.partial:
            say(f"partial: {run.name}: {note}")


def _say_what_declines(found: Rows) -> None:
    """Which of two counts is which, and how wrong the second is known to be."""
    if "declines" not in found.names:
        return
    held_out = confusion((one for one in read_beginnings() if one.split == "held_out"), declines)
    say(
        "note: by phrases is the paper's string match, and counts in the share; by meaning is a detector's "
        f"count: in a test it missed {held_out.missed} of {held_out.found + held_out.missed} refusals and "
        f"took {held_out.miscalled} of {held_out.miscalled + held_out.passed} other answers for one"
    )


def report_text(form: str, runs: Sequence[SavedRun], figures: Sequence[Figure]) -> str:
    """The report as one text."""
    say_partial(runs)
    if form == "csv":
        return csv_text(figures)
    _say_what_declines(table(figures))
    match form:
        case "markdown":
            rest = contrasts(figures)
            return markdown(figures) + (f"\n{markdown_text(contrast_table(rest))}" if rest else "")
        case _:
            return page(runs, figures)


def judge_error_of(path: Path | None, runs: Sequence[SavedRun]) -> JudgeError | None:
    """A judge's error from what `judge check --json` wrote: harmless answers of all labels together.

    Raises:
        UsageError: the file can't be read, or lacks one of the two kinds, or is of another judge or threshold
            than the runs.
    """
    if path is None:
        return None
    try:
        check = JudgeReport.model_validate_json(read_text(path, "alignbeam judge check JUDGE --json"))
    except ValueError as error:
        raise UsageError(
            f"{path} is not a judge check: {error}", "alignbeam judge check JUDGE --json"
        ) from None
    rows = check.rows
    for name, threshold in sorted(set().union(*(run.judges for run in runs))):
        if (name, threshold) != (check.judge, check.threshold):
            raise UsageError(
                f"{path} is of {check.judge} at {check.threshold}, a run was judged by {name} at {threshold}",
                f"alignbeam judge check {name} --threshold {threshold} --json",
            )
    harmful = next((row for row in rows if row.label == "compliance"), None)
    harmless = [row for row in rows if row.label != "compliance"]
    if harmful is None or not harmless:
        raise UsageError(f"{path} needs answers that comply and harmless ones")
    num_harmless = sum(row.n for row in harmless)
    above = sum(row.n * row.above for row in harmless)
    return JudgeError(harmful.above, harmful.n, 1 - above / num_harmless, num_harmless)
