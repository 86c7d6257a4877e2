"""What `alignbeam eval run` does: a plan from its options, then the run with its progress."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from alignbeam_local.errors import UsageError

from .. import session
from ..console.terminal import say
from ..crew import refuse_workers
from ..options import Options
from .items import suite_items
from .watch import Watch

if TYPE_CHECKING:
    from alignbeam_local.evaluation.methods.specs import MethodSpec
    from alignbeam_local.evaluation.runs.run_directory import Json, Log, SampleKey
    from alignbeam_local.evaluation.runs.runner import RunPlan
    from alignbeam_local.evaluation.runs.shard import Shard
    from alignbeam_local.evaluation.runs.talks import Turns
    from alignbeam_local.evaluation.suites.sampling import Pick


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
    ray: str | None = None
    workers: int | None = None
    servers: Sequence[str] = ()
    attacks: Sequence[str] = ()
    turns: "Turns" = "given"


def run_request(request: Request, options: Options) -> None:
    """Run it, or go on with it, and say what is still missing.

    Raises:
        Cancelled: the user stopped it; what was made is kept.
        UsageError, ModelError: something that can't be; see the parts.
    """
    from alignbeam_local.evaluation.methods.specs import parse_methods

    prepared = session.prepare(options, as_used=None)
    execute(request, parse_methods(request.methods, prepared.settings.config), prepared)


def require_one_place(request: Request) -> None:
    """Raises: UsageError: two things that each say where a part of the run is made."""
    refuse_workers(request.ray, request.workers)
    given = {"--ray": request.ray, "--server": request.servers, "--shard": request.shard}
    places = [flag for flag, value in given.items() if value]
    if len(places) > 1:
        raise UsageError(f"{places[0]} and {places[1]} both say where it is made", "Give one of them.")


def execute(request: Request, entries: "Sequence[MethodSpec]", prepared: session.Session) -> None:
    """Make all samples of these arms that the run directory does not hold yet. Raises: as `run_request`."""
    from alignbeam_local.cancellation import Cancellation
    from alignbeam_local.evaluation.methods.model_pool import ModelPool
    from alignbeam_local.evaluation.runs.run_directory import RunDirectory
    from alignbeam_local.evaluation.runs.runner import manifest, run

    plan = planned(request, entries, prepared)
    about = manifest(plan, prepared.registry)
    cancellation = Cancellation()
    pool = ModelPool(prepared.registry, cancellation, session.open_engine)
    with RunDirectory(request.out).opened(about) as log, closing(pool), cancellation.on_interrupt():
        watched(run(plan, log, pool), plan, about, log, Watch(quiet=prepared.options.quiet))


def planned(request: Request, entries: "Sequence[MethodSpec]", prepared: session.Session) -> "RunPlan":
    """All that is to be made, its models on this machine. Raises: as `run_request`."""
    from alignbeam_local.evaluation.runs.shard import Shard

    shard = Shard.of(request.shard) if request.shard else None
    plan = plan_of(request, entries, prepared, shard)
    prepared.provide(dict.fromkeys(spec for entry in entries for spec in needed(entry)))
    return plan


def plan_of(
    request: Request,
    entries: "Sequence[MethodSpec]",
    prepared: session.Session,
    shard: "Shard | None" = None,
) -> "RunPlan":
    """All that is to be made, whoever has the models. Raises: as `run_request`."""
    from alignbeam_local.evaluation.runs.runner import RunPlan

    seeds = list(dict.fromkeys(request.seeds)) or [prepared.settings.config.seed]
    for seed in seeds:  # one that is out of range is said before anything is written
        prepared.settings.config.with_values({"seed": seed})
    return RunPlan(
        entries,
        suite_items(
            request.suites,
            request.limit,
            how=request.pick,
            pick_seed=request.pick_seed,
            attacks=request.attacks,
            offline=prepared.options.offline,
        ),
        seeds,
        shard,
        request.turns,
    )


def watched(
    samples: "Iterator[tuple[SampleKey, Json]]", plan: "RunPlan", about: "Json", log: "Log", watch: Watch
) -> None:
    """Run to the end, and say what is still missing. Raises: as the samples do."""
    if log.done:
        say(f"going on: {len(log.done)} of {len(plan)} samples are there")
    try:
        watch.over(samples, len(log.done), len(plan))
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


def needed(entry: "MethodSpec") -> Iterator[str]:
    """The models and adapters that an arm loads."""
    models = entry.method.models(entry.config)
    yield from filter(None, models.values())
    if "draft" in models:
        yield from (adapter.file for adapter in entry.config.adapters)
