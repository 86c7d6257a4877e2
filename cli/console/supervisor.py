"""A parent above the process that has models on RPC servers: it says what happened where that one dies.

llama.cpp ends its process where a server is lost, and no exception comes before. So the command goes on in a
child, and this process does nothing but wait for it, pass signals on, and tell.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import monotonic
from typing import Any

import typer

from alignbeam_local.cancellation import known_signals
from alignbeam_local.config import Config
from alignbeam_local.errors import RpcError, UsageError
from alignbeam_local.last_words import LastWords, is_watched, watch_with

from .terminal import say_error

_DOING = {
    "load": "the models were loaded",
    "examples": "the judge read its examples",
    "think": "the draft reasoned",
    "prefill": "the prompt was read",
    "mix": "the first tokens were mixed",
    "complete": "the answers were completed",
    "judge": "the answers were judged",
}
_ENDING = known_signals("SIGINT", "SIGTERM", "SIGHUP")
#: What a child has some time for, to end in order.
_PATIENT = known_signals("SIGTERM", "SIGHUP")
_PATIENCE_SECONDS = 60
_IMPATIENT_TIMES, _IMPATIENT_SECONDS = 3, 5.0
_PARENT_DIED = 1  # prctl's PR_SET_PDEATHSIG
_SHOW_CURSOR = "\x1b[?25h\x1b[0m"


def go_on_below_parent(config: Config) -> None:
    """Return in a child process, if RPC servers are named; this process watches it, and leaves as it does.

    Raises:
        UsageError: this system can't do that.
        typer.Exit: in the parent, when the child has ended.
        RpcError: likewise, and a server was lost.
    """
    if not config.rpc or is_watched():
        return
    if not hasattr(os, "fork"):
        raise UsageError(
            "--rpc is not for this system", "It needs a parent process, which only Unix has here."
        )
    words, parent = LastWords(), os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)  # until somebody is there to pass them on
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
        watch_with(words)
        _die_with(parent)
        return
    raise typer.Exit(_outcome(_waited(child), words, config))


def _waited(child: int) -> int:
    """What the child ended with: an exit code, or minus a signal: the one that asked for its end, if any."""
    asked = list[int]()
    with _terminal_kept(), _signals_passed_on(child, asked):
        _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return -asked[-1] if code == -signal.SIGKILL and asked else code


def _outcome(code: int, words: LastWords, config: Config) -> int:
    """The exit code of this process.

    Raises:
        RpcError: a server was lost.
    """
    if code >= 0:
        return code
    doing = f"while {_DOING[words.doing]}" if words.doing in _DOING else "while it was at work"
    if words.reason:
        raise _lost(words.reason, doing, config)
    if -code in _ENDING:
        return 128 - code
    name = signal.Signals(-code).name
    say_error(
        f"the process that held the models was ended by {name} {doing}",
        "Was there enough memory?" if name == "SIGKILL" else "See: alignbeam doctor.",
    )
    return 1


def _lost(reason: str, doing: str, config: Config) -> RpcError:
    from alignbeam_local.machine.servers import unreachable

    hint = "The answer in the making is lost. Start the server again (docs/scale.md), then ask again."
    if gone := unreachable(config.servers):
        what = f"server {gone[0]} was" if len(gone) == 1 else f"servers {' and '.join(gone)} were"
        return RpcError(f"the RPC {what} lost {doing}", hint)
    said = reason.rpartition(": ")[2]
    return RpcError(f"an RPC server ended the connection {doing} (llama.cpp: {said})", hint)


def _die_with(parent: int) -> None:
    """Where the parent is killed this process must not go on, and keep the servers from others."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PARENT_DIED, int(signal.SIGTERM))
        if os.getppid() != parent:
            os._exit(1)


@contextmanager
def _signals_passed_on(child: int, asked: list[int]) -> Iterator[None]:
    """What ends this process goes to the child, which ends in its own way; Ctrl-C reaches it by itself.

    A child that waits for a silent server hears nothing of that. So Ctrl-C three times in five seconds ends
    it by force, and so does a minute after any other; `asked` then holds what asked for it.
    """
    impatience = _Impatience()

    def pass_on(number: int, _: object) -> None:
        if number == signal.SIGALRM or (number == signal.SIGINT and impatience.is_over()):
            asked.append(asked.pop() if number == signal.SIGALRM else number)
            _send(child, signal.SIGKILL)
        elif number != signal.SIGINT or not _is_in_front():
            _send(child, number)
        if number in _PATIENT:
            asked.append(number)
            signal.alarm(_PATIENCE_SECONDS)

    caught = (*_ENDING, signal.SIGALRM)
    previous = {number: signal.getsignal(number) for number in caught}
    for number in (number for number, handler in previous.items() if handler is not signal.SIG_IGN):
        signal.signal(number, pass_on)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
    try:
        yield
    finally:
        signal.alarm(0)
        for number, handler in previous.items():
            signal.signal(number, handler)


class _Impatience:
    """Ctrl-C so often in so few seconds means: at once."""

    def __init__(self) -> None:
        self._times: list[float] = []

    def is_over(self) -> bool:
        """Another one came."""
        now = monotonic()
        self._times = [time for time in self._times if now - time < _IMPATIENT_SECONDS] + [now]
        return len(self._times) >= _IMPATIENT_TIMES


def _send(child: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(child, number)


def _is_in_front() -> bool:
    """Whether a terminal's Ctrl-C goes to this process and its child alike."""
    try:
        descriptor = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(descriptor) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(descriptor)


@contextmanager
def _terminal_kept() -> Iterator[None]:
    """A child that is ended in the middle leaves a terminal as it had set it."""
    before = _terminal_settings()
    try:
        yield
    finally:
        if before is not None:
            import termios

            with suppress(termios.error, OSError):
                termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, before)
        with suppress(OSError, ValueError):
            if sys.stderr.isatty():
                sys.stderr.write(_SHOW_CURSOR)
                sys.stderr.flush()


def _terminal_settings() -> Any:
    try:
        import termios

        return termios.tcgetattr(sys.stdin.fileno()) if sys.stdin.isatty() else None
    except (ImportError, OSError, ValueError):
        return None
