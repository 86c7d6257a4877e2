"""A crew of workers in this process, which stands in for a cluster's; some die, some are cut off."""

import pickle
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from alignbeam_local.cluster.crew import Json, Lost, Made, Ready, Refused, Report, Task
from alignbeam_local.cluster.wanted import WantedPart, pieces
from alignbeam_local.cluster.work import Failed, Host, Piece, Work


@dataclass
class FakeCrew:
    """Every worker makes one of its tasks a look.

    Attributes:
        work: what they do; each has a copy of its own, as it would arrive elsewhere.
        size: how many there can be at once.
        dies: by worker, the count of the task in which it dies; 0: before it is ready.
        is_late: what a lost worker had made is reported all the same, after its loss.
        parts: files that may be brought.
        given, most_given: tasks by worker; the most that one ever had at once.
    """

    work: Work
    size: int = 2
    dies: Mapping[int, int] = field(default_factory=dict)
    is_late: bool = False
    parts: Mapping[str, WantedPart] = field(default_factory=dict)
    about: Mapping[int, Json] = field(default_factory=dict)
    most_given: int = 0
    hired: int = 0
    left_out: int = 0
    closed: bool = False
    brought: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._hosts: dict[int, Host] = {}
        self._given: dict[int, deque[Task]] = {}
        self._made: dict[int, int] = {}
        self._reports: list[Report] = []

    @property
    def alive(self) -> list[int]:
        return list(self._hosts)

    def places(self) -> int:
        return self.size - len(self._hosts) - self.left_out

    def hire(self) -> int:
        self.hired += 1
        number = self.hired
        self._hosts[number] = Host(pickle.loads(pickle.dumps(self.work)))
        self._given[number], self._made[number] = deque(), 0
        if self.dies.get(number) == 0:
            self._kill(number)
        else:
            self._greet(number)
        return number

    def _greet(self, number: int) -> None:
        host = self._hosts[number]
        missing = host.missing()
        if not isinstance(missing, Failed):
            for name in missing:
                self._bring(host, name)
        failed = missing if isinstance(missing, Failed) else host.missing() or None
        about = failed or host.about()
        if isinstance(about, Failed):
            self.leave_out(number)
            self._reports.append(Refused(number, about.error))
        else:
            assert isinstance(about, dict)
            self._reports.append(Ready(number, {**about, **self.about.get(number, {}), "node": f"n{number}"}))

    def _bring(self, host: Host, name: str) -> None:
        self.brought.append(name)
        for piece in pieces(self.parts.values(), name):
            assert host.receive(*Piece(*piece)) is None

    def give(self, worker: int, task: Task) -> None:
        self._given[worker].append(task)
        self.most_given = max(self.most_given, len(self._given[worker]))

    @property
    def num_placed(self) -> int:
        return len(self._hosts)

    @property
    def may_grow(self) -> bool:
        return True

    def dismiss(self, worker: int) -> None:
        self._hosts.pop(worker, None)

    def leave_out(self, worker: int) -> None:
        self.left_out += worker in self._hosts
        self.dismiss(worker)

    def _kill(self, number: int) -> None:
        self._hosts.pop(number)
        self._reports.append(Lost(number, "killed"))

    def reports(self, seconds: float) -> Sequence[Report]:
        for number in list(self._hosts):
            self._work(number)
        found, self._reports = self._reports, []
        return found

    def _work(self, number: int) -> None:
        if not self._given[number]:
            return
        task = self._given[number].popleft()
        self._made[number] += 1
        dies = self.dies.get(number) == self._made[number]
        made = Made(number, task.key, self._outcome(number, task))
        if dies:
            self._kill(number)
            if self.is_late:
                self._reports.append(made)
        else:
            self._reports.append(made)

    def _outcome(self, number: int, task: Task) -> Any:
        answer = self._hosts[number].make(task.payload)
        return answer.error if isinstance(answer, Failed) else answer

    def close(self) -> None:
        self.closed = True
