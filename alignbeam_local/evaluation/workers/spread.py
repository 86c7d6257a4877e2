"""A run whose groups are made by workers elsewhere; only this process writes to its directory."""

from collections.abc import Callable, Iterator

from ...cluster.builds import require_same_builds
from ...cluster.crew import Task
from ...cluster.dispatcher import Dispatcher
from ...errors import AlignBeamError, ModelError
from ..runs.run_directory import WORKERS, Json, Log, RunDirectory, SampleKey, differences
from ..runs.runner import Group, RunPlan, questions, recorded

#: What a manifest says of a worker.
_NAMED = ("node", "machine", "version", "llama_cpp")


def spread_manifest(manifest: Json) -> Json:
    """A manifest whose machine is that of nobody in particular: workers are added as they come."""
    return {name: value for name, value in manifest.items() if name != "machine"} | {WORKERS: {}}


def welcome(manifest: Json, directory: RunDirectory) -> Callable[[Json], None]:
    """What a new worker has to be: of the same builds, with the same models and records. It is noted.

    The function raises a UsageError or a ModelError to refuse it.
    """

    def greet(about: Json) -> None:
        require_same_builds(about)
        found = list(differences(manifest["methods"], about["methods"]))
        if found:
            raise ModelError(
                f"its models or what is known of them differ: {'; '.join(found[:3])}",
                "Give all machines the same files, and the same records of judges and heads.",
            )
        directory.add_worker({name: about[name] for name in _NAMED if name in about})

    return greet


def spread(plan: RunPlan, log: Log, dispatcher: Dispatcher) -> Iterator[tuple[SampleKey, Json]]:
    """Make the samples that the log does not hold yet, in the order in which they come.

    Raises:
        Cancelled: the user stopped it; the log is whole.
        AlignBeamError: a method can't run, or no worker can work.
    """
    groups: dict[int, Group] = {}
    for task, outcome in dispatcher.all(_tasks(plan, log, groups)):
        if isinstance(outcome, AlignBeamError):
            raise outcome
        yield from recorded(groups.pop(task.key), outcome, log)


def _tasks(plan: RunPlan, log: Log, groups: dict[int, Group]) -> Iterator[Task]:
    """One after the other, method by method: models are opened as seldom as can be."""
    key = 0
    for place, entry in enumerate(plan.entries):
        for group in plan.missing_groups(entry, log):
            key += 1
            groups[key] = group
            named = f"{group[0][0].suite} {group[0][0].id}, {entry.name}"
            yield Task(key, (place, plan.turns, questions(group)), named)


def num_groups(plan: RunPlan, log: Log) -> int:
    """How many groups are to be made."""
    return sum(len(plan.missing_groups(entry, log)) for entry in plan.entries)
