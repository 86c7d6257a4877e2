"""`alignbeam doctor`: what is wrong, before anything is loaded."""

import os
import shutil
import sys
from collections.abc import Iterable
from dataclasses import asdict
from textwrap import wrap
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from alignbeam_local.config import knobs_that
from alignbeam_local.doctor.doctor import examine
from alignbeam_local.doctor.findings import Finding
from alignbeam_local.result_json import json_line

from ..console.terminal import for_stream, is_terminal, printable
from ..console.waiting import awaited
from ..options import with_knobs

_STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red"}
_LEVEL_WIDTH, _TOPIC_WIDTH, _LEAST_TEXT_WIDTH = 9, 11, 20


@with_knobs(*knobs_that("sizes"), "safety_tokens", "safety_file")
def doctor(
    *,
    knobs: dict[str, str | list[str] | None],
    verify: Annotated[bool, typer.Option("--verify", help="recompute the models' sha256")] = False,
    network: Annotated[bool, typer.Option("--network", help="ask whether the hub answers")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Check all that an answer depends on: llama.cpp, this machine, the directories, the models.

    A model that was never used here is tried out in a child process. Only --network uses the network.

    Exits with 1 if there is a problem; warnings do not count.
    """
    findings = examine(knobs, os.environ, verify=verify, network=network)
    num_problems = _print_json(findings) if as_json else _print(findings)
    if num_problems:
        raise typer.Exit(1)


def _print_json(findings: Iterable[Finding]) -> int:
    found = list(awaited("looking", findings))
    num_problems = _count_problems(found)
    report = {"ok": num_problems == 0, "findings": [asdict(finding) for finding in found]}
    print(for_stream(json_line(report), sys.stdout))
    return num_problems


def _print(findings: Iterable[Finding]) -> int:
    console, found = Console(highlight=False), []
    for finding in awaited("looking", findings):
        found.append(finding)
        if is_terminal(sys.stdout):
            console.print(_styled(finding), soft_wrap=True)
        else:
            print(_text(finding, [finding.message, finding.hint]), flush=True)
    num_problems = _count_problems(found)
    print(f"Problems to fix: {num_problems}." if num_problems else "No problems found.")
    return num_problems


def _styled(finding: Finding) -> Text:
    """Wrapped to the terminal, its level in colour."""
    width = shutil.get_terminal_size().columns - _LEVEL_WIDTH - _TOPIC_WIDTH
    lines = [
        line
        for text in (finding.message, finding.hint)
        for line in wrap(printable(text), max(width, _LEAST_TEXT_WIDTH))
    ]
    text = Text(_text(finding, lines))
    text.stylize(_STYLES[finding.level], 0, _LEVEL_WIDTH)
    return text


def _text(finding: Finding, lines: Iterable[str]) -> str:
    """Level, topic, and the lines beside them."""
    head = f"{finding.level:{_LEVEL_WIDTH}}{finding.topic:{_TOPIC_WIDTH}}"
    return head + f"\n{'':{len(head)}}".join(filter(None, lines))


def _count_problems(findings: Iterable[Finding]) -> int:
    return sum(finding.level == "problem" for finding in findings)
