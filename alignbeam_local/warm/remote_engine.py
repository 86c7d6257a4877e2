"""An engine whose models a running server holds; what that can't give it does itself, as any engine."""

import queue
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from time import monotonic
from typing import Any

from ..cancellation import Cancellation
from ..config import Config
from ..engine.engine import Engine
from ..engine.scheduler import AnswerEvent, AnswerScheduler, Asked
from ..engine.snapshot import Snapshot
from ..errors import AlignBeamError, ServerGone, UsageError, as_ours
from ..events import AnswerText, Done, Event, Notice, Withdrawn
from ..models.registry import Registry
from ..prompt.message import Message
from ..result import Result
from ..roles import ROLES
from .connection import Connection
from .found_server import FoundServer
from .wire import heard, told_messages

#: A decode that is going on ends before an answer can.
_CANCEL_SECONDS = 10.0


class RemoteEngine(Engine):
    """As `Engine`; answers are the same, and nothing is loaded here as long as the server serves them."""

    def __init__(
        self,
        config: Config,
        registry: Registry,
        server: FoundServer,
        *,
        cancellation: Cancellation | None = None,
    ) -> None:
        """`server` has the models of this configuration."""
        super().__init__(config, registry, cancellation=cancellation)
        self._server: FoundServer | None = server
        self._is_new = True

    def _serving(self, config: Config) -> FoundServer | None:
        """The server, if it gives answers with these knobs: they may need models that nothing needed yet."""
        server = self._server
        with suppress(UsageError):  # it is told when the model is to be opened here
            if server and server.serves(config) and server.holds(config, self._registry):
                return server
        return None

    @property
    def is_remote(self) -> bool:
        return self._server is not None

    @property
    def has_examples_to_read(self) -> bool:
        return self._server is None and super().has_examples_to_read

    def load(self, config: Config | None = None, *, judge_later: bool = False) -> Iterator[Event]:
        config = config or self.config
        self._require_possible(config)
        server = self._serving(config)
        if server is None:
            yield from super().load(config, judge_later=judge_later)
            self._server = None  # several at once are made in one place, and this one has what they need
        elif self._is_new:
            self._is_new = False
            yield from map(Notice, server.notices)

    def change(self, config: Config) -> Iterator[Event]:
        server = self._server
        self._lost()
        try:
            yield from super().change(config)
        except BaseException:
            self._server = server
            raise

    def _lost(self) -> None:
        """From now on models are opened here."""
        self._server = None

    def stream(
        self, messages: str | Sequence[Message], config: Config | None = None, **knobs: Any
    ) -> Generator[Event, None, None]:
        config = (config or self.config).with_values(knobs)
        server = self._serving(config)
        if server is None:
            yield from super().stream(messages, config)
            return
        turns = [Message("user", messages)] if isinstance(messages, str) else messages
        is_shown = False
        try:
            for event in _answer(server, turns, config, self.cancellation):
                is_shown = _is_shown(event, is_shown)
                yield event
        except GeneratorExit:
            raise
        except BaseException as error:  # what no last verdict has passed is taken back, as in `Answer.stream`
            if isinstance(error, ServerGone):
                self._lost()
            if is_shown and config.judged:
                yield Withdrawn("")
            raise

    def parallel(self) -> AnswerScheduler:
        if self._server is None:
            return super().parallel()
        return RemoteAnswers(self._server, self.config.parallel, self._lost)

    def serves(self, config: Config) -> bool:
        return self._serving(config) is not None or super().serves(config)

    def left_out(self, turns: Sequence[Message], config: Config, already: int) -> int:
        server = self._serving(config)
        if server is None:
            return super().left_out(turns, config, already)
        wanted = {"ask": "left_out", "already": already, **_told(server, turns, config)}
        try:
            return _left_out(server, wanted, self.cancellation)
        except ServerGone:
            self._lost()
            raise

    def read_ahead(self, turns: Sequence[Message], config: Config) -> None:
        """The server's models are others' too: nothing is read ahead there."""
        if self._server is None:
            super().read_ahead(turns, config)

    def snapshot(self, turns: Sequence[Message], config: Config) -> Snapshot:
        return super().snapshot(turns, config) if self._server is None else Snapshot()

    def restore(self, snapshot: Snapshot) -> bool:
        return super().restore(snapshot) if self._server is None else False


