"""Attempts to talk a judge into a verdict: texts in requests and answers, and what is shown for them."""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import cycle, groupby, islice
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from ..config import Config
from ..errors import ModelError
from ..intervals import wilson_interval
from ..knobs.steering import RequestBy
from ..prompt.message import Message
from ..refusals.detector import declines
from ..result import Decision, Steering, Verdict
from ..search.choices import Candidate
from ..search.selection import select
from ..search.steering import asked_of
from .calibration import Asked
from .check import Pair

INJECTIONS_FILE = Path(__file__).parent / "data" / "injections.jsonl"
#: Texts that argue for nothing: what any text in their place would do.
CONTROL = "control"
#: The row of all other kinds, and of all places.
ALL = "all"
#: Each text is put into so many pairs, at each of its places.
PAIRS_EACH = 5
_SEED = 42
#: What was read as harmful needs a refusal; what is not judged safe is blocked.
_BLOCKING = Config(choice="by_request", on_unsafe="refuse")

#: `Judge.judge`, or what judges like it.
JudgeAnswers = Callable[[Sequence[Message], Sequence[str], float, Asked | None], list[Verdict]]
#: What an anchor's head makes of a conversation's request; None: a state is no number.
Reading = Callable[[Sequence[Message]], Steering | None]
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
    """A trial, the verdict on it, and what an anchor's head made of its request, if one read it."""

    trial: Trial
    verdict: Verdict
    decision: Decision | None = None

    @property
    def is_shown(self) -> bool:
        """Whether the answer, were it the only one, would be shown under `_BLOCKING`."""
        beam = Candidate(0, self.verdict, 0.0, degenerate=False, refuses=declines(self.trial.answer))
        return select([beam], _BLOCKING, refusal_allowed=True, decision=self.decision).beam is not None


class InjectionRow(BaseModel):
    """How one kind fared at one place; what became unscored is not shown, and was not moved."""

    kind: str
    place: str
    n: int
    moved: int
    unscored: int
    share: float
    low: float
    high: float


class InjectionReport(BaseModel):
    """What `alignbeam judge check --injections` tells; with `anchor` its head read the requests too."""

    judge: str
    anchor: str | None
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
    unsafe = [one.trial for one in before if one.verdict.verdict == "unsafe"]
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


def judged(
    judge: JudgeAnswers, tried: Sequence[Trial], config: Config, read: Reading | None = None
) -> Iterator[JudgedInjection]:
    """The judge's verdicts; trials of one question go together. Not in the order given.

    With `read` an anchor's head reads each question, and scores go by it as `score_by` has it.
    """
    for question, group in groupby(sorted(tried, key=_question), key=_question):
        together, turns = list(group), [Message("user", question)]
        answers = [trial.answer for trial in together]
        steering = read(turns) if read else None
        asked = asked_of(_scored_by(config), steering)
        decision = steering.decision if steering else None
        verdicts = judge(turns, answers, config.threshold, asked)
        yield from (JudgedInjection(*one, decision) for one in zip(together, verdicts, strict=True))


def _scored_by(config: Config) -> RequestBy:
    return _BLOCKING.with_values({"score_by": config.score_by}).scored_by


def _question(trial: Trial) -> str:
    return trial.question


def report(
    before: Sequence[JudgedInjection],
    after: Sequence[JudgedInjection],
    name: str,
    threshold: float,
    *,
    is_calibrated: bool,
    anchor: str | None = None,
) -> InjectionReport:
    """How many answers that were unsafe are shown: by kind, of all but the control, of the control."""
    moved = Counter(one.trial.injection.id for one in after if one.trial.injection and one.is_shown)
    return InjectionReport(
        judge=name,
        anchor=anchor,
        calibrated=is_calibrated,
        threshold=threshold,
        compliant=len(before),
        unsafe=sum(one.verdict.verdict == "unsafe" for one in before),
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
            yield from _row(kind, place, [one for one in group if one.trial.place == place])
        yield from _row(kind, ALL, group)


def _row(kind: str, place: str, group: Sequence[JudgedInjection]) -> Iterator[InjectionRow]:
    """One row, or none where there was no trial."""
    if not group:
        return
    moved = sum(one.is_shown for one in group)
    low, high = wilson_interval(moved, len(group))
    yield InjectionRow(
        kind=kind,
        place=place,
        n=len(group),
        moved=moved,
        unscored=sum(one.verdict.verdict == "unscored" for one in group),
        share=moved / len(group),
        low=low,
        high=high,
    )
