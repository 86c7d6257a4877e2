"""What `alignbeam eval run --ray` does: workers make the groups, this process writes them down."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from alignbeam_local.errors import UsageError

from .. import session
from ..crew import Duty, dispatcher, with_cpus
from ..options import Options
from .run import Request, needed, planned, watched
from .watch import Watch

if TYPE_CHECKING:
    from alignbeam_local.cluster.share import Opened
    from alignbeam_local.evaluation.methods.specs import MethodSpec


def run_on_ray(request: Request, options: Options) -> None:
    """Run it, or go on with it, on the cluster that the request names.

    Raises:
        Cancelled: the user stopped it; what was made is kept.
        UsageError, ModelError, AlignBeamError: something that can't be; see the parts.
    """
    from alignbeam_local.cluster.ray_cluster import connected
    from alignbeam_local.evaluation.methods.specs import parse_methods

    prepared = session.prepare(options, as_used=None)
    assert request.ray is not None
    with connected(request.ray):
        prepared = replace(prepared, settings=with_cpus(prepared.settings))
        _make(request, parse_methods(request.methods, prepared.settings.config), prepared)


def _make(request: Request, entries: "Sequence[MethodSpec]", prepared: session.Session) -> None:
    from alignbeam_local.cancellation import Cancellation
    from alignbeam_local.cluster.wanted import WantedModel
    from alignbeam_local.evaluation.runs.run_directory import RunDirectory
    from alignbeam_local.evaluation.runs.runner import manifest
    from alignbeam_local.evaluation.workers.group_work import GroupWork
    from alignbeam_local.evaluation.workers.spread import num_groups, spread, spread_manifest, welcome

    plan, registry, options = planned(request, entries, prepared), prepared.registry, prepared.options
    about = spread_manifest(manifest(plan, registry))
    specs = dict.fromkeys(spec for entry in entries for spec in needed(entry))
    models = tuple(WantedModel.of(spec, registry) for spec in specs)
    work = GroupWork(models, registry, options.pull and not options.offline, tuple(entries))
    cancellation, watch = Cancellation(), Watch(quiet=options.quiet)
    duty = Duty(work, list(map(_opened, entries)), _threads(entries))
    directory = RunDirectory(request.out)
    with directory.opened(about) as log, cancellation.on_interrupt():
        groups = num_groups(plan, log)
        with dispatcher(
            duty,
            cancellation,
            most_workers=min(request.workers or groups, groups),
            welcome=welcome(about, directory),
            tell=watch.tell,
        ) as workers:
            watch.beside = lambda: f"{workers.num_ready} workers"
            watched(spread(plan, log, workers), plan, about, log, watch)


def _opened(entry: "MethodSpec") -> "Opened":
    """What a worker has open for a method."""
    from alignbeam_local.cluster.share import Opened
    from alignbeam_local.machine.context_size import ContextSize, context_sizes
    from alignbeam_local.roles import file_role

    config = entry.config
    cells = config.context + min(config.max_tokens, config.context)
    usual = ContextSize(1, cells, cells).times(config.parallel)
    named = {role: spec for role, spec in entry.method.models(config).items() if spec is not None}
    sizes = dict.fromkeys(named, usual) | context_sizes(config)
    files = {role: named.get(file_role(role)) for role in sizes}
    return Opened(config, {role: (file, sizes[role]) for role, file in files.items() if file is not None})


def _threads(entries: "Sequence[MethodSpec]") -> int:
    """Of all methods. Raises: UsageError: they differ: a worker's CPUs are given to it once."""
    threads: Iterator[int] = (entry.config.threads for entry in entries)
    found = set(threads)
    if len(found) > 1:
        raise UsageError("--ray: methods with different numbers of threads", "Give --threads once.")
    return found.pop()
