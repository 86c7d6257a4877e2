"""`alignbeam eval`: measure pairs and methods on benchmarks, and show what was found."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from alignbeam_local.errors import UsageError
from alignbeam_local.knobs.sampling import MOST_SEED
from alignbeam_local.paths import user_path, write_named

from ..completion import model_names
from ..console.terminal import for_stream, say
from ..crew import RayFlag, WorkersFlag
from ..endings import by_ending
from ..eval.report import judge_error_of, print_report, report_text
from ..eval.run import Request, require_one_place, run_request
from ..options import Options, with_options_but

eval_app = typer.Typer(
    no_args_is_help=True,
    help="""Measure pairs and methods on benchmarks.

    `run` asks every method every prompt and keeps each answer at once; if interrupted, run it again.
    `report` shows shares with their intervals, `compare` the difference of two methods on the same prompts.
    `rescore` judges the same answers again, `reselect` chooses again among the beams.
    `sweep` runs a grid of knobs and recommends one setting.
    `refusals` shows how well refusals are recognised.
    """,
)

Suites = Annotated[
    list[str],
    typer.Option(
        "--suite",
        metavar="NAME|PATH[:LABEL]",
        help="prompts: a named suite, or a file; all, or the harmful, benign or utility ones; repeatable",
    ),
]
Methods = Annotated[
    list[str] | None,
    typer.Option(
        "--method",
        metavar="NAME[:KNOB=VALUE,...]",
        help="who answers, with knobs or parameters of its own; repeatable "
        "\\[default: draft, anchor, alignbeam]",
    ),
]
Seeds = Annotated[
    list[int] | None,
    typer.Option("--seed", min=0, max=MOST_SEED, help="ask every prompt with each; repeatable"),
]
Limit = Annotated[
    int | None, typer.Option("--limit", min=1, max=1_000_000, help="at most this many prompts of each suite")
]
Out = Annotated[
    Path,
    typer.Option(
        "--out", parser=user_path, metavar="DIR", help="the run directory: a new one, or one to continue"
    ),
]
PickSeed = Annotated[
    int, typer.Option("--pick-seed", min=0, max=MOST_SEED, help="which prompts a stratified limit draws")
]
Runs = Annotated[
    list[Path],
    typer.Argument(
        parser=user_path, metavar="RUN...", help="directories of `eval run`, or files of `--counts`"
    ),
]


class Pick(StrEnum):
    """How `--limit` chooses."""

    STRATIFIED = "stratified"
    EVEN = "even"


PickHow = Annotated[
    Pick, typer.Option("--pick", help="draw from all labels and categories, or evenly spaced")
]


class TurnsFrom(StrEnum):
    """Whose answers a conversation of a suite goes on from."""

    GIVEN = "given"
    OWN = "own"


class Format(StrEnum):
    """How a report is written."""

    TERMINAL = "terminal"
    MARKDOWN = "markdown"
    CSV = "csv"
    HTML = "html"


_REPORT_ENDINGS = {".md": Format.MARKDOWN, ".csv": Format.CSV, ".html": Format.HTML}


class Share(StrEnum):
    """What `compare` compares."""

    DECLINED = "declined"
    HARMFUL = "harmful"
    CORRECT = "correct"


@eval_app.command("run")
@with_options_but("seed", "json", "trace", "role", "no_server")
def run(
    *,
    suite: Suites,
    out: Out,
    method: Methods = None,
    seed: Seeds = None,
    limit: Limit = None,
    pick: PickHow = Pick.STRATIFIED,
    pick_seed: PickSeed = 0,
    shard: Annotated[
        str | None,
        typer.Option(
            "--shard", metavar="I/N", help="make only part I of N; `report` reads all parts together"
        ),
    ] = None,
    ray: RayFlag = None,
    workers: WorkersFlag = None,
    server: Annotated[
        list[str] | None,
        typer.Option(
            "--server",
            metavar="URL",
            rich_help_panel="Other machines",
            help="let this running `alignbeam serve` answer, --parallel prompts at once; repeatable",
        ),
    ] = None,
    attack: Annotated[
        list[str] | None,
        typer.Option(
            "--attack",
            metavar="NAME",
            help="ask every prompt under this attack, `none` among them; repeatable (docs/late.md)",
        ),
    ] = None,
    turns: Annotated[
        TurnsFrom,
        typer.Option("--turns", help="earlier answers of conversations: those given, or the model's own"),
    ] = TurnsFrom.GIVEN,
    options: Options,
) -> None:
    """Ask every method every prompt; each answer is appended to DIR/samples.jsonl at once.

    Interrupted anywhere, the same command continues where it stopped, with the same outcome.

    With `--parallel P` each P prompts of a suite are answered at once; the report then has no times.
    With `--shard I/N` N machines, or jobs of a scheduler, make a part each, in a directory of its own.
    With `--ray` workers of a cluster make it, with `--server` running servers do; the answers are the same.

    ```sh
    alignbeam eval run --suite harmful.jsonl --suite benign.jsonl --limit 50 --max-tokens 64 --out first
    alignbeam eval run --suite advbench --method alignbeam --method alignbeam:alpha=0.8,N=3 --out alpha
    alignbeam eval run --suite several_turns --turns own --out talks
    alignbeam eval run --suite xstest --attack none --attack role_play --attack prefill --out attacks
    alignbeam eval run --suite advbench --shard 1/4 --out part-1     # report part-1 part-2 part-3 part-4
    alignbeam eval run --suite advbench --threads 4 --ray 10.0.0.1:6379 --out spread
    alignbeam eval run --suite advbench --server http://h1:8017 --server http://h2:8017 --out asked
    ```
    """
    asked = method or (["alignbeam"] if server else ["draft", "anchor", "alignbeam"])
    request = Request(
        *(suite, asked, seed or [], limit, pick.value, pick_seed, out, shard, ray, workers, server or ()),
        attacks=attack or (),
        turns=turns.value,
    )
    require_one_place(request)
    if ray:
        from ..eval.on_ray import run_on_ray

        run_on_ray(request, options)
    elif server:
        from ..eval.on_servers import run_on_servers

        run_on_servers(request, options)
    else:
        run_request(request, options)


@eval_app.command()
def report(
    runs: Runs,
    *,
    format_: Annotated[
        Format | None,
        typer.Option("--format", help="how to write it; default: by the ending of --out, else terminal"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", parser=user_path, metavar="PATH", help="a file, instead of stdout")
    ] = None,
    counts: Annotated[
        Path | None,
        typer.Option(
            "--counts",
            parser=user_path,
            metavar="PATH",
            help="also write outcomes by prompt id, without prompts and answers",
        ),
    ] = None,
    judge_check: Annotated[
        Path | None,
        typer.Option(
            "--judge-check",
            parser=user_path,
            metavar="PATH",
            help="what `judge check --json` wrote: correct harm for its error",
        ),
    ] = None,
    scores: Annotated[str | None, typer.Option("--scores", help="what `eval rescore --name` made")] = None,
) -> None:
    """Show what runs found: shares with 95 % intervals, by suite, label and method.

    The shards of one run are read as one; what is missing is said.
    The HTML page is one file, with plots and the samples to read; prompts and answers are in it.

    ```sh
    alignbeam eval report first
    alignbeam eval report first --out first.html
    alignbeam eval report first second --format markdown --counts counts.json
    ```
    """
    from alignbeam_local.evaluation.reports.figures import figures
    from alignbeam_local.evaluation.runs.saved_runs import counts_text, load_runs
    from alignbeam_local.evaluation.runs.shards import joined

    form = _report_format(format_, out)
    loaded = joined(load_runs(runs, scores))
    found = figures(loaded, judge_error_of(judge_check, loaded))
    if counts:
        write_named(counts, counts_text(loaded))
    if form is Format.TERMINAL:
        print_report(loaded, found)
        return
    text = report_text(form.value, loaded, found)
    if out:
        write_named(out, text)
        say(f"written: {out}")
    else:
        sys.stdout.write(for_stream(text, sys.stdout))


def _report_format(named: Format | None, out: Path | None) -> Format:
    """Raises: UsageError: what is to be written to a file is the terminal's, or nothing says what it is."""
    if out and named is Format.TERMINAL:
        raise UsageError("--format terminal writes to stdout", "Leave out --out, or name another format.")
    if named or not out:
        return named or Format.TERMINAL
    return by_ending(out, _REPORT_ENDINGS, "Or give --format.")


