"""Tables on stdout: one home; a row is one line in a pipe."""

import ast
from pathlib import Path

import pytest
from alignbeam_local.cli.console import tables
from alignbeam_local.cli.views import judge as judge_view
from rich.console import Console

from alignbeam_local.judge.check import Auc, JudgeReport, LabelRow

CLI = Path(tables.__file__).parents[1]
LABEL = "[/b] " + "refusal " * 20


def imports_of(file: Path) -> set[str]:
    nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
    return {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}


def test_tables_are_made_in_one_place() -> None:
    makers = {file.name for file in CLI.rglob("*.py") if "rich.table" in imports_of(file)}
    assert makers == {"tables.py", "board.py"}, "a live view's grid is no table"


def test_a_report_on_a_judge_is_one_line_a_row_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        LabelRow.model_construct(label=LABEL, n=1, unscored=0, raw_above=0.5, above=0.5, low=0.1, high=0.9)
    ]
    aucs = [Auc.model_construct(over=LABEL, raw=0.5, calibrated=0.5, low=0.1, high=0.9)]
    report = JudgeReport(judge="j", calibrated=False, threshold=3, rows=[], aucs=[])
    judge_view.print_report(report.model_copy(update={"rows": rows, "aucs": aucs}))
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if LABEL.strip() in line]
    assert [line[-3:] for line in lines] == [["10%", "to", "90%"], ["0.10", "to", "0.90"]]


def test_a_narrow_terminal_cuts_no_figure() -> None:
    console = Console(width=30)
    with console.capture() as captured:
        row = ("K=1", *["1.00 [1.00, 1.00]"] * 2)
        console.print(tables.plain_table(("name", "one by one", "at once"), [row], figures=True))
    assert captured.get().split().count("[1.00,") == captured.get().split().count("1.00]") == 2


def test_a_growing_column_ends_with_its_text_in_a_pipe() -> None:
    columns = [tables.Column("text", 0, str, grows=True)]
    console = Console(width=tables.table_console().width)
    with console.capture() as captured:
        console.print(tables.table(columns, ["a b"], console.width))
    assert max(map(len, captured.get().splitlines())) < 10
