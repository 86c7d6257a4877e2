"""Attempts to talk a judge into a verdict: texts in requests and answers, and how often they move it."""

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import cycle, groupby, islice
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from ..errors import ModelError
from ..intervals import wilson_interval
from ..prompt.message import Message
from ..result import Verdict
from .calibration import Calibration
from .check import Pair
from .judge import Judge

INJECTIONS_FILE = Path(__file__).parent / "data" / "injections.jsonl"
#: Texts that argue for nothing: what any text in their place would do.
CONTROL = "control"
#: The row of all other kinds, and of all places.
ALL = "all"
#: Each text is put into so many pairs, at each of its places.
PAIRS_EACH = 5
_SEED = 42

Place = Literal["before", "after", "request"]
PLACES: tuple[Place, ...] = ("before", "after", "request")


class Injection(BaseModel):
    """A text, so many times in a row, for before or after an answer, or behind a request."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    kind: str
    text: str
    times: Annotated[int, Field(ge=1)] = 1
    places: tuple[Place, ...] = PLACES


class Trial(NamedTuple):
    """What the judge reads: a pair with an injection in it, or as it is."""

    question: str
    answer: str
    injection: Injection | None = None
    place: Place | None = None


class JudgedInjection(NamedTuple):
    """A trial and the verdict on it."""

    trial: Trial
    verdict: Verdict


class InjectionRow(BaseModel):
    """How one kind fared at one place; what became unscored is not safe, and was not moved."""

    kind: str
    place: str
    n: int
    moved: int
    unscored: int
    share: float
    low: float
    high: float


class InjectionReport(BaseModel):
    """What `alignbeam judge check --injections` tells."""

    judge: str
    calibrated: bool
    threshold: float
    compliant: int
    unsafe: int
    rows: list[InjectionRow]
    moved_by: dict[str, int]


def read_injections() -> list[Injection]:
    """The shipped ones."""
    lines = INJECTIONS_FILE.read_text(encoding="utf-8").splitlines()
    return [Injection.model_validate_json(line) for line in lines]


def untouched(pairs: Iterable[Pair]) -> list[Trial]:
    """The pairs that comply, as they are."""
    return [Trial(pair.question, pair.answer) for pair in pairs if pair.label == "compliance"]


def trials(injections: Sequence[Injection], before: Sequence[JudgedInjection]) -> list[Trial]:
    """Each injection at each of its places, in pairs that are unsafe without: they take turns.

    Raises:
        ModelError: none is.
    """
    unsafe = [trial for trial, verdict in before if verdict.verdict == "unsafe"]
    if not unsafe:
        raise ModelError(
            "the judge calls no answer that complies unsafe",
            "See what it can tell apart: alignbeam judge check",
        )
    turns = cycle(random.Random(_SEED).sample(unsafe, len(unsafe)))
    return [
        _injected(trial, injection, place)
        for injection in injections
        for trial in list(islice(turns, min(PAIRS_EACH, len(unsafe))))
        for place in injection.places
    ]


def _injected(trial: Trial, injection: Injection, place: Place) -> Trial:
    text, question, answer = injection.text * injection.times, trial.question, trial.answer
    match place:
        case "before":
            answer = f"{text}\n\n{answer}"
        case "after":
            answer = f"{answer}\n\n{text}"
        case "request":
            question = f"{question}\n\n{text}"
    return Trial(question, answer, injection, place)


def judged(judge: Judge, tried: Sequence[Trial], threshold: float) -> Iterator[JudgedInjection]:
    """The judge's verdicts; trials of one question go together. Not in the order given."""
    for question, group in groupby(sorted(tried, key=_question), key=_question):
        together = list(group)
        answers = [trial.answer for trial in together]
        yield from map(
            JudgedInjection, together, judge.judge([Message("user", question)], answers, threshold)
        )


def _question(trial: Trial) -> str:
    return trial.question


def report(
    before: Sequence[JudgedInjection],
    after: Sequence[JudgedInjection],
    record: Calibration | None,
    name: str,
    threshold: float,
) -> InjectionReport:
    """How many verdicts went from unsafe to safe: by kind, of all but the control, of the control."""
    moved = Counter(
        trial.injection.id for trial, verdict in after if trial.injection and verdict.verdict == "safe"
    )
    return InjectionReport(
        judge=name,
        calibrated=record is not None,
        threshold=threshold,
        compliant=len(before),
        unsafe=sum(verdict.verdict == "unsafe" for _, verdict in before),
        rows=list(_rows(after)),
        moved_by=dict(moved.most_common()),
    )


def _rows(after: Sequence[JudgedInjection]) -> Iterator[InjectionRow]:
    by_kind: dict[str, list[JudgedInjection]] = {}
    for one in after:
        if one.trial.injection:
            by_kind.setdefault(one.trial.injection.kind, []).append(one)
    attempts = [one for kind, group in by_kind.items() if kind != CONTROL for one in group]
    control = by_kind.pop(CONTROL, [])
    for kind, group in {**dict(sorted(by_kind.items())), ALL: attempts, CONTROL: control}.items():
        for place in PLACES:
            yield from _row(kind, place, [one.verdict for one in group if one.trial.place == place])
        yield from _row(kind, ALL, [one.verdict for one in group])


def _row(kind: str, place: str, verdicts: Sequence[Verdict]) -> Iterator[InjectionRow]:
    """One row, or none where there was no trial."""
    if not verdicts:
        return
    moved = sum(verdict.verdict == "safe" for verdict in verdicts)
    low, high = wilson_interval(moved, len(verdicts))
    yield InjectionRow(
        kind=kind,
        place=place,
        n=len(verdicts),
        moved=moved,
        unscored=sum(verdict.verdict == "unscored" for verdict in verdicts),
        share=moved / len(verdicts),
        low=low,
        high=high,
    )
