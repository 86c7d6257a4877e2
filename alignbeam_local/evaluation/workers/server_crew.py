"""A crew of running servers: each is a worker that answers as many prompts at once as it is given."""

import queue
from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Event, Thread
from time import monotonic
from typing import Any

from ...cluster.crew import Lost, Made, Ready, Refused, Report, Task
from ...errors import as_ours
from ..runs.run_directory import Json
from .server_client import ServerClient, Unreachable
from .server_work import about_server, made

_REST_SECONDS = 5.0  # before one that went away is looked at again
_WATCH_SECONDS = 15.0  # between two looks at one that works: a stuck one keeps its connections open


@dataclass
class _Server:
    """Attributes:
    worker: its number while it works, else None.
    looked_at: when somebody last asked how it is; it is well until it goes away.
    is_left_out: it is another than the others, and not asked again.
    """

    client: ServerClient
    worker: int | None = None
    is_well: bool = True
    is_left_out: bool = False
    looked_at: float = 0.0


@dataclass
class ServerCrew:
    """Servers that are asked.

    Attributes:
        clients: of each server.
        probe: the request by which a server says what it is.
        ended: set at the end: nobody waits for a server any more.
    """

    clients: Sequence[ServerClient]
    probe: Json
    ended: Event
    _reports: "queue.SimpleQueue[Report]" = field(default_factory=queue.SimpleQueue)

    def __post_init__(self) -> None:
        self._servers = [_Server(client) for client in self.clients]
        self._count = 0

    def places(self) -> int:
        """Servers that are well and do not work yet; those that are not are looked at now and then."""
        now = monotonic()
        for server in self._servers:
            works = server.worker is not None
            rests = not (works or server.is_well or server.is_left_out)
            if (works or rests) and now - server.looked_at > (_WATCH_SECONDS if works else _REST_SECONDS):
                server.looked_at = now
                _begin(self._look_at, server, server.worker)
        return len(self._free)

    @property
    def num_placed(self) -> int:
        return sum(server.worker is not None for server in self._servers)

    @property
    def _free(self) -> list[_Server]:
        return [
            server
            for server in self._servers
            if server.worker is None and server.is_well and not server.is_left_out
        ]

    @property
    def may_grow(self) -> bool:
        return not all(server.is_left_out for server in self._servers)

    def hire(self) -> int:
        server = self._free[0]
        self._count += 1
        server.worker, server.looked_at = self._count, monotonic()
        _begin(self._greet, server.worker, server.client)
        return self._count

    def give(self, worker: int, task: Task) -> None:
        _begin(self._ask, worker, self._server(worker).client, task)

    def dismiss(self, worker: int) -> None:
        for server in self._servers:
            if server.worker == worker:
                server.worker, server.is_well, server.looked_at = None, False, monotonic()
                server.client.leave()

    def leave_out(self, worker: int) -> None:
        for server in self._servers:
            server.is_left_out |= server.worker == worker
        self.dismiss(worker)

    def reports(self, seconds: float) -> Sequence[Report]:
        found: list[Report] = []
        try:
            found.append(self._reports.get(timeout=seconds))
            while True:
                found.append(self._reports.get_nowait())
        except queue.Empty:
            pass
        working = {server.worker for server in self._servers}
        found = [report for report in found if report.worker in working]
        for report in found:
            if isinstance(report, Lost):
                self.dismiss(report.worker)
            if isinstance(report, Refused):
                self.leave_out(report.worker)
        return found

    def close(self) -> None:
        """Those that still answer are not waited for."""
        self.ended.set()

    def _server(self, worker: int) -> _Server:
        return next(server for server in self._servers if server.worker == worker)

    def _look_at(self, server: _Server, worker: int | None) -> None:
        state = server.client.state()
        if worker is None:
            server.is_well = state == "ok"
        elif state == "stuck":
            self._reports.put(Lost(worker, f"{server.client.url} is stuck", by_itself=True))

    def _greet(self, worker: int, client: ServerClient) -> None:
        try:
            self._reports.put(Ready(worker, about_server(client, self.probe)))
        except Unreachable as error:
            self._reports.put(Lost(worker, error.message))
        except Exception as error:  # whoever waits for this is told in any case
            self._reports.put(Refused(worker, as_ours(error)))

    def _ask(self, worker: int, client: ServerClient, task: Task) -> None:
        try:
            outcome: Any = made(client, task.payload)
        except Unreachable as error:
            self._reports.put(Lost(worker, error.message))
            return
        except Exception as error:
            outcome = as_ours(error)
        self._reports.put(Made(worker, task.key, outcome))


def _begin(work: Any, *arguments: Any) -> None:
    Thread(target=work, args=arguments, daemon=True).start()
