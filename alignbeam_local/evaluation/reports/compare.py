"""Two methods on the same prompts: the difference of their shares, with its interval and its test."""

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ...errors import UsageError
from ..runs.metrics import Scored
from ..suites.suites import LABELS, Label
from .figures import slowdown
from .statistics import Estimate, mcnemar, mean_difference

Measure = Literal["declined", "harmful", "correct"]
_VALUES: Mapping[Measure, Callable[[Scored], bool | None]] = {
    "declined": lambda scored: scored.declined,
    "harmful": lambda scored: scored.harmful,
    "correct": lambda scored: scored.correct,
}


@dataclass(frozen=True)
class Difference:
    """One suite and label: shares of both, second minus first, on the `n` prompts that both answered.

    `only_first` and `only_second` count prompts that one method alone hits, and `p` is McNemar's of them;
    all three are None where prompts were asked several times, for which that test is not made.
    """

    suite: str
    label: Label
    measure: Measure
    n: int
    first: float
    second: float
    difference: Estimate
    only_first: int | None
    only_second: int | None
    p: float | None
    slowdown: float | None


def compare(
    first: Sequence[Scored], second: Sequence[Scored], measure: Measure | None = None
) -> list[Difference]:
    """The differences between two methods' samples; without a measure right answers count, else refusals.

    Raises:
        UsageError: they answered no prompt in common, or nothing or not all of the kind was measured.
    """
    places = dict.fromkeys((one.suite, one.label) for one in first)
    found = []
    for suite, label in sorted(places, key=lambda place: (place[0], LABELS.index(place[1]))):
        pair = [[s for s in side if (s.suite, s.label) == (suite, label)] for side in (first, second)]
        wanted = measure or ("correct" if label == "utility" else "declined")
        if difference := _difference(suite, label, wanted, *pair):
            found.append(difference)
    if not found:
        raise UsageError(
            "nothing to compare",
            "Both must have answered the same prompts of the same suites, with the same seeds.",
        )
    return found


def _difference(
    suite: str, label: Label, measure: Measure, first: Sequence[Scored], second: Sequence[Scored]
) -> Difference | None:
    pairs = _pairs(first, second, measure)
    if not pairs:
        return None
    values = [pair for prompt in pairs.values() for pair in prompt]
    once = all(len(prompt) == 1 for prompt in pairs.values())
    only_first = sum(mine and not other for mine, other in values) if once else None
    only_second = sum(other and not mine for mine, other in values) if once else None
    return Difference(
        suite=suite,
        label=label,
        measure=measure,
        n=len(pairs),
        first=sum(mine for mine, _ in values) / len(values),
        second=sum(other for _, other in values) / len(values),
        difference=mean_difference(
            [[float(other) - float(mine) for mine, other in prompt] for prompt in pairs.values()]
        ),
        only_first=only_first,
        only_second=only_second,
        p=mcnemar(only_first, only_second) if only_first is not None and only_second is not None else None,
        slowdown=slowdown(_of(second, pairs), _of(first, pairs)),
    )


def _pairs(
    first: Sequence[Scored], second: Sequence[Scored], measure: Measure
) -> dict[str, list[tuple[bool, bool]]]:
    """By prompt what both said to it, a pair a seed; failed samples are no answers.

    Of an id that names another prompt on the other side there is no pair.

    Raises:
        UsageError: some have no verdict.
    """
    value = _VALUES[measure]
    others = {(s.id, s.seed): s for s in second if s.outcome != "failed"}
    pairs: dict[str, list[tuple[bool, bool]]] = {}
    num_unknown = 0
    for one in first:
        other = others.get((one.id, one.seed))
        if one.outcome == "failed" or other is None or not _same_prompt(one, other):
            continue
        here, there = value(one), value(other)
        if here is not None and there is not None:
            pairs.setdefault(one.id, []).append((here, there))
        else:
            num_unknown += 1
    if pairs and num_unknown and measure == "harmful":
        raise UsageError(
            f"{num_unknown} answers have no verdict: without them the share of harmful ones would mislead",
            "Have them judged (`eval reselect --judge MODEL`), or compare another share.",
        )
    return pairs


def _of(scored: Sequence[Scored], prompts: Container[str]) -> list[Scored]:
    return [one for one in scored if one.id in prompts]


def _same_prompt(one: Scored, other: Scored) -> bool:
    """As far as is known: older counts hold no hashes."""
    return None in (one.prompt_hash, other.prompt_hash) or one.prompt_hash == other.prompt_hash
