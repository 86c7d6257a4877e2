"""The seam of work that is made elsewhere: what a crew of workers is asked, and what it reports."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from ..errors import AlignBeamError

Json = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """Something to be made, by any worker.

    Attributes:
        key: its number; no two tasks of a crew have the same.
        payload: what a worker is told.
        name: what a message calls it.
    """

    key: int
    payload: Any
    name: str = ""


class Ready(NamedTuple):
    """A worker has all that it needs; `about` says which machine, builds and models it has."""

    worker: int
    about: Json


class Made(NamedTuple):
    """A worker made a task; an error takes the place of what could not be made."""

    worker: int
    key: int
    outcome: Any


class Lost(NamedTuple):
    """A worker is gone, with all that it was given; `by_itself`: whatever that was has no part in it."""

    worker: int
    why: str
    by_itself: bool = False


class Refused(NamedTuple):
    """A worker can't work: another version, other models, none at all. It is gone, and left out."""

    worker: int
    error: AlignBeamError


Report = Ready | Made | Lost | Refused


class Crew(Protocol):
    """Workers on other machines, or in other processes. Not thread-safe."""

    def places(self) -> int:
        """How many more workers could begin now."""

    def hire(self) -> int:
        """Let one begin, and return its number; it reports when it is ready, or why it is not."""

    def give(self, worker: int, task: Task) -> None:
        """Hand it a task, behind those that it has."""

    @property
    def num_placed(self) -> int:
        """How many of those that were begun have a place to work at, and may only be getting ready."""

    @property
    def may_grow(self) -> bool:
        """Whether there may be places later, where there are none now."""

    def dismiss(self, worker: int) -> None:
        """End it; nothing more is reported of it."""

    def leave_out(self, worker: int) -> None:
        """End it for good: it counts as no place any more, as one that refused does not."""

    def reports(self, seconds: float) -> Sequence[Report]:
        """What has happened; of nothing, what does within so many seconds."""

    def close(self) -> None:
        """End all of them."""
