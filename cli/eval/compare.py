"""What `alignbeam eval compare` shows."""

from typing import NamedTuple

from rich.text import Text

from alignbeam_local.errors import UsageError
from alignbeam_local.evaluation.reports.compare import Measure, compare
from alignbeam_local.evaluation.reports.table import percent
from alignbeam_local.evaluation.runs.metrics import Scored
from alignbeam_local.evaluation.runs.saved_runs import load_runs
from alignbeam_local.paths import user_path

from ..console.tables import Column, table, table_console
from ..console.terminal import printable

_COLUMNS = (
    Column("suite", 0, lambda d: d.suite),
    Column("label", 0, lambda d: d.label),
    Column("share", 125, lambda d: d.measure),
    Column("prompts", 0, lambda d: str(d.n), is_number=True),
    Column("first", 0, lambda d: f"{d.first:.0%}", is_number=True),
    Column("second", 0, lambda d: f"{d.second:.0%}", is_number=True),
    Column("difference, 95 %", 0, lambda d: percent(d.difference)),
    Column("only first", 115, lambda d: "" if d.only_first is None else str(d.only_first), is_number=True),
    Column("only second", 115, lambda d: "" if d.only_second is None else str(d.only_second), is_number=True),
    Column("p", 0, lambda d: "" if d.p is None else f"{d.p:.3g}", is_number=True),
    Column("x time", 135, lambda d: "" if d.slowdown is None else f"{d.slowdown:.1f}", is_number=True),
)


class Side(NamedTuple):
    """One side of a comparison: a run, and the method that was named of it."""

    name: str
    samples: dict[str, list[Scored]]  # by method
    method: str | None


def print_comparison(first: str, second: str, measure: Measure | None) -> None:
    """The differences of one pair of methods, or of each method that both runs have.

    Raises:
        UsageError: a run that can't be read, a method that it does not have, nothing in common.
    """
    console = table_console()
    one, other = _side(first), _side(second)
    for here, there in _pairs(one, other):
        found = compare(one.samples[here], other.samples[there], measure)
        title = f"second: {there} of {other.name}; first: {here} of {one.name}"
        console.print(Text(printable(title)), table(_COLUMNS, found, console.width))


def _side(spec: str) -> Side:
    """RUN[:METHOD], or COUNTS:RUN[:METHOD] where counts hold several; only a RUN alone may hold colons."""
    path, _, method = (spec, "", "") if user_path(spec).exists() else spec.partition(":")
    runs = {run.name: run for run in load_runs([user_path(path)])}
    if len(runs) > 1:
        name, _, method = method.partition(":")
        if name not in runs:
            raise UsageError(
                f"{path} holds several runs", f"Write {path}:RUN:METHOD. Runs: {', '.join(runs)}."
            )
        path, runs = f"{path}:{name}", {name: runs[name]}
    samples: dict[str, list[Scored]] = {}
    for one in next(iter(runs.values())).scored:
        samples.setdefault(one.method, []).append(one)
    if method and method not in samples:
        raise UsageError(f"{path} has no method '{method}'", f"It has {', '.join(samples)}.")
    return Side(path, samples, method or None)


def _pairs(first: Side, second: Side) -> list[tuple[str, str]]:
    if first.method and second.method:
        return [(first.method, second.method)]
    named = first.method or second.method
    both = [m for m in first.samples if m in second.samples and named in (None, m)]
    if not both:
        raise UsageError("the runs have no method in common", "Name two: RUN:METHOD RUN:METHOD.")
    return [(method, method) for method in both]
