"""The models of one profile at work: jobs that wait, jobs in slots, one batch a turn. One thread's own."""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from statistics import median
from time import monotonic

from greenlet import GreenletExit

from ...engine.engine import Engine
from ...engine.scheduler import AnswerScheduler, SlotWork
from ...errors import AlignBeamError, Cancelled, InternalError, ModelError, UsageError, as_ours
from ...events import Done, Event
from ...lm.language_model import LanguageModel
from ...lm.sequences import BATCH_TOKENS
from .jobs import Accepted, Begun, Job, JobEvent, is_last

log = logging.getLogger(__name__)

#: Tokens of a new prompt that are read between two steps of the others: half a second of a small anchor.
PIECE_TOKENS = 64
_REMEMBERED = 20  # durations


class Unreadable(ModelError):
    """This conversation can't be answered: a chat template refuses it, or more is asked for than is open."""


class Pair:
    """An engine that answers several at once, and is opened anew where it failed or was let go."""

    def __init__(self, engine: Engine, require_unchanged: Callable[[], None] = lambda: None) -> None:
        """Nothing is loaded yet.

        Args:
            engine: this pair's alone.
            require_unchanged: called before models are opened; raises where they are no longer those that
                the server says it has.
        """
        self.engine = engine
        self._require_unchanged = require_unchanged
        self.num_slots = engine.config.parallel
        self._answers: AnswerScheduler | None = None
        self._waiting: deque[Job] = deque()
        self._running: dict[int, Job] = {}
        self._is_doubtful = False  # a model failed: what its context holds is not trusted
        self._lms: list[LanguageModel] = []  # those that were opened last
        self._seconds: deque[float] = deque(maxlen=_REMEMBERED)
        self.last_used = monotonic()

    @property
    def is_open(self) -> bool:
        """Whether its models are loaded."""
        return self._answers is not None

    @property
    def has_work(self) -> bool:
        return bool(self._waiting or self._running)

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        return len(self._running)

    @property
    def decodes(self) -> int:
        """Of all models that were opened last; may be asked from any thread."""
        return sum(lm.decodes for lm in self._lms)

    @property
    def usual_seconds(self) -> float:
        """How long an answer takes, by the median of the last ones; 10 before there was one."""
        return median(self._seconds) if self._seconds else 10.0

    def load(self) -> Iterator[Event]:
        """Open the models. Raises: as `Engine.load`, or they have changed since the server started."""
        self._require_unchanged()
        yield from self.engine.load()
        self._answers = self.engine.parallel()
        self._lms = [model.lm for model in self.engine.models.by_role.values()]
        self._is_doubtful = False
        self.last_used = monotonic()
        for job in list(self._waiting):  # they came while the models were closed
            self._look_at(job, self._answers)

    def close(self) -> None:
        """Free the models; nothing is in the making."""
        self._answers = None
        self._lms = []
        self.engine.close()

    def add(self, job: Job) -> None:
        """Let a job wait for a slot; one that can't be answered ends at once."""
        self._waiting.append(job)
        if self._answers is not None:
            self._look_at(job, self._answers)

    def _look_at(self, job: Job, answers: AnswerScheduler) -> bool:
        """Whether it can be answered; if not, it has ended."""
        try:
            if not self.engine.serves(job.asked.config):
                raise UsageError(
                    "these knobs need more or larger contexts than are open",
                    "Ask for less depth or beams, and for no other anchor_row than the server's own.",
                )
            answers.require_fit(job.asked)
            if judge := self.engine.models.judge:
                judge.require_readable(job.asked.messages)
        except ModelError as error:
            self._waiting.remove(job)
            job.tell([Unreadable(error.message, error.hint)])
            return False
        except Exception as error:
            self._waiting.remove(job)
            job.tell([as_error(error)])
            return False
        job.tell([Accepted()])
        return True

    def turn(self) -> None:
        """Begin what can begin, decode one batch, and tell what happened."""
        self._drop_cancelled()
        self._begin_waiting()
        if not (self._running and self._answers):
            self._reopen_if_doubtful()
            return
        for job in self._running.values():
            job.batched_with = max(job.batched_with, len(self._running) - 1)
        happened: dict[int, list[JobEvent]] = {}
        for key, what in self._answers.step():
            happened.setdefault(key, []).append(what)
        for key, events in happened.items():
            self._tell(self._running[key], events)

    def _drop_cancelled(self) -> None:
        for job in [job for job in self._waiting if job.cancelled]:
            self._waiting.remove(job)
            job.tell([Cancelled("cancelled")])
        for job in [job for job in self._running.values() if job.cancelled]:
            assert self._answers is not None
            self._answers.fail(job.key, Cancelled("cancelled"))

    def _begin_waiting(self) -> None:
        while self._waiting and not self._is_doubtful and self._answers and self._answers.has_free_slot:
            self._begin(self._waiting.popleft(), self._answers)

    def _begin(self, job: Job, answers: AnswerScheduler) -> None:
        try:
            slot, held = answers.warmest(job.asked)
            work = contained(answers.work(job.asked))
        except Exception as error:
            job.tell([as_error(error)])
            return
        if job.is_fresh:
            answers.forget(slot)
            if judge := self.engine.models.judge:
                judge.forget()
            held = 0
        job.begun = monotonic()
        self._running[job.key] = job
        job.tell([Begun(held)])
        # By itself a prompt is read in the batches of a process of its own: the same to the last bit.
        answers.read_in_pieces(PIECE_TOKENS if len(self._running) > 1 else BATCH_TOKENS)
        answers.run(job.key, work, slot)

    def _tell(self, job: Job, events: Sequence[JobEvent]) -> None:
        if _is_cut_off(events[-1]) and not job.cancelled:  # by the end of the engine: that is no answer
            events = [*events[:-1], Cancelled("the server is shutting down")]
        if is_last(events[-1]):
            self._end(job, events[-1])
        job.tell(events)

    def _end(self, job: Job, last: JobEvent) -> None:
        del self._running[job.key]
        job.judge_record = self.engine.judge_record
        now = monotonic()
        self.last_used = now
        if isinstance(last, ModelError | InternalError):
            self._is_doubtful = True
            log.warning("an answer failed: %s", last.message)
        elif job.begun is not None:
            self._seconds.append(now - job.begun)

    def _reopen_if_doubtful(self) -> None:
        """What failed is closed as soon as nobody is in the making: the next job opens it anew."""
        if self._is_doubtful:
            log.warning("a model failed: it is closed, and opened anew for the next answer")
            self._is_doubtful = False
            self.close()

    def interrupt(self) -> None:
        """Abort the decode that is going on; from any thread."""
        self.engine.cancellation.set()

    def fail_all(self, error: AlignBeamError) -> None:
        """End whatever waits or runs with this error."""
        jobs = [*self._running.values(), *self._waiting]
        self._running.clear()
        self._waiting.clear()
        for job in jobs:
            job.tell([error])
        if self._answers is not None:
            self._answers.close()


def _is_cut_off(event: JobEvent) -> bool:
    return isinstance(event, Done) and event.result.finish_reason == "cancelled"


def contained(work: SlotWork) -> SlotWork:
    """The same; what goes wrong in it ends this answer as an error of ours, and no other."""

    def run(slot: int) -> Iterator[Event]:
        try:
            yield from work(slot)
        except (AlignBeamError, GreenletExit):
            raise
        except Exception as error:
            raise as_error(error) from error

    return run


def as_error(error: BaseException) -> AlignBeamError:
    """An error of ours; another one is logged, and told as `internal`."""
    if not isinstance(error, AlignBeamError):
        log.error("internal error: %s", type(error).__name__, exc_info=log.isEnabledFor(logging.DEBUG))
    return as_ours(error)
