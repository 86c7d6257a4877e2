"""What a page draws: points with their intervals, worked out from runs."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

from ...roles import is_anchor
from ..methods.names import ALIGNBEAM
from ..runs.metrics import Scored
from ..runs.saved_runs import SavedRun
from ..suites.suites import Label
from .figures import by_prompt, declined, median_seconds
from .statistics import Estimate, share

_BINS = 10
_FEWEST = 5  # answers in a bin that is drawn
_DECLINABLE: tuple[Label, ...] = ("harmful", "benign")


@dataclass(frozen=True)
class Point:
    """A place with the intervals of both coordinates; one that is exact has none."""

    name: str
    x: Estimate
    y: Estimate


@dataclass(frozen=True)
class Series:
    """Points of one colour, joined in their order if `line`."""

    name: str
    points: Sequence[Point]
    line: bool = False


@dataclass(frozen=True)
class Plot:
    """A plot of shares against something; `x_max` is where its axis ends, `x_percent` how it is written."""

    title: str
    x_title: str
    y_title: str
    series: Sequence[Series]
    x_max: float = 1.0
    x_percent: bool = True


class Group(NamedTuple):
    """The samples of one method of one run, and what the manifest says of it; `method` without its knobs."""

    run: str
    name: str
    method: str
    about: dict[str, Any]
    scored: Sequence[Scored]


def plots(runs: Iterable[SavedRun]) -> list[Plot]:
    """Every plot for which the runs hold something."""
    groups = list(_groups(list(runs)))
    drawn = [
        *_scatters(groups),
        _curve(groups, "depth", "N, mixed tokens"),
        _curve(groups, "alpha", "alpha, the anchor's weight"),
        *_latencies(groups),
        *_covered(groups),
    ]
    return [plot for plot in drawn if any(series.points for series in plot.series)]


def _groups(runs: Sequence[SavedRun]) -> Iterable[Group]:
    for run in runs:
        for method, about in run.manifest["methods"].items():
            own = [one for one in run.scored if one.method == method]
            if own:
                name = method if len(runs) == 1 else f"{run.name}: {method}"
                yield Group(run.name, name, method.partition(":")[0], about or {}, own)


def _suites(groups: Iterable[Group], label: Label) -> list[str]:
    return list(dict.fromkeys(s.suite for group in groups for s in group.scored if s.label == label))


def _of_suite(group: Group, suite: str, label: Label) -> Estimate | None:
    """The share refused or blocked: suites are not pooled, methods may have been asked different ones."""
    return declined(_asked(group, suite), label)


def _asked(group: Group, suite: str) -> list[Scored]:
    return [one for one in group.scored if one.suite == suite]


def _scatters(groups: Sequence[Group]) -> Iterable[Plot]:
    """One for every harmful suite and benign one."""
    for bad, good in product(_suites(groups, "harmful"), _suites(groups, "benign")):
        series = []
        for group in groups:
            harmful, benign = _of_suite(group, bad, "harmful"), _of_suite(group, good, "benign")
            if harmful and benign:
                series.append(Series(group.name, [Point(group.name, benign, harmful)]))
        yield Plot("Refusal against over-refusal", f"refused of {good}, benign", f"refused of {bad}", series)


def _latencies(groups: Sequence[Group]) -> Iterable[Plot]:
    for suite in _suites(groups, "harmful"):
        series = []
        for group in groups:
            own = _asked(group, suite)
            harmful, seconds = declined(own, "harmful"), median_seconds(own)
            if harmful and seconds:
                series.append(Series(group.name, [Point(group.name, exact(seconds), harmful)]))
        longest = max((point.x.value for one in series for point in one.points), default=1.0)
        title, x_title = "Latency against refusal", "seconds an answer, median"
        yield Plot(title, x_title, f"refused of {suite}", series, longest, False)


def _curve(groups: Sequence[Group], knob: str, title: str) -> Plot:
    """A line for each suite and family of settings."""
    curves = _families(groups, knob)
    series: list[Series] = []
    for family in curves:
        family.sort(key=lambda group: float(_knobs(group)[knob]))
        which = ""
        if len(curves) > 1:
            own_run = sum(family[0].run == other[0].run for other in curves) == 1
            which = f", {family[0].run}" if own_run else f", from {family[0].name} on"
        for label in _DECLINABLE:
            for suite in _suites(family, label):
                points = list(_knob_points(family, knob, suite, label))
                series.append(Series(f"{suite} ({label}){which}", points, line=True))
    longest = max((point.x.value for one in series for point in one.points), default=1.0) or 1.0
    return Plot(f"{knob} curve", title, "refused", series, longest, False)


def _families(groups: Iterable[Group], knob: str) -> list[list[Group]]:
    """Settings of one run that differ in this knob alone, with several values of it.

    One that needs no anchor (N = 0) goes with every anchor's.
    """
    families: dict[tuple[str, str], list[Group]] = {}
    drawn = [group for group in groups if group.method == ALIGNBEAM and knob in _knobs(group)]
    for group in sorted(drawn, key=lambda group: "anchor" not in _models(group)):
        rest = {key: value for key, value in _knobs(group).items() if key != knob}
        base = repr((group.run, _models(group).get("draft"), sorted(rest.items())))
        anchors = {role: model for role, model in _models(group).items() if is_anchor(role)}
        own = [(base, repr(anchors))]
        if "anchor" not in _models(group):
            own = [key for key in families if key[0] == base] or own
        for key in own:
            families.setdefault(key, []).append(group)
    return [family for family in families.values() if len({_knobs(one)[knob] for one in family}) > 1]


def _knobs(group: Group) -> dict[str, Any]:
    return dict(group.about.get("knobs", {}))


def _models(group: Group) -> dict[str, Any]:
    return dict(group.about.get("models", {}))


def _knob_points(groups: Iterable[Group], knob: str, suite: str, label: Label) -> Iterable[Point]:
    for group in groups:
        if found := _of_suite(group, suite, label):
            yield Point(group.name, exact(float(_knobs(group)[knob])), found)


def _covered(groups: Sequence[Group]) -> Iterable[Plot]:
    """Of harmful prompts, by how much of the anchor's mass crossed on average."""
    for suite in _suites(groups, "harmful"):
        series = []
        for group in groups:
            own = [s for s in _asked(group, suite) if s.label == "harmful" and s.covered_mass is not None]
            points = list(_binned(own, lambda s: s.covered_mass or 0.0))
            if points:
                series.append(Series(group.name, points, line=True))
        yield Plot("Covered mass against refusal", "covered mass", f"refused of {suite}", series)


def _binned(scored: Sequence[Scored], value: Callable[[Scored], float]) -> Iterable[Point]:
    bins: dict[int, list[Scored]] = {}
    for one in scored:
        bins.setdefault(min(int(value(one) * _BINS), _BINS - 1), []).append(one)
    for index, own in sorted(bins.items()):
        if len(own) < _FEWEST:
            continue
        name = f"{len(own)} answers"
        yield Point(name, exact((index + 0.5) / _BINS), share(by_prompt(own, lambda s: s.declined)))


def exact(value: float) -> Estimate:
    """A value without an interval."""
    return Estimate(value, value, value)
