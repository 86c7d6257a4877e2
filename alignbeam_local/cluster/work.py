"""What a worker is there for: sent to it once, then asked over and over; and its host in the process."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

from ..errors import AlignBeamError, error_of
from .crew import Json

T = TypeVar("T")


class Piece(NamedTuple):
    """Some bytes of a file that a worker lacks."""

    name: str
    offset: int
    data: bytes


class Work(Protocol):
    """What is sent to a worker; it loads nothing before it is asked."""

    def missing(self) -> Sequence[str]:
        """The names of the files that are not there. Raises: AlignBeamError: they can't be used here."""

    def receive(self, piece: Piece) -> None:
        """Take a piece of a missing file; pieces come in order, the last one is empty."""

    def about(self) -> Json:
        """Which machine, builds and models these are; nothing is missing. Raises: AlignBeamError."""

    def make(self, payload: Any) -> Any:
        """What was asked for. Raises: AlignBeamError: it can't be made."""


@dataclass(frozen=True)
class Failed:
    """An error, as it crosses between processes."""

    kind: str
    message: str
    hint: str

    @classmethod
    def of(cls, error: Exception) -> "Failed":
        if isinstance(error, AlignBeamError):
            return cls(error.kind, error.message, error.hint)
        return cls("internal", f"internal: {type(error).__name__}: {error}", "")

    @property
    def error(self) -> AlignBeamError:
        return error_of(self.kind, self.message, self.hint)


class Host:
    """Holds the work in a worker's process; no exception leaves it."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def missing(self) -> Sequence[str] | Failed:
        return self._asked(lambda: list(self._work.missing()))

    def receive(self, name: str, offset: int, data: bytes) -> Failed | None:
        return self._asked(lambda: self._work.receive(Piece(name, offset, bytes(data))))

    def about(self) -> Json | Failed:
        return self._asked(self._work.about)

    def make(self, payload: Any) -> Any:
        return self._asked(lambda: self._work.make(payload))

    def _asked(self, question: Callable[[], T]) -> T | Failed:
        try:
            return question()
        except Exception as error:
            return Failed.of(error)
