"""An answer that somebody waits for: what is asked, and who is told what happens."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from time import monotonic

from ...engine.scheduler import Asked
from ...errors import AlignBeamError
from ...events import Done, Event
from ...heads.answer_head import JudgeRecord


@dataclass(frozen=True)
class Accepted:
    """The conversation fits; it waits for a slot."""


@dataclass(frozen=True)
class Begun:
    """A slot is found; so many tokens of the prompt were in it already."""

    cached_tokens: int


#: What is told of a job; its last is `Done` or an error.
JobEvent = Event | Accepted | Begun | AlignBeamError

_KEYS = count()


@dataclass(eq=False)
class Job:
    """One answer, from its request to its end.

    Attributes:
        asked: the conversation and its knobs.
        tell: takes what has happened, in order, some at a time; called in the engine's thread.
        is_fresh: its slot forgets first: the answer is what a new process would give.
        cancelled: nobody waits for it any more.
        batched_with: the most other answers that were in the making at the same time.
        judge_record: what is known of the judge that read the answer, once it has ended.
        begun: when a slot was found for it, by `monotonic`; None: it waits.
    """

    asked: Asked
    tell: Callable[[Sequence[JobEvent]], None]
    is_fresh: bool = False
    key: int = field(default_factory=_KEYS.__next__)
    cancelled: bool = False
    batched_with: int = 0
    judge_record: JudgeRecord | None = None
    begun: float | None = None
    made: float = field(default_factory=monotonic)


def is_last(event: JobEvent) -> bool:
    """Whether nothing comes after it."""
    return isinstance(event, Done | AlignBeamError)
