"""Several answers in the making at once, on shared contexts: in turns, in one thread, batch by batch."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import islice
from typing import NamedTuple

from greenlet import GreenletExit, greenlet

from ..config import Config
from ..errors import AlignBeamError, ModelError
from ..events import Done, Event
from ..lm.language_model import common_prefix
from ..lm.sequences import PROMPT
from ..lm.slots import SharedContext
from ..machine.context_size import context_sizes
from ..prompt.message import Message
from ..result import Result
from .answering.answer import Answer
from .open_models import OpenModels
from .prompters import draft_prompter, prompters

#: A prompt that keeps this share of a slot's last one goes on from it; two short ones share their beginning.
_GOING_ON = 0.8
#: Makes an answer on some models.
AnswerMaker = Callable[[OpenModels, Config], Answer]
#: Straight-line code that makes an answer in the slot of this number; it ends in `Done`.
SlotWork = Callable[[int], Iterable[Event]]


class Asked(NamedTuple):
    """A conversation to answer, and the knobs.

    `of_anchor`: the first anchor takes the draft's place, and nothing is mixed.
    """

    messages: Sequence[Message]
    config: Config
    of_anchor: bool = False


class AnswerEvent(NamedTuple):
    """An event of one of the answers, or the error that ended it."""

    key: int
    what: Event | AlignBeamError


class SlotScheduler:
    """Runs the code of several answers in slots of shared contexts; new ones may begin at any step.

    What happens is a function of the work, of its order, and of the step at which each is begun.
    """

    def __init__(self, contexts: Sequence[SharedContext], num_slots: int) -> None:
        """Where slots wait for several contexts, the one that has not decoded for longest is next."""
        self._contexts = list(contexts)
        self._free = list(range(num_slots))  # the one that was left longest ago first
        self._running: dict[int, greenlet] = {}
        self._happened: list[AnswerEvent] = []

    @property
    def has_free_slot(self) -> bool:
        """Whether another answer can begin."""
        return bool(self._free)

    def run(self, key: int, work: SlotWork, slot: int | None = None) -> None:
        """Begin an answer, known by its key, in a free slot: this one, or the first."""
        slot = min(self._free) if slot is None else slot
        self._free.remove(slot)
        self._running[key] = greenlet(partial(self._run, key, slot, work))
        self._running[key].switch()

    def _run(self, key: int, slot: int, work: SlotWork) -> None:
        try:
            for event in work(slot):
                self._happened.append(AnswerEvent(key, event))
        except AlignBeamError as error:
            self._happened.append(AnswerEvent(key, error))
        finally:
            del self._running[key]
            self._free.append(slot)

    def step(self) -> list[AnswerEvent]:
        """Decode one batch for all that wait for the same model; what happened since the last step.

        An answer ends in `Done`, also when the user cancels all, or in an error of its own.
        """
        if context := next((each for each in self._contexts if each.is_wanted), None):
            self._contexts.remove(context)
            self._contexts.append(context)
            context.decode()
        happened, self._happened = self._happened, []
        return happened

    def run_all(self, works: Sequence[SlotWork]) -> list[Result | AlignBeamError]:
        """Make all of these, as many at once as there are slots; none else is in the making."""
        found: dict[int, Result | AlignBeamError] = {}
        waiting = iter(enumerate(works))
        try:
            while len(found) < len(works):
                for key, work in islice(waiting, len(self._free)):
                    self.run(key, work)
                for key, what in self.step():
                    if isinstance(what, Done):
                        found[key] = what.result
                    elif isinstance(what, AlignBeamError):
                        found[key] = what
        finally:
            self.close()
        return [found[key] for key in range(len(works))]

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


class AnswerScheduler(SlotScheduler):
    """Answers of the engine: slots on draft and anchors, each with prompt caches of its own.

    The judge is shared: a verdict is a batch of its own, for which all wait.
    """

    def __init__(self, models: OpenModels, num_slots: int, make_answer: AnswerMaker) -> None:
        """The contexts of `models` have room for so many answers, and serve nothing else meanwhile."""
        draft, *anchors = (SharedContext(model.lm, num_slots) for model in models.followers)
        readers = [SharedContext(model.lm, num_slots, has_rows=False) for model in models.readers]
        shared = [draft, *anchors, *readers]
        # Mixing is short, and whoever waits for it is missing in the draft's batches: anchors begin.
        super().__init__([*readers, *anchors, draft], num_slots)
        self._slots = [models.with_contexts([each.slots[n] for each in shared]) for n in range(num_slots)]
        self._make_answer = make_answer

    def begin(self, key: int, asked: Asked, slot: int | None = None) -> None:
        """Begin an answer, known by its key, in a free slot: this one, or the first.

        Raises:
            ModelError: it needs more room than the slots have: another's cells would be next.
        """
        self.run(key, self.work(asked), slot)

    def work(self, asked: Asked) -> SlotWork:
        """What makes this answer. Raises: ModelError: as `begin`."""
        self._require_room(asked)
        return lambda slot: self._make_answer(self._models(slot, asked), asked.config).stream(asked.messages)

    def _models(self, slot: int, asked: Asked) -> OpenModels:
        return self._slots[slot].anchor_alone if asked.of_anchor else self._slots[slot]

    def _require_room(self, asked: Asked) -> None:
        """Raises: ModelError: an anchor that answers alone was opened to be mixed in, the draft for less."""
        wanted = context_sizes(asked.config.with_values({"parallel": 1}))["draft"]
        lm = self._models(0, asked).draft.lm
        if wanted.num_sequences > lm.num_sequences or wanted.shared_cells > lm.num_cells:
            raise ModelError("the open contexts are too small for this answer", "Ask for fewer beams.")

    def require_fit(self, asked: Asked) -> None:
        """Raises: ContextFull, UsageError: draft or anchor can't read this conversation. As `begin`."""
        self._require_room(asked)
        for prompter in prompters(self._models(0, asked), asked.config):
            prompter.require_possible(asked.messages)
            prompter.require_fit(len(prompter.encode(asked.messages)))

    def warmest(self, asked: Asked) -> tuple[int, int]:
        """The free slot whose conversation this goes on from, and how many tokens its draft holds of it.

        Where none is, no conversation is to be lost but the one that was left longest ago.

        Raises:
            UsageError: the draft can't read this conversation.
        """
        ids = draft_prompter(self._models(0, asked), asked.config).encode(asked.messages)
        held = {slot: self._held(slot, asked, ids) for slot in self._free}
        going_on = [slot for slot in self._free if self._goes_on(slot, asked, ids)]
        slot = max(going_on, key=held.__getitem__, default=self._free[0])
        return slot, held[slot]

    def _held(self, slot: int, asked: Asked, ids: Sequence[int]) -> int:
        lm = self._models(slot, asked).draft.lm
        return max(common_prefix(lm.tokens(sequence), ids) for sequence in range(lm.num_sequences))

    def _goes_on(self, slot: int, asked: Asked, ids: Sequence[int]) -> bool:
        last = self._models(slot, asked).draft.lm.tokens(PROMPT)
        return 0 < _GOING_ON * len(last) <= common_prefix(last, ids)

    def answers(self, asked: Sequence[tuple[Sequence[Message], Config]]) -> list[Result | AlignBeamError]:
        """Answer these conversations, as many at once as there are slots; none else is in the making."""
        return self.run_all([self.work(Asked(*each)) for each in asked])

    def read_in_pieces(self, piece_tokens: int | None) -> None:
        """From now on read long prompts in pieces of so many tokens, so that others go on; None: whole."""
        for context in self._contexts:
            context.piece_tokens = piece_tokens

    def forget(self, slot: int | None = None) -> None:
        """Drop what this slot holds of prompts, or all of them do; it is not in use."""
        for models in self._slots if slot is None else [self._slots[slot]]:
            models.forget_prompts()
