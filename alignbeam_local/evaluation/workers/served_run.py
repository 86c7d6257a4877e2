"""A run whose prompts running servers answer: what it asks of them, and that they stay what they are."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...cluster.crew import Task
from ...cluster.dispatcher import Dispatcher
from ...config import Config, knobs_that
from ...errors import AlignBeamError, UsageError
from ..methods.names import ALIGNBEAM
from ..methods.specs import MethodSpec, parse_method, spec_values
from ..runs.run_directory import Json, Log, SampleKey, differences
from ..runs.runner import Group, RunPlan, recorded, suites_about, turns_about
from ..suites.suites import Item
from .server_work import ServerPayload


@dataclass(frozen=True)
class Asked:
    """A method of such a run.

    Attributes:
        entry: its name; its groups are single prompts.
        knobs: what is asked of the servers; they know the rest.
    """

    entry: MethodSpec
    knobs: Mapping[str, Any]


def require_unbegun(items: Iterable[Item]) -> None:
    """Raises: UsageError: an answer that has begun, which servers refuse."""
    if item := next((item for item in items if item.prefill), None):
        raise UsageError(
            f"--server: the answer to {item.suite} {item.id} has begun already",
            "Run begun answers here, without --server.",
        )


def asked_methods(specs: Sequence[str], flags: Mapping[str, Any]) -> list[Asked]:
    """Methods that servers have, with the knobs that the run sets.

    Raises:
        UsageError: another method, or a knob that decides what is loaded.
    """
    return [_asked(spec, flags) for spec in specs]


def _asked(spec: str, flags: Mapping[str, Any]) -> Asked:
    if spec.partition(":")[0] != ALIGNBEAM:
        raise UsageError(f"--server: servers do not answer as {spec}", f"Their method is {ALIGNBEAM}.")
    named = [*flags, *spec_values(spec)]
    for knob in named:
        if knob in knobs_that("loads"):
            raise UsageError(f"--server: {knob} is the servers' own", "Start them with it.")
    entry = parse_method(spec, Config.of(dict(flags)).with_values({"parallel": 1}))
    values = entry.config.model_dump(mode="json")
    return Asked(entry, {name: values[name] for name in dict.fromkeys(named)})


def served_manifest(plan: RunPlan, asked: Sequence[Asked], server: Json, parallel: int) -> Json:
    """What decides the answers, as far as it is known here; `parallel`: so many are asked at once."""
    methods = {
        each.entry.name: {
            "knobs": {**each.knobs, "parallel": parallel},
            "parameters": {},
            "models": server["models"],
        }
        for each in asked
    }
    about = {name: server[name] for name in ("version", "model", "fingerprint")}
    return {
        "methods": methods,
        "suites": suites_about(plan.items),
        "seeds": list(plan.seeds),
        "server": about,
        **turns_about(plan),
    }


def require_alike(urls: Sequence[str], abouts: Sequence[Json]) -> None:
    """Raises: UsageError: two servers differ in their models, knobs or versions."""
    for url, about in zip(urls, abouts, strict=True):
        if about != abouts[0]:
            raise _unlike(url, urls[0], about, abouts[0])


def welcome(first: Json) -> Callable[[Json], None]:
    """One that comes back has to be what it was; the function raises a UsageError."""

    def greet(about: Json) -> None:
        if about != first:
            raise _unlike("a server", "at the beginning", about, first)

    return greet


def _unlike(one: str, other: str, found: Json, expected: Json) -> UsageError:
    differing = [name for name in differences(expected, found) if name != "fingerprint"] or ["knobs"]
    return UsageError(
        f"{one} and {other} are not the same: {'; '.join(differing[:5])} differ",
        "Start all servers with the same models, flags and version.",
    )


class Marks:
    """What stands for the models and knobs behind answers, which must not change on the way."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], str] = {}

    def check(self, key: SampleKey, mark: str) -> None:
        """Raises: UsageError: an answer with the same knobs came from another mark before."""
        if self._known.setdefault((key.method, key.seed), mark) != mark:
            raise UsageError(
                f"{key.suite} {key.id}: the server that answered has other models or knobs than before",
                "Start all servers with the same models, flags and version.",
            )


def served(
    plan: RunPlan, asked: Sequence[Asked], model: str, log: Log, dispatcher: Dispatcher
) -> Iterator[tuple[SampleKey, Json]]:
    """Have the samples made that the log does not hold yet, in the order in which they come.

    Raises:
        Cancelled: the user stopped it; the log is whole.
        AlignBeamError: a server refuses or fails, none is there, or one is not what it was.
    """
    groups: dict[int, Group] = {}
    marks = Marks()

    def tasks() -> Iterator[Task]:
        for each in asked:
            for group in plan.missing_groups(each.entry, log):
                ((key, item),) = group
                number = len(groups) + 1
                groups[number] = group
                payload = ServerPayload(model, item, key.seed, each.knobs, dispatcher.per_worker, plan.turns)
                yield Task(number, payload, f"{key.suite} {key.id}, {key.method}")

    for task, outcome in dispatcher.all(tasks()):
        if isinstance(outcome, AlignBeamError):
            raise outcome
        ((key, _),) = groups[task.key]
        for mark in outcome[0].pop("fingerprints"):
            marks.check(key, mark)
        yield from recorded(groups[task.key], outcome, log)