class RemoteAnswers(AnswerScheduler):
    """As `AnswerScheduler`, over connections: a thread each, which only reads."""

    def __init__(self, server: FoundServer, num_slots: int, lost: Callable[[], None]) -> None:
        """`lost` is called when the server is gone."""
        self._server = server
        self._lost = lost
        self._num_slots = num_slots
        self._arrived: queue.SimpleQueue[AnswerEvent] = queue.SimpleQueue()
        self._open: dict[int, Cancellation] = {}

    @property
    def has_free_slot(self) -> bool:
        return len(self._open) < self._num_slots

    def begin(self, key: int, asked: Asked, slot: int | None = None) -> None:
        self._open[key] = Cancellation()
        threading.Thread(target=self._read, args=(key, asked, self._open[key]), daemon=True).start()

    def _read(self, key: int, asked: Asked, cancellation: Cancellation) -> None:
        try:
            for event in _answer(self._server, asked.messages, asked.config, cancellation):
                self._arrived.put(AnswerEvent(key, event))
        except Exception as error:  # whoever waits for this answer is told in any case
            self._arrived.put(AnswerEvent(key, as_ours(error)))

    def step(self) -> list[AnswerEvent]:
        """What has arrived; of nothing, what does in a moment."""
        happened = []
        for key, what in self._take():
            if key not in self._open:  # it has ended: the first end counts
                continue
            happened.append(AnswerEvent(key, what))
            if isinstance(what, Done | AlignBeamError):
                del self._open[key]
            if isinstance(what, ServerGone):
                self._lost()
        return happened

    def _take(self) -> list[AnswerEvent]:
        arrived = []
        with suppress(queue.Empty):
            arrived.append(self._arrived.get(timeout=0.1))
            while True:
                arrived.append(self._arrived.get_nowait())
        return arrived

    def fail(self, key: int, error: BaseException) -> None:
        self._open[key].set()
        assert isinstance(error, AlignBeamError)
        self._arrived.put(AnswerEvent(key, error))

    def close(self) -> None:
        for cancellation in self._open.values():
            cancellation.set()
        self._open = {}

    def forget(self, slot: int | None = None) -> None:
        """The server's slots are others' too."""


def _answer(
    server: FoundServer, turns: Sequence[Message], config: Config, cancellation: Cancellation
) -> Generator[Event, None, None]:
    """The events of one answer; a cancellation is passed on, and ends in `Done` as it does here.

    Raises:
        ServerGone: the server ended before the answer did.
        Cancelled: it was, and the server does not say so in time: it may stand still.
        AlignBeamError: what it raised there.
    """
    with Connection(server.path) as connection:
        connection.send({"ask": "answer", "fresh": _is_fresh(turns), **_told(server, turns, config)})
        told_at: float | None = None
        for line in connection.all():
            if cancellation.is_set and told_at is None:
                told_at = monotonic()
                connection.send({"cancel": True})
            if line is None:
                if told_at is not None and monotonic() - told_at > _CANCEL_SECONDS:
                    cancellation.check()
                continue
            event = heard(line)
            if isinstance(event, AlignBeamError):
                raise event
            if isinstance(event, Done):
                yield Done(_as_here(event.result, config))
                return
            yield event


def _left_out(server: FoundServer, wanted: Mapping[str, Any], cancellation: Cancellation) -> int:
    """Raises: ServerGone, AlignBeamError: as `_answer`. Cancelled: before it said anything."""
    with Connection(server.path) as connection:
        connection.send(wanted)
        for found in connection.all():
            if found is None:
                cancellation.check()
            elif "error" in found:
                error = heard(found)
                assert isinstance(error, AlignBeamError)
                raise error
            else:
                return int(found["left_out"])
    raise AssertionError("a connection says something or ends")


def _is_shown(event: Event, before: bool) -> bool:
    """Whether text of the draft's stands behind this event; `before`: whether some did before it."""
    if isinstance(event, Withdrawn):
        return before and event.stands > 0
    return before or isinstance(event, AnswerText)


def _as_here(result: Result, config: Config) -> Result:
    """Knobs lose their types on the way; models that the server holds for others have no part in it."""
    kept = {role: card for role, card in result.models.items() if role in (*ROLES, *config.roles)}
    models = {role: card if role in config.roles else None for role, card in kept.items()}
    return replace(result, config=config.model_dump(), models=models)


def _is_fresh(turns: Sequence[Message]) -> bool:
    """A question by itself is answered as a process of its own would; a chat finds its slot warm."""
    return all(turn.role != "assistant" for turn in turns)


def _told(server: FoundServer, turns: Sequence[Message], config: Config) -> dict[str, Any]:
    """One request: it needs the room of one slot, however many are asked at once; the others wait there."""
    knobs = config.with_values({"parallel": 1}).model_dump(mode="json")
    return {"pair": server.pair, "messages": told_messages(turns), "config": knobs}
