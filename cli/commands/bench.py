"""`alignbeam bench`: what the method costs against the draft alone."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from alignbeam_local.errors import UsageError
from alignbeam_local.knobs.values import MOST_TOKENS
from alignbeam_local.paths import user_path
from alignbeam_local.result_json import json_line

from .. import session
from ..console.terminal import for_stream, is_terminal, say
from ..options import Options, with_options_but


@with_options_but("parallel", "role", "no_server", "trace")
def bench(
    *,
    prompt_tokens: Annotated[
        int,
        typer.Option(
            "--prompt-tokens", min=8, max=MOST_TOKENS, help="length of the user's text, in draft tokens"
        ),
    ] = 32,
    new_tokens: Annotated[
        int,
        typer.Option("--new-tokens", min=2, max=MOST_TOKENS, help="length of every answer; ends are ignored"),
    ] = 128,
    repeats: Annotated[
        int, typer.Option("--repeats", min=1, max=10_000, help="rounds that are measured")
    ] = 5,
    warm_up: Annotated[
        int, typer.Option("--warm-up", min=0, max=10_000, help="warm-up rounds before them")
    ] = 1,
    sweep: Annotated[
        list[str] | None,
        typer.Option(
            "--sweep", metavar="KNOB=N,N", help="also change K, N, B, prompt-tokens or new-tokens; repeatable"
        ),
    ] = None,
    parallel: Annotated[
        int,
        typer.Option("--parallel", min=1, max=64, help="also this many prompts at once"),
    ] = 1,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", parser=user_path, metavar="FILE.png", help="draw the table and the sweeps"),
    ] = None,
    options: Options,
) -> None:
    """Measure answers against the draft alone on plain llama.cpp.

    Every round runs the draft alone and each method once, in turns; ratios are taken within a round. Shown
    are medians and, in brackets, quartiles. Models are loaded and the judge's examples read before; that is
    the cold start. Nothing else should run on the machine meanwhile. `--new-tokens` takes the place of
    `--max-tokens`; `--judge-at`, `--judge-every`, `--late` and `--on-unsafe` are refused: a bench says itself
    when it judges.

    ```sh
    alignbeam bench
    alignbeam bench --draft ./my-model.gguf --repeats 9 --json > bench.json
    alignbeam bench --parallel 4
    alignbeam bench --sweep K=1,2,3 --sweep N=0,3,6,10 --plot sweeps.png
    ```
    """
    from alignbeam_local.bench.bench import run_bench
    from alignbeam_local.bench.cases import BenchPlan, Sweep

    from ..views.bench import print_report

    sweeps = tuple(map(Sweep.parse, sweep or ()))
    if plot:
        from ..views.bench_plot import draw, require_plots

        require_plots(plot)
    _refuse(options)
    prepared = session.prepare(options)
    config = prepared.settings.config.with_values({"max_tokens": new_tokens, "ignore_eos": True})
    tell = say if is_terminal(sys.stderr) and not options.quiet else _say_nothing
    with prepared.open(warm=False) as engine:
        report = run_bench(engine, BenchPlan(config, prompt_tokens, repeats, warm_up, sweeps, parallel), tell)
    if options.json:
        print(for_stream(json_line(asdict(report)), sys.stdout))
    else:
        print_report(report)
    if plot:
        draw(report, plot)


def _refuse(options: Options) -> None:
    """Raises: UsageError: a flag about what a bench decides itself."""
    if options.flags["max_tokens"] is not None:
        raise UsageError("--max-tokens does nothing here", "Give --new-tokens.")
    for knob in ("judge_at", "judge_every", "late", "on_unsafe"):
        if options.flags[knob] is not None:
            raise UsageError(
                f"--{knob.replace('_', '-')} does nothing here: a bench says itself when it judges",
                "`eval run` without --parallel, and with the method `draft`, times answers as they are.",
            )


def _say_nothing(_: str) -> None:
    pass
