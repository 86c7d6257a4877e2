"""`alignbeam judge`: measure a judge on labelled pairs, and calibrate it."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from alignbeam_local.config import Config
from alignbeam_local.paths import data_dir
from alignbeam_local.registry import Registry
from alignbeam_local.settings import resolve

from .completion import model_names
from .terminal import for_stream, is_terminal, say

if TYPE_CHECKING:
    from alignbeam_local.judge import Judge
    from alignbeam_local.judge_check import Measured, Pair, Report

judge_app = typer.Typer(help="Measure and calibrate judges.", no_args_is_help=True)

JudgeName = Annotated[
    str,
    typer.Argument(
        metavar="JUDGE", help="a name, a path or hf:owner/repo/file.gguf", autocompletion=model_names
    ),
]
PairsFile = Annotated[
    Path | None,
    typer.Option("--pairs", help="JSON Lines of question, answer, label, split; default: the shipped pairs"),
]
Threshold = Annotated[str | None, typer.Option("--threshold", help="the highest score that counts as safe")]


@judge_app.command()
def check(
    judge: JudgeName,
    pairs: PairsFile = None,
    threshold: Threshold = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Show how many answers of each label a judge scores above the threshold.

    Of the shipped pairs only those count that no calibration was fitted on.

    ```sh
    alignbeam judge check qwen2.5-coder-0.5b-instruct
    alignbeam judge check ./my-judge.gguf --pairs mine.jsonl
    ```
    """
    from alignbeam_local.judge_check import PAIRS_FILE, held_out, read_pairs, report
    from alignbeam_local.judge_loading import open_judge

    wanted = read_pairs(pairs) if pairs else held_out(read_pairs(PAIRS_FILE))
    registry = Registry.load()
    config = _config(judge, threshold, registry)
    with open_judge(config, registry) as (opened, card):
        found = report(_measure(opened, wanted), opened.record, card.name, config.threshold)
    if as_json:
        print(for_stream(found.model_dump_json(), sys.stdout))
    else:
        _print(found)


@judge_app.command()
def calibrate(
    judge: JudgeName,
    pairs: PairsFile = None,
    threshold: Threshold = None,
    out: Annotated[Path | None, typer.Option("--out", help="default: in the data directory")] = None,
) -> None:
    """Fit a judge's scores to labelled pairs; where the record is in its default place the judge uses it.

    ```sh
    alignbeam judge calibrate ./my-judge.gguf
    ```
    """
    from alignbeam_local import judge_check
    from alignbeam_local.calibration import save_calibration
    from alignbeam_local.judge_loading import open_judge

    wanted = judge_check.read_pairs(pairs or judge_check.PAIRS_FILE)
    judge_check.require_splits(wanted)
    registry = Registry.load()
    config = _config(judge, threshold, registry)
    with open_judge(config, registry, calibrated=False) as (opened, card):
        measured = _measure(opened, wanted)
        record = judge_check.calibrate(measured, opened.key, card, config.threshold)
        kept = [one for one in measured if one.pair.split == "held_out"]
        found = judge_check.report(kept, record, card.name, config.threshold)
        path = out or data_dir() / "judges" / f"{card.name}.json"
        save_calibration(record, path)
    _print(found)
    say(f"written: {path}")


def _config(judge: str, threshold: str | None, registry: Registry) -> Config:
    return resolve({"judge": judge, "threshold": threshold}, registry, os.environ).config


def _measure(judge: "Judge", pairs: Sequence["Pair"]) -> "list[Measured]":
    from alignbeam_local.judge_check import measure

    console = Console(stderr=True)
    quiet = not is_terminal(sys.stderr)
    return list(track(measure(judge, pairs), "judging", len(pairs), console=console, disable=quiet))


def _print(report: "Report") -> None:
    console = Console()
    kind = "calibrated" if report.calibrated else "not calibrated"
    console.print(f"{report.judge}, {kind}, threshold {report.threshold:g}", markup=False, highlight=False)
    console.print(_shares(report), _aucs(report))


def _shares(report: "Report") -> Table:
    table = Table("label", "n", "unscored", "raw above", "above", "95 %", box=None, pad_edge=False)
    for row in report.rows:
        interval = f"{row.low:.0%} to {row.high:.0%}"
        counts = str(row.n), str(row.unscored)
        table.add_row(row.label, *counts, f"{row.raw_above:.0%}", f"{row.above:.0%}", interval)
    return table


def _aucs(report: "Report") -> Table:
    table = Table("AUC of compliance over", "raw", "score", "95 %", box=None, pad_edge=False)
    for row in report.aucs:
        interval = f"{row.low:.2f} to {row.high:.2f}"
        table.add_row(row.over, f"{row.raw:.2f}", f"{row.calibrated:.2f}", interval)
    return table
