"""`filter --parallel`: several records are answered at once, and written in their order."""

from collections import deque
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING

from alignbeam_local.errors import AlignBeamError, Cancelled, ServerGone
from alignbeam_local.events import Done, Event, Notice, Step

from .. import playing
from ..inputs import Arriving
from .run import FilterRun, Record

if TYPE_CHECKING:
    from alignbeam_local.config import Config
    from alignbeam_local.engine.engine import Engine
    from alignbeam_local.engine.scheduler import AnswerScheduler


@dataclass
class _Record(Record):
    """Its `outcome` is None until it can be written."""

    deadline: float | None = None
    told: list[Event] = field(default_factory=list)  # what its view shows when its turn comes

    @property
    def is_late(self) -> bool:
        return self.deadline is not None and monotonic() > self.deadline


class ParallelRun:
    """One pass over stdin with as many answers in the making as there are slots."""

    def __init__(self, run: FilterRun, engine: "Engine", timeout: float | None) -> None:
        """A time limit is looked at between two decodes."""
        self._run = run
        self._engine = engine
        self._timeout = timeout
        self._answers: AnswerScheduler | None = None
        self._unwritten: deque[_Record] = deque()
        self._begun: dict[int, _Record] = {}
        #: They need more than is open, or their server is gone: they wait until no other is begun.
        self._held: deque[_Record] = deque()
        self._taken = 0

    def answer_all(self, source: Arriving) -> None:
        """Take records as they come, as many as there is room for; wait for one only if none is left.

        Raises:
            Cancelled: the user stopped the run.
        """
        while (raw := source.take()) is not None:
            with self._engine.cancellation.on_interrupt(), self._ended():
                self._take_up(raw)
                while self._unwritten:
                    self._engine.cancellation.check()  # records that fail at once decode nothing
                    self._write_ready()
                    self._take_up_ready(source)
                    self._step()
                self._engine.cancellation.check()

    @property
    def _has_room(self) -> bool:
        return not self._held and (self._answers is None or self._answers.has_free_slot)

    @contextmanager
    def _ended(self) -> Iterator[None]:
        """What is left half-way must let go of the models before they are closed."""
        try:
            yield
        finally:
            if self._answers is not None:
                self._answers.close()
            if self._run.progress:
                self._run.progress.close()

    def _take_up_ready(self, source: Arriving) -> None:
        """No more than there are slots: records that take none, such as blank ones, may have no end."""
        for _ in range(self._engine.config.parallel):
            raw = source.take(wait=False) if self._has_room else None
            if raw is None:
                return
            self._take_up(raw)

    def _take_up(self, raw: bytes) -> None:
        self._taken += 1
        record = _Record(self._taken)
        self._unwritten.append(record)
        self._run.read(record, raw)
        if record.asked:
            self._begin(record)

    def _begin(self, record: _Record) -> None:
        from alignbeam_local.engine.scheduler import Asked

        assert record.asked is not None
        messages, config = record.asked
        if self._begun and not self._engine.serves(config):
            self._held.append(record)
            return
        try:
            answers = self._opened(record, config)
        except Cancelled:
            raise
        except AlignBeamError as error:
            record.outcome = error
            return
        record.deadline = None if self._timeout is None else monotonic() + self._timeout
        self._begun[record.number] = record
        answers.begin(record.number, Asked(messages, config))

    def _opened(self, record: _Record, config: "Config") -> "AnswerScheduler":
        """The slots, with what these knobs need. Raises: as `Engine.load`."""
        if self._answers is not None and not self._engine.serves(config):
            self._answers.forget()
            self._answers = None
        for event in self._engine.load(config):
            self._tell(record, event)
        if self._answers is None:
            self._answers = self._engine.parallel()
        return self._answers

    def _step(self) -> None:
        if self._answers is not None:
            for key, what in self._answers.step():
                self._happened(self._begun[key], what)
            for record in [record for record in self._begun.values() if record.is_late]:
                self._answers.fail(record.number, self._run.timed_out())
        while self._held and (not self._begun or self._may_join(self._held[0])):
            self._begin(self._held.popleft())

    def _may_join(self, record: _Record) -> bool:
        """Whether it can begin beside those that are in the making."""
        assert record.asked is not None
        has_slot = self._answers is not None and self._answers.has_free_slot
        return has_slot and self._engine.serves(record.asked[1])

    def _happened(self, record: _Record, what: Event | AlignBeamError) -> None:
        """Raises: Cancelled: the user stopped the run."""
        if isinstance(what, ServerGone):  # nothing of it was written: it is asked again, here
            record.told.clear()
            self._held.append(record)
        elif isinstance(what, AlignBeamError):
            record.outcome = what
        else:
            self._tell(record, what)
            if not isinstance(what, Done):
                return
            playing.stop_if_cancelled(what.result)
            record.outcome = self._run.timed_out() if record.is_late else what.result
        del self._begun[record.number]

    def _tell(self, record: _Record, event: Event) -> None:
        if self._run.progress:
            self._run.progress.show(event)
        elif isinstance(event, Step | Notice):
            record.told.append(event)

    def _write_ready(self) -> None:
        while self._unwritten and not self._is_awaited(self._unwritten[0]):
            record = self._unwritten.popleft()
            with closing(self._run.view(record.number)) as view:
                for event in record.told:
                    view.show(event)
            self._run.write(record.number, record.row, record.outcome)

    def _is_awaited(self, record: _Record) -> bool:
        return record.asked is not None and record.outcome is None
