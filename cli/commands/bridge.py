"""`alignbeam bridge`: can this anchor steer this draft?"""

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alignbeam_local.paths import user_path
from alignbeam_local.result_json import json_line

from ..completion import model_names
from ..console.terminal import for_stream, printable
from ..console.waiting import waiting

if TYPE_CHECKING:
    from alignbeam_local.pair.report import PairReport, TopBCoverage

_NOT_OK = 3


def bridge(
    draft: Annotated[
        str, typer.Argument(help="a name, a path or hf:owner/repo/file.gguf", autocompletion=model_names)
    ],
    anchors: Annotated[
        list[str],
        typer.Argument(metavar="ANCHOR...", help="likewise; several", autocompletion=model_names),
    ],
    bridge_width: Annotated[
        str | None,
        typer.Option(
            "--bridge-width", "-B", metavar="NUMBER", help="B: how many of the anchor's tokens are looked at"
        ),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            parser=user_path, metavar="PATH", help="JSON Lines with a prompt each, or one prompt a line"
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object an anchor")] = False,
) -> None:
    """Report on a pair before it is trusted: what crosses between the two vocabularies.

    Of several anchors each has its report. Exits with 3 if a bridge is hopeless.

    ```sh
    alignbeam bridge smollm2-135m-instruct qwen2.5-coder-0.5b-instruct
    alignbeam bridge ./my-model.gguf ./anchor.gguf --prompts mine.txt
    ```
    """
    from alignbeam_local.models.registry import Registry
    from alignbeam_local.pair.prompts_file import read_prompts
    from alignbeam_local.pair.report import PROMPTS, measure_pair
    from alignbeam_local.settings import resolve

    registry = Registry.load()
    config = resolve({"bridge_width": bridge_width}, registry, os.environ).config
    asked = read_prompts(prompts) if prompts else PROMPTS
    are_ok = True
    for number, anchor in enumerate(anchors):
        with waiting("looking at the pair") as tell:
            report = measure_pair(
                draft, anchor, registry, bridge_width=config.bridge_width, prompts=asked, tell=tell
            )
        if number and not as_json:
            print()
        print(for_stream(json_line(asdict(report)), sys.stdout) if as_json else printable(_text(report)))
        are_ok = are_ok and report.verdict_ok
    if not are_ok:
        raise typer.Exit(_NOT_OK)


def _text(report: "PairReport") -> str:
    """The verdict, what it rests on, then the figures."""
    blocks = ["\n".join([report.verdict, *report.notes]), _aligned(_rows(report))]
    if report.top:
        blocks += [_aligned(_top_rows(report.top)), _offenders(report.top)]
    return "\n\n".join(blocks)


def _rows(report: "PairReport") -> list[tuple[str, str]]:
    same = " (the same)" if report.same_vocabulary else ""
    ends = ", ".join(f"{end} -> {landed}" for end, landed in report.anchor_ends.items())
    return [
        ("draft", f"{report.draft}, {report.draft_vocabulary} tokens, {report.draft_format}"),
        ("anchor", f"{report.anchor}, {report.anchor_vocabulary} tokens{same}, {report.anchor_format}"),
        (
            "whole vocabulary",
            f"{report.single:.1%} one token, {report.multiple:.1%} several, {report.no_token:.1%} none",
        ),
        ("usual openings", f"{report.openers:.1%} one token"),
        ("ends of turn", ends or "none"),
        (
            "space prefix",
            f"draft {_yes(report.draft_space_prefix)}, anchor {_yes(report.anchor_space_prefix)}",
        ),
        ("pieces that are not text", f"{report.byte_tokens_crossed} of {report.anchor_byte_tokens} cross"),
    ]


def _top_rows(top: "TopBCoverage") -> list[tuple[str, str]]:
    return [
        ("anchor's top B", f"B = {top.width}, {top.steps} positions of {top.prompts} prompts"),
        ("tokens", f"{top.single:.1%} one token, {top.multiple:.1%} several, {top.no_token:.1%} none"),
        ("covered mass", f"{top.covered_mass:.1%}"),
    ]


def _offenders(top: "TopBCoverage") -> str:
    rows = [
        (repr(o.piece), f"{o.draft_tokens} draft tokens, {o.mass:.2%} of the mass") for o in top.offenders
    ]
    return f"Worst offenders\n{_aligned(rows)}" if rows else "Every token crosses."


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _aligned(rows: Sequence[tuple[str, str]]) -> str:
    width = max((len(name) for name, _ in rows), default=0)
    return "\n".join(f"{name:{width}}  {value}" for name, value in rows)
