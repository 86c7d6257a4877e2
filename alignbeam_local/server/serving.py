"""From an application to a process that listens: addresses, signals, the end."""

import asyncio
import ipaddress
import socket
import sys
import threading
from contextlib import suppress
from types import FrameType

import uvicorn
from starlette.applications import Starlette

from ..errors import AlignBeamError, UsageError, reason_of
from .http import HttpProtocol
from .private import PrivateServer
from .work.engine_thread import EngineThread

#: Running answers have so long to end after the first signal.
DRAIN_SECONDS = 30.0
_LEFT_SECONDS = 5  # for what is told after that
_BACKLOG = 2048
_FILES = 1 << 16


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it."""
    with suppress(ValueError):
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    return host == "localhost"


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens there; port 0 is any that is free.

    Raises:
        UsageError: it is no address of this machine, or the port is taken.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        if sys.platform != "win32":  # there it would let two programs share a port
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(_BACKLOG)
    except (OSError, UnicodeError) as error:  # a host that can't be written as a name of the DNS
        raise UsageError(
            f"can't listen on {host}:{port}: {reason_of(error)}", "Give another --host or --port."
        ) from None
    return listening


class _Server(uvicorn.Server):
    """Uvicorn's, but a signal lets answers end, and a second one does not."""

    def __init__(self, config: uvicorn.Config, engine: EngineThread) -> None:
        super().__init__(config)
        self._engine = engine
        self._timer = threading.Timer(DRAIN_SECONDS, engine.stop)
        self._timer.daemon = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            self._engine.stop()
            return
        self.should_exit = True
        self._engine.drain()
        self._timer.start()


def serve(
    app: Starlette,
    listening: socket.socket,
    engine: EngineThread,
    private: tuple[PrivateServer, socket.socket] | None = None,
) -> None:
    """Start the engine and answer until a signal comes; the engine has ended then. Main thread only.

    Raises:
        AlignBeamError: the engine ended by itself.
    """
    raise_file_limit()
    main = stoppable(app, engine)
    ended: list[AlignBeamError | None] = []

    def engine_ended(error: AlignBeamError | None) -> None:
        ended.append(error)
        main.should_exit = True

    engine.when_ended = engine_ended
    engine.start()
    asyncio.run(served(main, listening, private))
    engine.stop()
    engine.join()
    if ended and ended[0] is not None:
        raise ended[0]


def stoppable(
    app: Starlette, engine: EngineThread, *, end_seconds: float = DRAIN_SECONDS + _LEFT_SECONDS
) -> uvicorn.Server:
    """A server that a signal ends gently; it is the same whatever else is installed.

    `end_seconds`: connections that are left then end in so long.
    """
    config = uvicorn.Config(
        app,
        http=HttpProtocol,
        ws="none",
        log_config=None,
        access_log=False,
        lifespan="off",
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=int(end_seconds),
    )
    return _Server(config, engine)


def raise_file_limit() -> None:
    """Let the process have as many connections as the system allows it: the usual limit is below 1,000."""
    try:
        import resource
    except ImportError:  # no POSIX
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def served(
    main: uvicorn.Server, listening: socket.socket, private: tuple[PrivateServer, socket.socket] | None
) -> None:
    """Listen until `main` shall exit."""
    beside = await private[0].start(private[1]) if private else None
    await main.serve([listening])
    if private and beside:
        beside.close()
        await private[0].ended(DRAIN_SECONDS + _LEFT_SECONDS)
