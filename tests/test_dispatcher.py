"""Tasks and workers: nothing is lost with a worker, nothing counts twice, few are in flight."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from alignbeam_local.cancellation import Cancellation
from alignbeam_local.cluster import dispatcher as module
from alignbeam_local.cluster.crew import Json, Lost, Made, Ready, Report, Task
from alignbeam_local.cluster.dispatcher import Dispatcher
from alignbeam_local.cluster.work import Failed, Piece
from alignbeam_local.errors import AlignBeamError, Cancelled, InternalError, ModelError, RpcError, UsageError
from alignbeam_local.warm.wire import heard, told
from tests.fake_crew import FakeCrew


class Doubling:
    """Work that needs nothing."""

    def missing(self) -> Sequence[str]:
        return []

    def receive(self, piece: Piece) -> None: ...

    def about(self) -> Json:
        return {"version": 1}

    def make(self, payload: int) -> int:
        if payload == 13:
            raise ModelError("thirteen", "Take another.")
        if payload == 14:
            raise ValueError("fourteen")
        return 2 * payload


@pytest.fixture(autouse=True)
def _looks_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.0)


def tasks(count: int) -> Iterator[Task]:
    return (Task(number, number, f"prompt {number}") for number in range(count))


def all_of(crew: FakeCrew, count: int = 12, **options: Any) -> list[tuple[int, Any]]:
    dispatcher = Dispatcher(crew, Cancellation(), **options)
    return [(task.key, outcome) for task, outcome in dispatcher.all(tasks(count))]


@pytest.mark.parametrize("size", [1, 2, 5, 64])
def test_every_task_is_made_once(size: int) -> None:
    crew = FakeCrew(Doubling(), size)
    assert sorted(all_of(crew)) == [(number, 2 * number) for number in range(12)]
    assert crew.hired <= min(size, 12)


@pytest.mark.parametrize("is_late", [False, True])
@pytest.mark.parametrize("dies", [{1: 1}, {1: 2, 2: 1}, {1: 3, 2: 4, 3: 1, 4: 2}, {1: 1, 2: 1}])
def test_what_a_lost_worker_had_is_made_again_and_counted_once(dies: dict[int, int], is_late: bool) -> None:
    told: list[str] = []
    crew = FakeCrew(Doubling(), dies=dies, is_late=is_late)
    assert sorted(all_of(crew, tell=told.append)) == [(number, 2 * number) for number in range(12)]
    assert len(told) == len(dies)
    assert all("is gone (killed)" in line for line in told)
    assert crew.hired >= len(dies)


def test_few_are_in_flight_and_tasks_are_asked_for_as_there_is_room() -> None:
    crew, taken = FakeCrew(Doubling(), 2), []

    def source() -> Iterator[Task]:
        for task in tasks(1000):
            taken.append(task.key)
            yield task

    dispatcher = Dispatcher(crew, Cancellation())
    for number, _ in enumerate(dispatcher.all(source())):
        assert len(taken) - number <= 4
        if number == 50:
            break
    assert crew.most_given == module.PER_WORKER


def test_no_more_workers_than_wanted() -> None:
    crew = FakeCrew(Doubling(), 10)
    assert len(all_of(crew, most_workers=3)) == 12
    assert crew.hired == 3


def test_an_error_takes_the_place_of_what_can_not_be_made() -> None:
    made = dict(all_of(FakeCrew(Doubling()), 16))
    assert isinstance(made[13], ModelError)
    assert (made[13].message, made[13].hint) == ("thirteen", "Take another.")
    assert made[14].message == "internal: ValueError: fourteen"


def test_an_error_keeps_its_kind_between_processes() -> None:
    for kind in (UsageError, ModelError, RpcError, InternalError, AlignBeamError):
        error = kind("a", "b")
        for found in (Failed.of(error).error, heard(told(error))):
            assert isinstance(found, AlignBeamError)
            assert (type(found), found.message, found.hint) == (kind, "a", "b")


def test_a_worker_that_is_not_what_it_should_be_is_left_out() -> None:
    told: list[str] = []

    def welcome(about: Json) -> None:
        if about["node"] == "n1":
            raise ModelError("its models differ", "Give all the same.")

    crew = FakeCrew(Doubling(), 3)
    made = all_of(crew, welcome=welcome, tell=told.append)
    assert len(made) == 12
    assert told == ["note: a worker is left out: its models differ"]
    assert crew.hired == 3, "none is begun in its place"
    assert 1 not in crew.alive


def test_one_that_is_left_out_takes_the_place_of_no_other() -> None:
    """The only worker that was wanted is none; a good one is lost; a node joins later."""

    def welcome(about: Json) -> None:
        if about["node"] == "n1":
            raise ModelError("its models differ")

    crew = FakeCrew(Doubling(), 2)
    assert len(all_of(crew, most_workers=1, welcome=welcome)) == 12
    assert (crew.hired, crew.left_out) == (2, 1)
    crew = FakeCrew(Doubling(), 2, dies={2: 3})
    assert len(all_of(crew, welcome=welcome)) == 12
    assert crew.hired == 3
    crew = FakeCrew(Doubling(), 2)
    dispatcher = Dispatcher(crew, Cancellation(), welcome=welcome)
    for number, _ in enumerate(dispatcher.all(tasks(40))):
        if number == 5:
            crew.size = 4
    assert dispatcher.num_ready == 3


def test_what_was_begun_and_has_no_place_yet_is_not_waited_for_without_end() -> None:
    """As of a cluster whose processors others hold."""

    class Full(FakeCrew):
        num_placed = 0

        def _greet(self, number: int) -> None: ...

    with pytest.raises(AlignBeamError, match="there was no worker for 0 seconds"):
        all_of(Full(Doubling(), 2), patience=0.01)


def test_whoever_waits_for_the_first_task_misses_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first line of a pipe may come late, and workers have their places a moment after they are begun."""

    class Slow(FakeCrew):
        looks = 0

        @property
        def num_placed(self) -> int:
            self.looks += 1
            return len(self._hosts) if self.looks > 2 else 0

    dispatcher = Dispatcher(Slow(Doubling()), Cancellation(), patience=5)
    dispatcher._had_workers -= 100
    assert len(list(dispatcher.all(tasks(3)))) == 3


