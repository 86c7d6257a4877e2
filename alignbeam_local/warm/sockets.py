"""Where servers of this user listen for the commands of the same user: one socket a process."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..paths import cache_dir, ensure_dir

_SUFFIX = ".sock"
_BACKLOG = 128


def socket_dir() -> Path:
    """Readable by the user alone."""
    return cache_dir() / "serve"


@contextmanager
def private_socket() -> Iterator[socket.socket | None]:
    """A socket that only this user reaches, while inside; None where the system has none, or no room."""
    if not hasattr(socket, "AF_UNIX"):
        yield None
        return
    path = ensure_dir(socket_dir()) / f"{os.getpid()}{_SUFFIX}"
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.unlink(missing_ok=True)
        listening.bind(str(path))  # in a folder of 0700
        listening.listen(_BACKLOG)
    except OSError:  # a path of over 100 characters, or a disk without sockets
        listening.close()
        yield None
        return
    try:
        yield listening
    finally:
        listening.close()
        path.unlink(missing_ok=True)


def sockets() -> list[Path]:
    """Of all servers of this user, also of some that are gone; the newest first."""
    with suppress(OSError):
        found = [path for path in socket_dir().glob(f"*{_SUFFIX}") if path.is_socket()]
        return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)
    return []