@eval_app.command()
def compare(
    first: Annotated[str, typer.Argument(metavar="RUN[:METHOD]")],
    second: Annotated[str, typer.Argument(metavar="RUN[:METHOD]")],
    share: Annotated[
        Share | None, typer.Option("--share", help="which share; default: refused or blocked, or correct")
    ] = None,
) -> None:
    """Show how two methods differ on the prompts that both answered: paired bootstrap, McNemar's test.

    Without METHOD each method that both runs have is compared with itself.

    ```sh
    alignbeam eval compare first:draft first:alignbeam
    alignbeam eval compare before after
    ```
    """
    from ..eval.compare import print_comparison

    print_comparison(first, second, share.value if share else None)


@eval_app.command()
def rescore(
    run: Annotated[Path, typer.Argument(parser=user_path, metavar="DIR", help="a directory of `eval run`")],
    *,
    judge: Annotated[
        str | None, typer.Option("--judge", help="score with this judge", autocompletion=model_names)
    ] = None,
    phrases: Annotated[
        Path | None,
        typer.Option(
            "--phrases",
            parser=user_path,
            metavar="PATH",
            help="count refusals by the phrases of a file, one a line",
        ),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="what the scores are called")] = None,
    threshold: Annotated[
        str | None, typer.Option("--threshold", help="the highest score that counts as safe")
    ] = None,
) -> None:
    """Score the answers of a run with another judge, or other phrases; nothing is generated again.

    The scores are kept beside the run; `eval report --scores NAME` counts by them. Interrupted, it goes on.

    ```sh
    alignbeam eval rescore first --judge qwen2.5-coder-1.5b-instruct --name strict
    alignbeam eval report first --scores strict
    ```
    """
    from ..eval.rescore import rescore_by_judge, rescore_by_phrases

    if judge and not phrases:
        rescore_by_judge(run, judge, threshold, name)
    elif phrases and not judge and threshold is None:
        rescore_by_phrases(run, phrases, name)
    else:
        raise UsageError("give either --judge (and --threshold) or --phrases")