def test_where_all_are_left_out_the_first_reason_is_the_error() -> None:
    def welcome(_: Json) -> None:
        raise ModelError("its models differ")

    with pytest.raises(ModelError, match="its models differ"):
        all_of(FakeCrew(Doubling(), 3), welcome=welcome)


def test_workers_that_die_before_they_are_ready_end_the_run() -> None:
    with pytest.raises(AlignBeamError, match="3 workers in a row ended before they were ready: killed"):
        all_of(FakeCrew(Doubling(), 1, dies=dict.fromkeys(range(100), 0)))


def test_a_task_that_ends_one_worker_after_the_other_ends_the_run() -> None:
    with pytest.raises(AlignBeamError, match="3 workers ended while they made prompt 0: killed"):
        all_of(FakeCrew(Doubling(), 1, dies=dict.fromkeys(range(100), 1)))


def test_what_was_made_in_the_step_that_ends_a_run_is_told_before() -> None:
    made, lost = Made(2, 1, "made"), "killed"
    rounds: Iterator[list[Report]] = iter(
        [
            [Ready(1, {}), Ready(2, {})],
            [Lost(1, lost)],
            [Ready(3, {})],
            [Lost(3, lost)],
            [Ready(4, {})],
            [made, Lost(4, lost)],
        ]
    )

    class Scripted(FakeCrew):
        def places(self) -> int:
            return 2

        def reports(self, seconds: float) -> Sequence[Report]:
            return next(rounds)

    dispatcher = Dispatcher(Scripted(Doubling()), Cancellation(), per_worker=1)
    for task in tasks(2):
        dispatcher.begin(task)
    assert [one.outcome for _ in range(6) for one in dispatcher.step()] == ["made"]
    with pytest.raises(AlignBeamError, match="3 workers ended while they made prompt 0: killed"):
        dispatcher.step()


def test_without_any_worker_a_run_ends_after_a_while() -> None:
    with pytest.raises(AlignBeamError, match="there was no worker for 0 seconds") as caught:
        all_of(FakeCrew(Doubling(), 0), patience=0.01)
    assert "goes on" in caught.value.hint


def test_ctrl_c_is_seen_between_two_looks() -> None:
    cancellation = Cancellation()
    made = Dispatcher(FakeCrew(Doubling()), cancellation).all(tasks(12))
    next(made)
    cancellation.set()
    with pytest.raises(Cancelled):
        list(made)


def test_workers_come_later_too() -> None:
    """A node that joins, or comes back, gets its share."""
    crew = FakeCrew(Doubling(), 1)
    dispatcher = Dispatcher(crew, Cancellation())
    for number, _ in enumerate(dispatcher.all(tasks(40))):
        if number == 5:
            crew.size = 4
    assert crew.hired == 4
    assert dispatcher.num_ready == 4
