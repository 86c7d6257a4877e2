"""A conversation with an engine: its turns, and what can be done about the last one."""

from collections.abc import Callable, Container, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ..config import Config
from ..engine.engine import Engine, last_result
from ..errors import UsageError
from ..events import Done, Event, Notice, Step
from ..prompt.message import Message
from ..result import REPLACED, Result
from .pick import picked
from .saved_state import SavedState, read_state, write_state

_STATE = "kv-state"


class _Turn(NamedTuple):
    message: Message
    is_read: bool  # by the models, in later turns


@dataclass(frozen=True)
class Exchange:
    """A question and how it was answered."""

    question: str
    result: Result

    @property
    def messages(self) -> list[Message]:
        return [Message("user", self.question), Message("assistant", self.result.text)]

    @property
    def is_read(self) -> bool:
        """Whether the models read it in later turns: a draft copies the refusal that it was blocked with."""
        return self.result.finish_reason not in REPLACED


class Conversation:
    """The turns so far, over an engine that somebody else opens and closes.

    One thread uses it. An event stream is read to its end, or closed, before anything else is asked.
    """

    def __init__(self, engine: Engine, turns: Sequence[Message] = (), *, unread: Container[int] = ()) -> None:
        """Begin, or take up a conversation again.

        Args:
            turns: the user's and assistant's turns so far.
            unread: which of them, counted from 0, the models do not read: blocked questions and what stands
                for their answers.
        """
        self._engine = engine
        self._earlier = [_Turn(message, index not in unread) for index, message in enumerate(turns)]
        self._exchanges: list[Exchange] = []
        self._left_out = 0  # leading turns that the models read no more
        self._forgot = False  # something that a kept state may hold

    @property
    def messages(self) -> list[Message]:
        """The user's and the assistant's turns, blocked ones too. The system prompt is a knob."""
        return [turn.message for turn in (*self._earlier, *_turns(self._exchanges))]

    @property
    def _readable(self) -> list[Message]:
        """The turns that are not blocked: what the models read, as far as it fits."""
        return _readable(self._earlier, self._exchanges)

    @property
    def _read(self) -> list[Message]:
        """The turns that the models read."""
        return self._readable[self._left_out :]

    @property
    def last(self) -> Exchange | None:
        """The last exchange that this process answered, unless it was undone."""
        return self._exchanges[-1] if self._exchanges else None

    def answer(self, text: str, config: Config | None = None, **knobs: Any) -> Result:
        """Ask a further question and wait for the result. Raises: as `ask`."""
        return last_result(self.ask(text, (config or self._engine.config).with_values(knobs)))

    def ask(self, text: str, config: Config | None = None) -> Generator[Event, None, None]:
        """Answer a further question; ends in `Done`, both turns then belong to the conversation.

        `config` are the knobs of this answer, if other than the engine's.

        Not if the answer was cancelled before any text, or failed: the conversation is then as it was.

        Raises:
            UsageError, ContextFull, ModelError: as `Engine.stream`.
        """
        config = config or self._engine.config
        return self._answer(text, config, _answered(self._earlier), self._exchanges, _counts)

    def retry(self, config: Config | None = None, question: str | None = None) -> Iterator[Event]:
        """Answer the last question again, or another in its place.

        The new exchange takes the old one's place once it is whole; cancelled, it leaves the old one.

        Raises:
            UsageError: there is no question yet; also as `ask`.
        """
        last, earlier, exchanges = self._without_last()
        if last is None:
            raise UsageError("there is no question to answer again", "Ask one first.")
        config = config or self._engine.config
        return self._answer(question or last, config, earlier, exchanges, _is_whole)

    def pick(self, beam: int, steps: Sequence[Step]) -> Exchange:
        """Let another beam of the last answer, counted from 0, be the answer; the exchange it makes.

        Raises:
            UsageError: there is no answer of this process, or as `picked`.
        """
        if self.last is None:
            raise UsageError("there is no answer of this run to pick from", "Ask something, or /retry.")
        result = picked(self.last.result, beam, steps)
        self._engine.background.stop()
        self._forgot = True
        self._exchanges = [*self._exchanges[:-1], Exchange(self.last.question, result)]
        return self._exchanges[-1]

    def undo(self) -> bool:
        """Forget the last question and its answer; False if there is none."""
        self._engine.background.stop()
        self._forgot = True
        question, self._earlier, self._exchanges = self._without_last()
        if self._left_out >= len(self._readable):
            self._left_out = 0
        return question is not None

    def clear(self) -> None:
        """Forget every turn."""
        self._engine.background.stop()
        self._earlier, self._exchanges, self._left_out, self._forgot = [], [], 0, True

    def change_models(self, config: Config) -> Iterator[Event]:
        """Go on with other loading knobs.

        Raises:
            UsageError, ModelError: as `Engine.load`; the engine then goes on as it was.
        """
        yield from self._engine.change(config)
        self._left_out = 0

    def read_ahead(self, config: Config) -> None:
        """Let the models read in the background, while the user types, what is known of the next prompt.

        Whatever is asked of the conversation next stops it at once.
        """
        self._engine.read_ahead(self._read, config)

    def save_state(self, folder: Path) -> None:
        """Keep in a folder what the models hold of this conversation, read to its end before.

        Where this process has answered nothing that is read again, what was kept before stays; not if turns
        were undone.

        Raises:
            AlignBeamError: it can't be written, or the backend failed.
        """
        if self.last is None or not self._read:
            self.forget_state(folder)
            return
        config = Config.of(self.last.result.config)
        self.read_ahead(config)
        self._engine.background.wait()
        snapshot = self._engine.snapshot(self._read, config)
        write_state(folder / _STATE, SavedState(snapshot, self._left_out))

    def forget_state(self, folder: Path) -> None:
        """Delete what was kept, if turns that it may hold were undone."""
        if self._forgot:
            (folder / _STATE).unlink(missing_ok=True)

    def load_state(self, folder: Path) -> bool:
        """Take up what `save_state` kept; the next answer then reads only what is new.

        False if it is not there, damaged, or of other models, parameters or another build: what it lacks is
        read anew, and the next `save_state` takes its place.

        Raises:
            UsageError, ModelError: as `Engine.load`.
        """
        kept = read_state(folder / _STATE)
        if kept is None or not self._engine.restore(kept.snapshot):
            return False
        if any(turn.role == "user" for turn in self._readable[kept.left_out : kept.left_out + 1]):
            self._left_out = kept.left_out
        return True

    def close(self) -> None:
        """Stop what runs in the background; the engine stays open."""
        self._engine.background.stop()

    def _without_last(self) -> tuple[str | None, list[_Turn], list[Exchange]]:
        """The last question, and the turns before it: earlier ones, then this process's."""
        if self._exchanges:
            return self._exchanges[-1].question, self._earlier, self._exchanges[:-1]
        asked = [index for index, turn in enumerate(self._earlier) if turn.message.role == "user"]
        if not asked:
            return None, self._earlier, []
        return self._earlier[asked[-1]].message.content, self._earlier[: asked[-1]], []

    def _answer(
        self,
        question: str,
        config: Config,
        earlier: list[_Turn],
        exchanges: list[Exchange],
        counts: Callable[[Result], bool],
    ) -> Generator[Event, None, None]:
        turns = [*_readable(earlier, exchanges), Message("user", question)]
        yield from self._engine.load(config)
        left_out = self._engine.left_out(turns, config, self._left_out)
        if left_out > self._left_out:
            yield Notice(
                f"the context is full: of {len(turns)} turns the oldest {left_out} are left out from now on"
            )
        with closing(self._engine.stream(turns[left_out:], config)) as events:
            try:
                for event in events:
                    if isinstance(event, Done) and counts(event.result):
                        self._forgot |= (earlier, exchanges) != (self._earlier, self._exchanges)
                        self._earlier, self._left_out = earlier, left_out
                        self._exchanges = [*exchanges, Exchange(question, event.result)]
                    yield event
            except GeneratorExit:
                raise
            except BaseException as error:
                yield events.throw(error)
                raise


def _turns(exchanges: Sequence[Exchange]) -> Iterator[_Turn]:
    for exchange in exchanges:
        for message in exchange.messages:
            yield _Turn(message, exchange.is_read)


def _readable(earlier: Sequence[_Turn], exchanges: Sequence[Exchange]) -> list[Message]:
    return [turn.message for turn in (*earlier, *_turns(exchanges)) if turn.is_read]


def _answered(turns: list[_Turn]) -> list[_Turn]:
    """Without a last question that never got an answer."""
    answers = [index for index, turn in enumerate(turns) if turn.message.role == "assistant"]
    return turns[: answers[-1] + 1] if answers else []


def _counts(result: Result) -> bool:
    return bool(result.text) or _is_whole(result)


def _is_whole(result: Result) -> bool:
    return result.finish_reason != "cancelled"