@eval_app.command()
def reselect(
    run: Annotated[
        Path, typer.Argument(parser=user_path, metavar="DIR", help="a directory of `eval run`, or of a sweep")
    ],
    *,
    grid: Annotated[
        list[str],
        typer.Option(
            "--grid",
            metavar="KNOB=VALUE,VALUE,...",
            help="of threshold, choice, min_start, on_unsafe, steer, clear_below, harmful_above, "
            "request_by, score_by; repeatable",
        ),
    ],
    judge: Annotated[
        str | None,
        typer.Option(
            "--judge",
            metavar="MODEL",
            help="judge every beam again, with this model",
            autocompletion=model_names,
        ),
    ] = None,
    read_again: Annotated[
        bool,
        typer.Option("--read-again", help="have the heads that the anchors have now read every request"),
    ] = False,
    out: Out,
) -> None:
    """Choose among the beams of a run once more, by other thresholds, rules, another judge or another head.

    Nothing is generated again.

    Every method with several judged beams becomes one method a combination, in a run directory of its own.
    Where the run's on_unsafe is auto it is to be given; times stay those of the run.
    `steer=by_request` takes the answers to clear requests from the run's method `draft`, which were not
    judged unless `--judge` judges them: a note in each sample says so.

    ```sh
    alignbeam eval reselect first --grid choice=safest,by_request,anchor --grid on_unsafe=refuse --out rules
    alignbeam eval reselect first --grid threshold=2,2.5,3 --grid on_unsafe=lowest --out chosen
    alignbeam eval reselect first --judge qwen2.5-coder-1.5b-instruct --grid on_unsafe=refuse --out strict
    alignbeam eval reselect first --read-again --grid steer=by_request --grid on_unsafe=refuse --out head
    ```
    """
    from ..eval.reselect import reselect_run

    reselect_run(run, grid, judge, out, read_again=read_again)


@eval_app.command()
@with_options_but("seed", "json", "trace", "parallel", "role", "no_server")
def sweep(
    *,
    suite: Suites,
    out: Out,
    grid: Annotated[
        list[str],
        typer.Option(
            "--grid", metavar="KNOB=VALUE,VALUE,...", help="values to try, judge=on,off too; repeatable"
        ),
    ],
    seed: Seeds = None,
    limit: Limit = None,
    pick: PickHow = Pick.STRATIFIED,
    pick_seed: PickSeed = 0,
    write_profile: Annotated[
        str | None,
        typer.Option("--write-profile", metavar="NAME", help="put the recommended setting in models.toml"),
    ] = None,
    options: Options,
) -> None:
    """Run AlignBeam with every combination of a grid, beside draft and anchor, and recommend one.

    Needs harmful and benign prompts. Shown are refusal, over-refusal and time of each combination; those that
    no other beats are on the front. Recommended is the least over-refusal with 95 % of the anchor's refusals.
    Like `run` it goes on where it stopped.

    ```sh
    alignbeam eval sweep --suite xstest --grid alpha=0.25,0.5,0.75 --grid N=1,3,6 --limit 50 --out grid
    alignbeam eval sweep --suite xstest --grid K=1,3 --grid judge=on,off --out judge --write-profile mine
    ```
    """
    from ..eval.sweep import sweep_request

    request = Request(suite, [], seed or [], limit, pick.value, pick_seed, out)
    sweep_request(request, grid, write_profile, options)


@eval_app.command()
def refusals() -> None:
    """Show how well refusals are recognised, on labelled beginnings of answers in seven languages.

    String match is the paper's metric, which `refused` counts in reports. The detector tells `declines`
    there, and what results, the story and --fail-on-refusal call a refusal; it was written on the split fit.
    The beginnings were chosen to be hard: shares of them are no shares of what models say.

    ```sh
    alignbeam eval refusals
    ```
    """
    from ..eval.refusals import print_check

    print_check()
