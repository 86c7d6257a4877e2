"""Several answers in the making at once, on shared contexts: in turns, in one thread, batch by batch."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import NamedTuple

from greenlet import GreenletExit, greenlet

from ..config import Config
from ..errors import AlignBeamError, ModelError
from ..events import Done, Event, Result
from ..lm.slots import SharedContext
from ..prompt.formats import Message
from .answer import Answer
from .open_models import Parts, rooms

#: Makes an answer on some parts.
AnswerMaker = Callable[[Parts, Config], Answer]


class Happening(NamedTuple):
    """An event of one of the answers, or the error that ended it."""

    key: int
    what: Event | AlignBeamError


class ParallelAnswers:
    """Lanes on the draft and the anchor, each with prompt caches of its own; the judge is shared.

    A verdict is a batch of its own, for which all wait. What happens is a function of the conversations, of
    their order, and of the step at which each is begun.
    """

    def __init__(self, parts: Parts, num_lanes: int, make_answer: AnswerMaker) -> None:
        """The contexts of `parts` have room for so many answers, and serve nothing else meanwhile."""
        draft = SharedContext(parts.draft.lm, num_lanes)
        anchor = SharedContext(parts.anchor.lm, num_lanes) if parts.anchor else None
        # Mixing is short, and whoever waits for it is missing in the draft's batches: the anchor goes first.
        self._contexts = [context for context in (anchor, draft) if context]
        self._lanes = [
            replace(
                parts,
                draft=replace(parts.draft, lm=draft.lanes[lane]),
                anchor=replace(parts.anchor, lm=anchor.lanes[lane]) if parts.anchor and anchor else None,
            )
            for lane in range(num_lanes)
        ]
        self._make_answer = make_answer
        self._free = set(range(num_lanes))
        self._running: dict[int, greenlet] = {}
        self._happened: list[Happening] = []

    @property
    def has_room(self) -> bool:
        """Whether another answer can begin."""
        return bool(self._free)

    def begin(self, key: int, messages: Sequence[Message], config: Config) -> None:
        """Begin an answer, known by its key; a lane is free.

        Raises:
            ModelError: it needs more room than the lanes have: another's cells would be next.
        """
        lane = min(self._free)
        wanted = rooms(config.with_values({"parallel": 1}))["draft"]
        if wanted.num_sequences > self._lanes[lane].draft.lm.num_sequences:
            raise ModelError("the open contexts have no room for this answer", "Open them by its knobs.")
        self._free.remove(lane)
        self._running[key] = greenlet(partial(self._run, key, lane, messages, config))
        self._running[key].switch()

    def _run(self, key: int, lane: int, messages: Sequence[Message], config: Config) -> None:
        try:
            for event in self._make_answer(self._lanes[lane], config).stream(messages):
                self._happened.append(Happening(key, event))
        except AlignBeamError as error:
            self._happened.append(Happening(key, error))
        finally:
            del self._running[key]
            self._free.add(lane)

    def step(self) -> list[Happening]:
        """Decode one batch for all that wait for the same model; what happened since the last step.

        An answer ends in `Done`, also when the user cancels all, or in an error of its own.
        """
        wanted = next((context for context in self._contexts if context.is_wanted), None)
        if wanted:
            wanted.decode()
        happened, self._happened = self._happened, []
        return happened

    def answers(self, asked: Sequence[tuple[Sequence[Message], Config]]) -> list[Result | AlignBeamError]:
        """Answer these conversations, as many at once as there are lanes; none else is in the making."""
        found: dict[int, Result | AlignBeamError] = {}
        waiting = iter(enumerate(asked))
        try:
            while len(found) < len(asked):
                for key, (messages, config) in islice(waiting, len(self._free)):
                    self.begin(key, messages, config)
                for key, what in self.step():
                    if isinstance(what, Done):
                        found[key] = what.result
                    elif isinstance(what, AlignBeamError):
                        found[key] = what
        finally:
            self.close()
        return [found[key] for key in range(len(asked))]

    def close(self) -> None:
        """End all answers; nothing more happens."""
        for key in list(self._running):
            self.fail(key, GreenletExit())
        self._happened = []

    def fail(self, key: int, error: BaseException) -> None:
        """End an answer with this error."""
        task = self._running[key]
        for context in self._contexts:
            context.forget(task)
        task.throw(error)

    def forget(self) -> None:
        """Drop what the lanes hold of prompts; none is in use."""
        for parts in self._lanes:
            parts.forget_prompts()
