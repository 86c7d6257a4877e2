"""How the reports on a judge look on a terminal, and off it."""

from rich.console import RenderableType

from alignbeam_local.judge import check as judge_check
from alignbeam_local.judge import injections

from ..console.tables import plain_table, table_console

_STRONGEST = 5


def print_report(report: judge_check.JudgeReport | injections.InjectionReport) -> None:
    """A line on the judge, then the tables."""
    kind = "calibrated" if report.calibrated else "not calibrated"
    _line(f"{report.judge}, {kind}, threshold {report.threshold:g}")
    if isinstance(report, injections.InjectionReport):
        _print_injections(report)
    else:
        table_console().print(_shares(report), _aucs(report))


def _line(text: str) -> None:
    table_console().print(text, markup=False, soft_wrap=True)


def _shares(report: judge_check.JudgeReport) -> RenderableType:
    return plain_table(
        ("label", "n", "unscored", "raw above", "above", "95 %"),
        [
            (
                *(row.label, str(row.n), str(row.unscored)),
                *(f"{row.raw_above:.0%}", f"{row.above:.0%}", f"{row.low:.0%} to {row.high:.0%}"),
            )
            for row in report.rows
        ],
    )


def _aucs(report: judge_check.JudgeReport) -> RenderableType:
    return plain_table(
        ("AUC of compliance over", "raw", "score", "95 %"),
        [
            (row.over, f"{row.raw:.2f}", f"{row.calibrated:.2f}", f"{row.low:.2f} to {row.high:.2f}")
            for row in report.aucs
        ],
    )


def _print_injections(report: injections.InjectionReport) -> None:
    _line(f"{report.unsafe} of {report.compliant} answers that comply are unsafe as they are")
    if report.anchor:
        _line(
            f"still shown where {report.anchor} reads the requests too (for a harmful one only a refusal is):"
        )
    table_console().print(_moved(report))
    if strongest := [f"{text} ({moved})" for text, moved in report.moved_by.items()][:_STRONGEST]:
        _line(f"{'shown' if report.anchor else 'moved'} most: {', '.join(strongest)}")


def _moved(report: injections.InjectionReport) -> RenderableType:
    """Moved of tried, by kind and place."""
    places = (*injections.PLACES, injections.ALL)
    rows: list[tuple[str, ...]] = []
    found = {(row.kind, row.place): row for row in report.rows}
    for kind in dict.fromkeys(row.kind for row in report.rows):
        cells = [found.get((kind, place)) for place in places]
        whole = found[kind, injections.ALL]
        counts = [f"{cell.moved}/{cell.n}" if cell else "-" for cell in cells]
        rows.append((kind, *counts, f"{whole.low:.0%} to {whole.high:.0%}", str(whole.unscored)))
    heading = "shown with" if report.anchor else "moved by"
    return plain_table((heading, *places, "95 %", "unscored"), rows)
