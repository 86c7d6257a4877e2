"""The one thread that owns engines, contexts and greenlets: jobs come in by a queue, events go out by calls.

Nothing else touches a model: greenlets can't be switched from another thread, and llama.cpp's contexts are
not safe in two.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from math import ceil
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Literal, NamedTuple, TypeVar

from ...engine.engine import Engine
from ...errors import AlignBeamError, Cancelled, InternalError
from ...events import Event
from .jobs import Job, JobEvent, is_last
from .pair import Pair, as_error

log = logging.getLogger(__name__)

T = TypeVar("T")

#: With work to do and no step in this time the engine counts as stuck.
STUCK_SECONDS = 30.0
_IDLE_SECONDS = 1.0

State = Literal["loading", "ok", "stopping", "stuck", "stopped"]


class QueueFull(AlignBeamError):
    """As many wait already as may; `retry_after` seconds are likely to free a place."""

    kind = "queue_full"

    def __init__(self, waiting: int, retry_after: int) -> None:
        super().__init__(f"{waiting} requests wait already", f"Try again in {retry_after} s.")
        self.retry_after = retry_after


class Unavailable(AlignBeamError):
    """The server loads, stops, or has failed; `state` says which."""

    kind = "unavailable"

    def __init__(self, state: State) -> None:
        why = {"loading": "the models are being loaded", "stopping": "the server is shutting down"}
        super().__init__(why.get(state, "the engine has stopped"))
        self.state = state


class Health(NamedTuple):
    """How the engine is; `last_step_s`: seconds since it last did something."""

    state: State
    last_step_s: float
    waiting: int
    running: int


class EngineThread:
    """Answers jobs on the models of several pairs, in turns."""

    def __init__(
        self,
        pairs: Mapping[str, Pair],
        *,
        queue_limit: int = 16,
        idle_seconds: float | None = None,
        watch: Callable[[str, Event], None] = lambda *_: None,
    ) -> None:
        """Nothing runs yet.

        Args:
            pairs: by name; the thread's own from its start on.
            queue_limit: how many jobs of a pair may wait for a slot.
            idle_seconds: a pair that nobody used for so long is closed, until somebody does.
            watch: called in the thread with a pair's name and what happens while its models are loaded.
        """
        self._pairs = dict(pairs)
        self._queue_limit = queue_limit
        self._idle_seconds = idle_seconds
        self._watch = watch
        #: Called in the thread, when the models of all pairs are loaded for the first time.
        self.when_loaded: Callable[[], None] = lambda: None
        #: Called in the thread, as its last act; with the error that ended it, if one did.
        self.when_ended: Callable[[AlignBeamError | None], None] = lambda _: None
        self._commands: SimpleQueue[Callable[[], None] | None] = SimpleQueue()  # None: look around
        self._lock = threading.Lock()
        self._open_jobs = dict.fromkeys(self._pairs, 0)  # submitted and not ended
        self._is_new = True  # the first loading is not done
        self._loads = True
        self._drains = False
        self._stops = False
        self._has_ended = False
        self._stamp = monotonic()
        self._decodes_seen = 0
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    # --- called from other threads

    def start(self) -> None:
        """Load the models of every pair, then answer."""
        self._thread.start()

    def submit(self, pair: str, job: Job, *, is_owners: bool = False) -> None:
        """Let a job be answered; from now on it is told what happens.

        Args:
            is_owners: the machine's own user asks, who waits however many do.

        Raises:
            Unavailable: the engine loads, stops, or has stopped.
            QueueFull: too many wait.
        """
        slots = self._pairs[pair].num_slots
        with self._lock:  # what is put down before the end is set is told of the end
            if self._is_new or self._drains or self._has_ended:
                raise Unavailable(self.health.state)
            ahead = self._open_jobs[pair] - slots
            if ahead >= self._queue_limit and not is_owners:
                turns = ceil((ahead + 1) / slots)
                raise QueueFull(ahead, ceil(turns * self._pairs[pair].usual_seconds))
            self._open_jobs[pair] += 1
            self._commands.put(lambda: self._pairs[pair].add(self._counted(pair, job)))

    def call(self, pair: str, work: Callable[[Engine], T]) -> "Future[T]":
        """Let the thread do this with a pair's engine, loaded, between two decodes."""
        found: Future[T] = Future()
        with self._lock:
            if self._is_new or self._has_ended:
                found.set_exception(Unavailable(self.health.state))
            else:
                self._commands.put(lambda: self._call(pair, work, found))
        return found

    def cancel(self, job: Job) -> None:
        """Nobody waits for this job any more: its slot is free after the decode that is going on."""
        job.cancelled = True
        self._commands.put(None)

    def drain(self) -> None:
        """Take no more jobs, and end when the last is answered."""
        self._drains = True
        self._commands.put(None)

    def stop(self) -> None:
        """End all jobs, abort the decode that is going on, free the models, end."""
        self._stops = self._drains = True
        self._commands.put(None)
        for pair in self._pairs.values():
            pair.interrupt()

    def join(self, seconds: float | None = None) -> bool:
        """Wait until it has ended; False: it has not."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    @property
    def health(self) -> Health:
        """By what the thread did last, not by what it should do."""
        self._look_at_decodes()
        age = monotonic() - self._stamp
        waiting = sum(pair.num_waiting for pair in self._pairs.values())
        running = sum(pair.num_running for pair in self._pairs.values())
        return Health(self._state(age), age, waiting, running)

    def _look_at_decodes(self) -> None:
        """A verdict or a long prompt is one step of many decodes: each shows that the thread lives."""
        decodes = sum(pair.decodes for pair in self._pairs.values())
        if decodes != self._decodes_seen:
            self._decodes_seen, self._stamp = decodes, monotonic()

    def _state(self, age: float) -> State:
        if self._has_ended or not self._thread.is_alive():
            return "stopping" if self._drains else "stopped"
        if self._drains:
            return "stopping"
        if self._loads or self._is_new:
            return "loading"
        return "stuck" if age > STUCK_SECONDS and any(self._open_jobs.values()) else "ok"

    def load_notices(self, pair: str) -> tuple[str, ...]:
        """What the last loading of a pair had to say."""
        return self._pairs[pair].engine.load_notices

    # --- the thread

    def _run(self) -> None:
        ended_by: AlignBeamError | None = None
        try:
            for name in self._pairs:
                self._load(name)
            self._is_new = False
            self.when_loaded()
            while not self._is_over:
                self._turn()
        except Exception as error:
            is_stopped = self._stops and isinstance(error, Cancelled)  # while it loaded
            ended_by = None if is_stopped else as_error(error)
        except BaseException:  # somebody wants the thread to end: it does, and says so
            ended_by = InternalError("the engine was stopped by force")
        try:
            self._end(ended_by)
        except Exception as error:
            ended_by = ended_by or as_error(error)
        self.when_ended(ended_by)

    def _end(self, ended_by: AlignBeamError | None) -> None:
        with self._lock:
            self._has_ended = True
        self._take_commands(wait=False)
        for pair in self._pairs.values():
            pair.fail_all(ended_by or Unavailable("stopping"))
        for pair in self._pairs.values():
            pair.close()

    @property
    def _is_over(self) -> bool:
        has_work = any(pair.has_work for pair in self._pairs.values()) or not self._commands.empty()
        return self._stops or (self._drains and not has_work)

    def _turn(self) -> None:
        self._stamp = monotonic()
        busy = [pair for pair in self._pairs.values() if pair.has_work]
        self._take_commands(wait=not busy)
        for name, pair in self._pairs.items():
            try:
                self._serve(name)
            except Exception as error:  # what is no answer's own fault: its pair begins anew
                known = as_error(error)
                log.warning("%s is closed, and opened anew for the next answer: %s", name, known.message)
                pair.fail_all(known)
                pair.close()

    def _serve(self, name: str) -> None:
        pair = self._pairs[name]
        if pair.has_work and not pair.is_open:
            self._load(name)
        pair.turn()
        if self._is_idle(pair):
            pair.close()

    def _is_idle(self, pair: Pair) -> bool:
        if self._idle_seconds is None or pair.has_work or not pair.is_open:
            return False
        return monotonic() - pair.last_used > self._idle_seconds

    def _take_commands(self, *, wait: bool) -> None:
        """Those that are there; of none, wait for one a while."""
        for command in self._arrived(wait=wait):
            if command is not None:
                command()

    def _call(self, name: str, work: Callable[[Engine], T], found: "Future[T]") -> None:
        if not found.set_running_or_notify_cancel():
            return
        try:
            if self._has_ended:
                raise Unavailable(self.health.state)
            if not self._pairs[name].is_open:
                self._load(name)
            found.set_result(work(self._pairs[name].engine))
        except Exception as error:
            found.set_exception(error)

    def _arrived(self, *, wait: bool) -> Iterator[Callable[[], None] | None]:
        try:
            if wait:
                yield self._commands.get(timeout=_IDLE_SECONDS)
            while True:
                yield self._commands.get_nowait()
        except Empty:
            return

    def _counted(self, name: str, job: Job) -> Job:
        """The same; when it ends its place is free."""
        tell = job.tell

        def counted(events: Sequence[JobEvent]) -> None:
            if is_last(events[-1]):
                with self._lock:
                    self._open_jobs[name] -= 1
            tell(events)

        job.tell = counted
        return job

    def _load(self, name: str) -> None:
        """Each event shows that the thread lives. Raises: as `Engine.load`."""
        self._loads = True
        try:
            for event in self._pairs[name].load():
                self._stamp = monotonic()
                self._watch(name, event)
        finally:
            self._loads = False
            self._stamp = monotonic()
