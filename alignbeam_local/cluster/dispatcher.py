"""Hands tasks to workers, a few at a time; what a lost worker had is made again, and nothing counts twice."""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, NamedTuple

from ..cancellation import Cancellation
from ..errors import AlignBeamError
from .crew import Crew, Json, Lost, Made, Ready, Refused, Task

#: Each worker has one task in the making and one that waits: it is never idle, and little is lost with it.
PER_WORKER = 2
_LOOK_SECONDS = 2.0  # between two looks for places
_STEP_SECONDS = 0.2  # Ctrl-C is seen after that
_PATIENCE_SECONDS = 300.0  # without any worker
_MOST_LOSSES = 3  # of workers with one task, or of workers in a row that never were ready


class Finished(NamedTuple):
    """A task and what was made of it; an error takes the place of what could not be made."""

    task: Task
    outcome: Any


@dataclass
class _Worker:
    is_ready: bool = False
    tasks: list[Task] = field(default_factory=list)  # the first is in the making


class Dispatcher:
    """Tasks in, outcomes out, in the order in which they are made."""

    def __init__(
        self,
        crew: Crew,
        cancellation: Cancellation,
        *,
        most_workers: int | None = None,
        per_worker: int = PER_WORKER,
        welcome: Callable[[Json], None] = lambda _: None,
        tell: Callable[[str], None] = lambda _: None,
        patience: float = _PATIENCE_SECONDS,
    ) -> None:
        """No worker begins before there is a task.

        Args:
            most_workers: no more than so many; None: as many as there are places for.
            per_worker: tasks that one has at once.
            welcome: told what a new worker says of itself; may raise an AlignBeamError to refuse it.
            tell: told what a person should know.
            patience: seconds without any worker that has a place after which the run ends.
        """
        self._crew = crew
        self._cancellation = cancellation
        self._most = most_workers
        self.per_worker = per_worker
        self._welcome = welcome
        self._tell = tell
        self._patience = patience
        self._workers: dict[int, _Worker] = {}
        self._open: dict[int, Task] = {}
        self._waiting: deque[Task] = deque()
        self._losses: Counter[int] = Counter()  # of workers, by the task that they had in the making
        self._never_ready = 0
        self._refused: AlignBeamError | None = None
        self._failed: AlignBeamError | None = None  # raised when what was finished is told
        self._may_come = False  # a worker was there that was not refused: another may be
        self._looked = -_LOOK_SECONDS
        self._places = crew.places()
        self._had_workers = monotonic()

    @property
    def num_ready(self) -> int:
        """How many workers can make something."""
        return sum(worker.is_ready for worker in self._workers.values())

    @property
    def has_room(self) -> bool:
        """Whether one more task would not have to wait long: what is not taken yet needs no memory."""
        could = len(self._workers) + self._places
        workers = could if self._most is None else min(self._most, could)
        return len(self._open) < self.per_worker * max(1, workers)

    def begin(self, task: Task) -> None:
        """Have it made."""
        assert task.key not in self._open, "every task has a key of its own"
        if not self._open:  # until now nobody was missing
            self._had_workers = monotonic()
        self._open[task.key] = task
        self._waiting.append(task)

    def step(self, seconds: float = _STEP_SECONDS) -> list[Finished]:
        """Hand out what waits, and return what was made; of nothing, what is within so many seconds.

        Raises:
            Cancelled: the user stopped it.
            AlignBeamError: no worker can work, or one task after the other ends them.
        """
        self._cancellation.check()
        if self._failed:
            raise self._failed
        self._look_for_places()
        self._hand_out()
        finished: list[Finished] = []
        for report in self._crew.reports(seconds):
            match report:
                case Made(worker, key, outcome):
                    finished += self._made(worker, key, outcome)
                case Ready(worker, about):
                    self._begin_with(worker, about)
                case Refused(worker, error):
                    self._refuse(worker, error)
                case Lost(worker, why, by_itself):
                    self._lose(worker, why, by_itself=by_itself)
        if self._failed and not finished:
            raise self._failed
        self._hand_out()
        return finished

    def all(self, tasks: Iterable[Task]) -> Iterator[Finished]:
        """Have all of them made; a task is asked for when there is room for it. Raises: as `step`."""
        source = iter(tasks)
        is_ended = False
        while not is_ended or self._open:
            while not is_ended and self.has_room:
                task = next(source, None)
                if task is None:
                    is_ended = True
                else:
                    self.begin(task)
            if self._open:
                yield from self.step()

    def _look_for_places(self) -> None:
        now = monotonic()
        if self._crew.num_placed:
            self._had_workers = now
        if now - self._looked < _LOOK_SECONDS:
            return
        self._looked = now
        self._places = max(0, self._crew.places())
        wanted = len(self._open) if self._most is None else min(self._most, len(self._open))
        for _ in range(min(self._places, wanted - len(self._workers))):
            self._workers[self._crew.hire()] = _Worker()
            self._places -= 1
        self._require_some(now)

    def _require_some(self, now: float) -> None:
        """Raises: AlignBeamError: there is no worker, and none will come."""
        if self._crew.num_placed or not self._open:
            return
        may_come = self._may_come and self._crew.may_grow
        if self._refused is not None and not self._workers and not may_come:
            raise self._refused
        if now - self._had_workers > self._patience:
            raise self._refused or AlignBeamError(
                f"there was no worker for {self._patience:.0f} seconds",
                "See whether the cluster has room: CPUs, memory. The same command then goes on.",
            )

    def _hand_out(self) -> None:
        """The first waiting task to whoever has least."""
        while self._waiting:
            ready = {number: len(one.tasks) for number, one in self._workers.items() if one.is_ready}
            number = min(ready, key=ready.__getitem__, default=None)
            if number is None or ready[number] >= self.per_worker:
                return
            task = self._waiting.popleft()
            self._workers[number].tasks.append(task)
            self._crew.give(number, task)

    def _begin_with(self, number: int, about: Json) -> None:
        if (worker := self._workers.get(number)) is None:
            return
        try:
            self._welcome(about)
        except AlignBeamError as error:
            self._crew.leave_out(number)
            self._refuse(number, error)
            return
        worker.is_ready, self._never_ready, self._may_come = True, 0, True

    def _made(self, number: int, key: int, outcome: Any) -> Iterator[Finished]:
        """Nothing where it came from a worker that was given up: somebody else makes it, or has."""
        worker = self._workers.get(number)
        mine = next((task for task in worker.tasks if task.key == key), None) if worker else None
        if worker is None or mine is None:
            return
        worker.tasks.remove(mine)
        self._never_ready = 0
        del self._open[key]
        yield Finished(mine, outcome)

    def _refuse(self, number: int, error: AlignBeamError) -> None:
        """A worker of another build or with other models is not asked."""
        self._refused = error
        self._take_back(number)
        self._tell(f"note: a worker is left out: {error.message}")
        self._looked = -_LOOK_SECONDS

    def _lose(self, number: int, why: str, *, by_itself: bool) -> None:
        """Where it is not the first that ends so the run fails."""
        if number not in self._workers:
            return
        was_ready, self._may_come = self._workers[number].is_ready, True
        tasks = self._take_back(number)
        self._tell(f"note: a worker is gone ({why}); {len(tasks)} of its groups are made again")
        self._looked = -_LOOK_SECONDS
        if by_itself:
            return
        if not was_ready:
            self._never_ready += 1
            if self._never_ready >= _MOST_LOSSES:
                self._failed = AlignBeamError(
                    f"{self._never_ready} workers in a row ended before they were ready: {why}",
                    "Is this program installed there, in the same version, and is there memory enough?",
                )
        for task in tasks[:1]:
            self._losses[task.key] += 1
            if self._losses[task.key] >= _MOST_LOSSES:
                self._failed = AlignBeamError(
                    f"{_MOST_LOSSES} workers ended while they made {task.name or task.key}: {why}",
                    "Ask it without --ray, to see why; what was made before is kept.",
                )

    def _take_back(self, number: int) -> list[Task]:
        """What it had waits again, before all else."""
        worker = self._workers.pop(number, None)
        tasks = worker.tasks if worker else []
        self._waiting.extendleft(reversed(tasks))
        return tasks
