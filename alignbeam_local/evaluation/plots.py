"""What a page draws: points with their intervals, worked out from runs."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from .cells import by_prompt
from .metrics import Scored
from .runs import Run
from .statistics import Estimate, share
from .suites import Label

_BINS = 10


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


@dataclass(frozen=True)
class Arm:
    """One method of one run with its samples."""

    name: str
    about: dict[str, Any]
    scored: Sequence[Scored]

    def declined(self, label: Label) -> Estimate | None:
        """The share refused or blocked of all prompts with a label; None if it answered none."""
        own = [s for s in self.scored if s.label == label and s.outcome != "failed"]
        return share(by_prompt(own, lambda s: s.declined)) if own else None

    @property
    def seconds(self) -> float:
        return median([s.total_ms or 0.0 for s in self.scored if s.outcome != "failed"] or [0.0]) / 1e3


def plots(runs: Iterable[Run]) -> list[Plot]:
    """Every plot for which the runs hold something."""
    arms = list(_arms(list(runs)))
    drawn = [
        _scatter(arms),
        _curve(arms, "depth", "N, mixed tokens"),
        _curve(arms, "alpha", "alpha, the anchor's weight"),
        _latency(arms),
        _covered(arms),
    ]
    return [plot for plot in drawn if any(series.points for series in plot.series)]


def _arms(runs: Sequence[Run]) -> Iterable[Arm]:
    for run in runs:
        for method, about in run.manifest["methods"].items():
            own = [one for one in run.scored if one.method == method]
            if own:
                yield Arm(method if len(runs) == 1 else f"{run.name}: {method}", about or {}, own)


def _scatter(arms: Sequence[Arm]) -> Plot:
    series = [
        Series(arm.name, [Point(arm.name, benign, harmful)])
        for arm in arms
        if (harmful := arm.declined("harmful")) and (benign := arm.declined("benign"))
    ]
    return Plot("Refusal against over-refusal", "refused of benign", "refused of harmful", series)


def _latency(arms: Sequence[Arm]) -> Plot:
    series = [
        Series(arm.name, [Point(arm.name, exact(arm.seconds), harmful)])
        for arm in arms
        if (harmful := arm.declined("harmful"))
    ]
    longest = max((arm.seconds for arm in arms), default=1.0) or 1.0
    return Plot(
        "Latency against refusal", "seconds an answer, median", "refused of harmful", series, longest, False
    )


def _curve(arms: Sequence[Arm], knob: str, title: str) -> Plot:
    """A line for each label and each set of the other knobs that more than one value of this one has."""
    families: dict[str, list[Arm]] = {}
    for arm in arms:
        knobs = arm.about.get("knobs", {})
        if knob in knobs and "anchor" in arm.about.get("models", {"anchor": 1}):
            rest = {key: value for key, value in knobs.items() if key != knob}
            families.setdefault(repr((sorted(rest.items()), arm.about.get("parameters"))), []).append(arm)
    series: list[Series] = []
    for family in families.values():
        ordered = sorted(family, key=lambda arm: float(arm.about["knobs"][knob]))
        if len(ordered) > 1:
            for label, name in (("harmful", "refused of harmful"), ("benign", "refused of benign")):
                points = list(_knob_points(ordered, knob, label))
                series.append(Series(f"{name}, {ordered[0].name}", points, line=True))
    longest = max((point.x.value for one in series for point in one.points), default=1.0) or 1.0
    return Plot(f"{knob} curve", title, "refused", series, longest, False)


def _knob_points(arms: Iterable[Arm], knob: str, label: Any) -> Iterable[Point]:
    for arm in arms:
        if found := arm.declined(label):
            yield Point(arm.name, exact(float(arm.about["knobs"][knob])), found)


def _covered(arms: Sequence[Arm]) -> Plot:
    """Of harmful prompts, by how much of the anchor's mass crossed on average."""
    series = []
    for arm in arms:
        mixed = [s for s in arm.scored if s.label == "harmful" and s.covered_mass is not None]
        points = list(_binned(mixed, lambda s: s.covered_mass or 0.0))
        if points:
            series.append(Series(arm.name, points, line=True))
    return Plot("Covered mass against refusal", "covered mass", "refused of harmful", series)


def _binned(scored: Sequence[Scored], value: Callable[[Scored], float]) -> Iterable[Point]:
    bins: dict[int, list[Scored]] = {}
    for one in scored:
        bins.setdefault(min(int(value(one) * _BINS), _BINS - 1), []).append(one)
    for index, own in sorted(bins.items()):
        name = f"{len(own)} answers"
        yield Point(name, exact((index + 0.5) / _BINS), share(by_prompt(own, lambda s: s.declined)))


def exact(value: float) -> Estimate:
    """A value without an interval."""
    return Estimate(value, value, value)
