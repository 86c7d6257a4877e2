"""A conversation with an engine: its turns, and what can be done about the last one."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from .config import Config
from .engine import Engine
from .errors import UsageError
from .events import Done, Event, Result
from .prompt import Message


@dataclass(frozen=True)
class Exchange:
    """A question and how it was answered."""

    question: str
    result: Result

    @property
    def messages(self) -> list[Message]:
        return [Message("user", self.question), Message("assistant", self.result.text)]


class Conversation:
    """The turns so far, over an engine that somebody else opens and closes.

    One thread uses it. An event stream is read to its end, or closed, before anything else is asked.
    """

    def __init__(self, engine: Engine, turns: Sequence[Message] = ()) -> None:
        """`turns`: the user's and assistant's turns of a conversation that is taken up again."""
        self._engine = engine
        self._earlier = list(turns)
        self._exchanges: list[Exchange] = []

    @property
    def messages(self) -> list[Message]:
        """The user's and the assistant's turns. The system prompt is a knob."""
        return [*self._earlier, *(turn for exchange in self._exchanges for turn in exchange.messages)]

    @property
    def last(self) -> Exchange | None:
        """The last exchange that this process answered, unless it was undone."""
        return self._exchanges[-1] if self._exchanges else None

    def ask(self, text: str, config: Config) -> Iterator[Event]:
        """Answer a further question; ends in `Done`, both turns then belong to the conversation.

        Not if the answer was cancelled before any text, or failed: the conversation is then as it was.

        Raises:
            UsageError, ContextFull, ModelError: as `Engine.stream`.
        """
        return self._answer(text, config, self._earlier, self._exchanges)

    def retry(self, config: Config) -> Iterator[Event]:
        """Answer the last question again; the new answer takes the old one's place once it is there.

        Raises:
            UsageError: there is no question yet; also as `ask`.
        """
        question, earlier, exchanges = self._without_last()
        if question is None:
            raise UsageError("there is no question to answer again", "Ask one first.")
        return self._answer(question, config, earlier, exchanges)

    def undo(self) -> bool:
        """Forget the last question and its answer; False if there is none."""
        question, self._earlier, self._exchanges = self._without_last()
        return question is not None

    def clear(self) -> None:
        """Forget every turn."""
        self._earlier, self._exchanges = [], []

    def change_models(self, config: Config) -> Iterator[Event]:
        """Go on with other loading knobs.

        Raises:
            UsageError, ModelError: as `Engine.load`; the engine then is as it was.
        """
        return self._engine.change(config)

    def read_ahead(self) -> None:
        """Let the models read the last answer's rest in the background, while the user reads and types.

        Whatever is asked of the conversation next stops it at once.
        """

    def save_state(self, folder: Path) -> None:
        """Keep what the models hold of this conversation in a folder."""

    def load_state(self, folder: Path) -> bool:
        """Take up what `save_state` kept; False if there is nothing that fits these models."""
        return False

    def close(self) -> None:
        """Stop what runs in the background; the engine stays open."""

    def _without_last(self) -> tuple[str | None, list[Message], list[Exchange]]:
        """The last question, and the turns before it: earlier ones, then this process's."""
        if self._exchanges:
            return self._exchanges[-1].question, self._earlier, self._exchanges[:-1]
        asked = [index for index, turn in enumerate(self._earlier) if turn.role == "user"]
        if not asked:
            return None, self._earlier, []
        return self._earlier[asked[-1]].content, self._earlier[: asked[-1]], []

    def _answer(
        self, question: str, config: Config, earlier: list[Message], exchanges: list[Exchange]
    ) -> Iterator[Event]:
        before = [*earlier, *(turn for exchange in exchanges for turn in exchange.messages)]
        with closing(self._engine.stream([*before, Message("user", question)], config)) as events:
            for event in events:
                if isinstance(event, Done) and _counts(event.result):
                    self._earlier = earlier
                    self._exchanges = [*exchanges, Exchange(question, event.result)]
                yield event


def _counts(result: Result) -> bool:
    return bool(result.text) or result.finish_reason != "cancelled"
