"""A conversation with a server of this user, over its private socket: lines of JSON in both directions."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..errors import ServerGone
from ..result_json import json_line

_SECONDS = 2.0  # for what is answered at once
_LOOK_SECONDS = 0.1
_CHUNK = 65_536


class Connection:
    """One request and what the server says to it."""

    def __init__(self, path: Path) -> None:
        """Raises: ServerGone: nobody listens there."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._buffer = b""
        try:
            self._socket.settimeout(_SECONDS)
            self._socket.connect(str(path))
        except OSError:
            self._socket.close()
            raise _gone() from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def send(self, value: Any) -> None:
        """Raises: ServerGone: it takes nothing."""
        try:
            self._socket.settimeout(_SECONDS)
            self._socket.sendall(json_line(value).encode() + b"\n")
        except OSError:
            raise _gone() from None

    def one(self) -> Any:
        """The next thing that it says. Raises: ServerGone: it says nothing in time."""
        return self._parsed(self._line(_SECONDS))

    def all(self) -> Iterator[Any]:
        """What it says, one after the other; None each time that it says nothing for a moment.

        Raises:
            ServerGone: it ends.
        """
        while True:
            line = self._line(_LOOK_SECONDS)
            yield None if line is None else self._parsed(line)

    def _line(self, seconds: float) -> bytes | None:
        """The next line; None if it does not come in this time."""
        while b"\n" not in self._buffer:
            try:
                self._socket.settimeout(seconds)
                received = self._socket.recv(_CHUNK)
            except TimeoutError:
                return None
            except OSError:
                raise _gone() from None
            if not received:
                raise _gone()
            self._buffer += received
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _parsed(self, line: bytes | None) -> Any:
        try:
            return json.loads(line or b"")
        except ValueError:
            raise _gone() from None


def asked(path: Path, value: Any) -> Any:
    """What the server there says to one request. Raises: ServerGone: nothing."""
    with Connection(path) as connection:
        connection.send(value)
        return connection.one()


def _gone() -> ServerGone:
    return ServerGone("the server that held the models is gone", "Ask again: they are then loaded here.")
