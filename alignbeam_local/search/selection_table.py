"""What `select` gives for every threshold, choice and `on_unsafe`: a choice anew is then a look-up.

It is made by calling `select`, so the rule has one home; whoever shows a choice only reads.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import NamedTuple, get_args

from annotated_types import Ge, Le

from ..config import Config
from ..result import Decision, VerdictName
from .choices import Candidate
from .selection import select


class Interval(NamedTuple):
    """From this threshold on, up to the next interval's, this beam is chosen; None: the answer is blocked."""

    start: float
    beam: int | None


class SelectionTable(NamedTuple):
    """Every choice there is among some beams.

    Attributes:
        least: the lowest threshold, where the first interval of each list starts.
        most: the highest threshold, which the last interval of each list holds.
        chosen: by `choice`, then by `on_unsafe`: intervals in rising order, neighbours of other beams.
    """

    least: float
    most: float
    chosen: dict[str, dict[str, tuple[Interval, ...]]]

    def at(self, choice: str, on_unsafe: str, threshold: float) -> int | None:
        """The beam that is chosen there; None: the answer is blocked."""
        return next(i.beam for i in reversed(self.chosen[choice][on_unsafe]) if i.start <= threshold)

    def as_dict(self) -> dict[str, object]:
        """The table as JSON holds it."""
        chosen = {
            choice: {name: [{"from": i.start, "beam": i.beam} for i in row] for name, row in rows.items()}
            for choice, rows in self.chosen.items()
        }
        return {"least": self.least, "most": self.most, "chosen": chosen}


def selection_table(
    candidates: Sequence[Candidate],
    config: Config,
    *,
    refusal_allowed: Callable[[float], bool],
    allowed_changes: Iterable[float] = (),
    decision: Decision | None = None,
) -> SelectionTable:
    """Choose at every threshold, by every `choice` and `on_unsafe`.

    Args:
        candidates: the beams, in the order of f~; what their verdicts say of a threshold is not read.
        config: the other knobs.
        refusal_allowed: whether the judge's record lets `on_unsafe = auto` refuse at a threshold.
        allowed_changes: the thresholds from which on `refusal_allowed` may say something else.
        decision: what the request was read as, if it was.
    """
    least, most = threshold_range()
    scores = (c.verdict.score for c in candidates if c.verdict.score is not None)
    starts = sorted({least, *(at for at in (*scores, *allowed_changes) if least < at <= most)})

    def row(choice: str, on_unsafe: str) -> Iterator[Interval]:
        for start in starts:
            knobs = {"choice": choice, "on_unsafe": on_unsafe, "threshold": start}
            judged = [_judged_at(start, candidate) for candidate in candidates]
            own, allowed = config.model_copy(update=knobs), refusal_allowed(start)
            chosen = select(judged, own, refusal_allowed=allowed, decision=decision)
            yield Interval(start, chosen.beam)

    return SelectionTable(
        least,
        most,
        {
            choice: {name: tuple(_merged(row(choice, name))) for name in values_of("on_unsafe")}
            for choice in values_of("choice")
        },
    )


def threshold_range() -> tuple[float, float]:
    """The lowest and the highest threshold that the knob takes."""
    limits = Config.model_fields["threshold"].metadata
    least = next(limit.ge for limit in limits if isinstance(limit, Ge))
    most = next(limit.le for limit in limits if isinstance(limit, Le))
    return float(least), float(most)  # type: ignore[arg-type]


def values_of(knob: str) -> tuple[str, ...]:
    """The values that a knob of a few named ones takes."""
    return get_args(Config.model_fields[knob].annotation)


def _judged_at(threshold: float, candidate: Candidate) -> Candidate:
    verdict = candidate.verdict
    if verdict.score is None:
        return candidate
    name: VerdictName = "safe" if verdict.score <= threshold else "unsafe"
    return candidate._replace(verdict=replace(verdict, verdict=name))


def _merged(row: Iterable[Interval]) -> Iterator[Interval]:
    return (next(group) for _, group in groupby(row, key=lambda interval: interval.beam))
