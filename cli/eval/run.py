"""What `alignbeam eval run` does: a plan from its options, then the run with its progress."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from alignbeam_local.errors import UsageError

from .. import session
from ..console.terminal import is_terminal, printable, say
from ..options import Options

if TYPE_CHECKING:
    from alignbeam_local.evaluation.methods.specs import MethodSpec
    from alignbeam_local.evaluation.runs.run_directory import Json, Log, SampleKey
    from alignbeam_local.evaluation.runs.runner import RunPlan
    from alignbeam_local.evaluation.runs.talks import Turns
    from alignbeam_local.evaluation.suites.sampling import Pick
    from alignbeam_local.evaluation.suites.suites import Item


@dataclass(frozen=True)
class Request:
    """What the command's own options said; without seeds the knob's counts."""

    suites: Sequence[str]
    methods: Sequence[str]
    seeds: Sequence[int]
    limit: int | None
    pick: "Pick"
    pick_seed: int
    out: Path
    shard: str | None = None
    attacks: Sequence[str] = ()
    turns: "Turns" = "given"


def run_request(request: Request, options: Options) -> None:
    """Run it, or go on with it, and say what is still missing.

    Raises:
        Cancelled: the user stopped it; what was made is kept.
        UsageError, ModelError: something that can't be; see the parts.
    """
    from alignbeam_local.evaluation.methods.specs import parse_methods

    prepared = session.prepare(options)
    execute(request, parse_methods(request.methods, prepared.settings.config), prepared)


def _items(request: Request, *, offline: bool) -> "list[Item]":
    from alignbeam_local.evaluation.suites.attacks import attacked
    from alignbeam_local.evaluation.suites.hub import hub_fetch
    from alignbeam_local.evaluation.suites.sampling import pick
    from alignbeam_local.evaluation.suites.suites import load_suite

    chosen: list[Item] = []
    for spec in request.suites:
        items = load_suite(spec, hub_fetch(offline=offline))
        if any(items[0].suite == item.suite for item in chosen):
            raise UsageError(
                f"two suites are called {items[0].suite}",
                "Rename one of the files; of one file give a single label, or none for all of it.",
            )
        picked = pick(items, request.limit, request.pick, request.pick_seed)
        chosen += attacked(picked, request.attacks)
    return chosen


def execute(request: Request, entries: "Sequence[MethodSpec]", prepared: session.Session) -> None:
    """Make all samples of these arms that the run directory does not hold yet. Raises: as `run_request`."""
    from alignbeam_local.cancellation import Cancellation
    from alignbeam_local.evaluation.methods.model_pool import ModelPool
    from alignbeam_local.evaluation.runs.run_directory import RunDirectory
    from alignbeam_local.evaluation.runs.runner import RunPlan, manifest, run
    from alignbeam_local.evaluation.runs.shard import Shard

    seeds = list(dict.fromkeys(request.seeds)) or [prepared.settings.config.seed]
    for seed in seeds:  # one that is out of range is said before anything is written
        prepared.settings.config.with_values({"seed": seed})
    shard = Shard.of(request.shard) if request.shard else None
    plan = RunPlan(entries, _items(request, offline=prepared.options.offline), seeds, shard, request.turns)
    prepared.provide(dict.fromkeys(spec for entry in entries for spec in _needed(entry)))
    about = manifest(plan, prepared.registry)
    cancellation = Cancellation()
    pool = ModelPool(prepared.registry, cancellation, session.open_engine)
    with RunDirectory(request.out).opened(about) as log, closing(pool), cancellation.on_interrupt():
        if log.done:
            say(f"going on: {len(log.done)} of {len(plan)} samples are there")
        try:
            _watch(run(plan, log, pool), len(log.done), len(plan), quiet=prepared.options.quiet)
        finally:
            for note in _missing(plan, about, log):
                say(f"partial: {note}")


def _missing(plan: "RunPlan", about: "Json", log: "Log") -> list[str]:
    """What the run has not made yet; a shard lacks what is the others'."""
    from alignbeam_local.evaluation.runs.run_directory import partial_notes

    if plan.shard is None:
        return partial_notes(about, ((key.method, key.suite) for key in log.done))
    done, whole = len(log.done), len(plan)
    return [f"shard {plan.shard}: {done} of {whole} samples"] if done < whole else []


def _needed(entry: "MethodSpec") -> Iterator[str]:
    """The models and adapters that an arm loads."""
    models = entry.method.models(entry.config)
    yield from filter(None, models.values())
    if "draft" in models:
        yield from (adapter.file for adapter in entry.config.adapters)


def _watch(samples: "Iterator[tuple[SampleKey, Json]]", done: int, total: int, *, quiet: bool) -> None:
    """Run to the end; a line with the time left on a terminal."""
    columns = (MofNCompleteColumn(), BarColumn(bar_width=20), TimeElapsedColumn(), TextColumn("left:"))
    bar = Progress(
        *columns,
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
        console=Console(stderr=True, highlight=False),
        disable=quiet or not is_terminal(sys.stderr),
        redirect_stdout=False,
        redirect_stderr=False,
    )
    with bar:
        task = bar.add_task("", total=total, completed=done)
        for key, sample in samples:
            bar.update(task, advance=1, description=printable(f"{key.method} · {key.suite}"))
            if error := sample.get("error"):
                message = f"{key.suite} {key.id}, {key.method}: {error['message']}"
                bar.console.print(printable(message), markup=False)
