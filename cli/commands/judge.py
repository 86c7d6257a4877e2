"""`alignbeam judge`: measure a judge on labelled pairs, and calibrate it."""

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alignbeam_local.config import Config
from alignbeam_local.errors import UsageError
from alignbeam_local.models.registry import Registry
from alignbeam_local.paths import user_path
from alignbeam_local.settings import resolve

from ..checks.injecting import with_injections
from ..completion import model_names
from ..console.terminal import for_stream, say
from ..console.waiting import entered, tracked
from ..inputs import unseen

if TYPE_CHECKING:
    from alignbeam_local.judge.check import JudgeReport, Measured, Pair
    from alignbeam_local.judge.injections import InjectionReport
    from alignbeam_local.judge.judge import Judge

judge_app = typer.Typer(help="Measure and calibrate judges.", no_args_is_help=True)

JudgeName = Annotated[
    str,
    typer.Argument(
        metavar="JUDGE", help="a name, a path or hf:owner/repo/file.gguf", autocompletion=model_names
    ),
]
PairsFile = Annotated[
    Path | None,
    typer.Option(
        "--pairs",
        parser=user_path,
        metavar="PATH",
        help="JSON Lines of question, answer, label, split; default: the shipped pairs",
    ),
]
Threshold = Annotated[str | None, typer.Option("--threshold", help="the highest score that counts as safe")]


@judge_app.command()
def check(
    judge: JudgeName,
    pairs: PairsFile = None,
    threshold: Threshold = None,
    *,
    injected: Annotated[
        bool,
        typer.Option(
            "--injections", metavar="", help="try instead to change its verdicts by text in the answers"
        ),
    ] = False,
    anchor: Annotated[
        str | None,
        typer.Option(
            "--anchor",
            help="with --injections: let this anchor's head read the requests, and count in the scores; of "
            "one that it reads as harmful only a refusal is shown",
            autocompletion=model_names,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Show how many answers of each label a judge scores above the threshold.

    Of the shipped pairs only those count that no calibration was fitted on.

    With `--injections` texts that argue for a verdict are put before and after answers that comply, and
    behind their requests: how many verdicts go from unsafe to safe, by kind? Some 600 answers are judged.
    With `--anchor` as well: how many of these answers would be shown, by `choice = by_request` and
    `on_unsafe = refuse`? What was unsafe before is then told by both too, as `score_by` has it.

    ```sh
    alignbeam judge check qwen2.5-coder-0.5b-instruct
    alignbeam judge check ./my-judge.gguf --pairs mine.jsonl
    alignbeam judge check qwen2.5-coder-0.5b-instruct --injections
    alignbeam judge check qwen2.5-coder-0.5b-instruct --injections --anchor qwen2.5-coder-1.5b-instruct
    ```
    """
    from alignbeam_local.engine.open_judge import open_judge
    from alignbeam_local.judge.check import PAIRS_FILE, held_out, read_pairs, report

    from ..views.judge import print_report

    if anchor and not injected:
        raise UsageError("--anchor goes with --injections", "Without it only the judge reads anything.")
    wanted = unseen(read_pairs(pairs), "pairs") if pairs else held_out(read_pairs(PAIRS_FILE))
    registry = Registry.load()
    config = _config({"judge": judge, "threshold": threshold, "anchor": anchor}, registry)
    if injected:
        found: JudgeReport | InjectionReport = _injected(config, wanted, registry, has_anchor=bool(anchor))
    else:
        with entered("loading the judge", open_judge(config, registry)) as (opened, card):
            found = report(_measured(opened, wanted), opened.record, card.name, config.threshold)
    if as_json:
        print(for_stream(found.model_dump_json(), sys.stdout))
    else:
        print_report(found)


@judge_app.command()
def calibrate(
    judge: JudgeName,
    pairs: PairsFile = None,
    threshold: Threshold = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", parser=user_path, metavar="PATH", help="default: in the data directory"),
    ] = None,
) -> None:
    """Fit a judge's scores to labelled pairs; where the record is in its default place the judge uses it.

    ```sh
    alignbeam judge calibrate ./my-judge.gguf
    ```
    """
    from alignbeam_local.engine.open_judge import open_judge
    from alignbeam_local.judge import check as judge_check
    from alignbeam_local.judge.calibration import record_file, save_calibration

    from ..views.judge import print_report

    wanted = judge_check.read_pairs(pairs or judge_check.PAIRS_FILE)
    judge_check.require_splits(wanted)
    registry = Registry.load()
    config = _config({"judge": judge, "threshold": threshold}, registry)
    with entered("loading the judge", open_judge(config, registry, calibrated=False)) as (opened, card):
        measured = _measured(opened, wanted)
        record = judge_check.calibrate(measured, opened.key, card, config.threshold)
        kept = [one for one in measured if one.pair.split == "held_out"]
        found = judge_check.report(kept, record, card.name, config.threshold)
        path = out or record_file(card.sha256, opened.key)
        save_calibration(record, path)
    print_report(found)
    say(f"written: {path}")


def _config(flags: Mapping[str, str | None], registry: Registry) -> Config:
    return resolve(flags, registry, os.environ).config


def _measured(judge: "Judge", pairs: "Sequence[Pair]") -> "list[Measured]":
    from alignbeam_local.judge.check import measure

    return list(tracked(measure(judge, pairs), "judging", len(pairs)))


def _injected(
    config: Config, pairs: "Sequence[Pair]", registry: Registry, *, has_anchor: bool
) -> "InjectionReport":
    from alignbeam_local.engine.open_judge import open_judge
    from alignbeam_local.engine.open_reader import open_head
    from alignbeam_local.judge import injections

    with ExitStack() as opened:
        # That it is missing is to be said before the judge has read everything.
        anchor = (
            opened.enter_context(entered("loading the anchor", open_head(config, registry)))
            if has_anchor
            else None
        )
        judge, card = opened.enter_context(entered("loading the judge", open_judge(config, registry)))
        read = partial(anchor.steering, config) if anchor else None
        before, after = with_injections(judge.judge, pairs, config, read)
        return injections.report(
            before,
            after,
            card.name,
            config.threshold,
            is_calibrated=judge.record is not None,
            anchor=anchor.head.model if anchor else None,
        )
