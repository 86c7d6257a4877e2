"""Ctrl-C that reaches into a running decode and leaves every cache consistent.

Python runs signal handlers between bytecodes, so none runs while llama.cpp decodes. The C-level handler
does write the signal's number to the wakeup descriptor at once; a thread reads it and sets a byte in memory
that llama.cpp's abort callback looks at.
"""

import ctypes
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from .errors import Cancelled


def known_signals(*names: str) -> frozenset[int]:
    """Those of these signals that this system has: Windows lacks most."""
    return frozenset(int(getattr(signal, name)) for name in names if hasattr(signal, name))


#: Also what ends the program stops a decode first; its own handler does the rest.
_STOPPING = known_signals("SIGINT", "SIGTERM", "SIGHUP")

_NONE: Mapping[int, Callable[[], None]] = {}


class Cancellation:
    """One flag, shared by the models of a process; set from any thread or a signal."""

    def __init__(self) -> None:
        self._flag = ctypes.create_string_buffer(2)
        self._times_set = 0
        self.is_interrupted = False  # a signal is among what set it

    @property
    def address(self) -> int:
        """Where the flag lies: a C string, empty until cancelled."""
        return ctypes.addressof(self._flag)

    @property
    def is_set(self) -> bool:
        return self._flag[0] != b"\0"

    def set(self) -> None:
        self._times_set += 1
        self._flag[0] = b"\1"

    def clear(self) -> None:
        self._flag[0] = b"\0"
        self.is_interrupted = False

    def check(self) -> None:
        """Raises: Cancelled: the flag is set."""
        if self.is_set:
            raise Cancelled("cancelled")

    @contextmanager
    def raised(self) -> Iterator[None]:
        """Set while inside, to stop work of another thread; a cancellation that comes meanwhile stays."""
        was_set, times = self.is_set, self._times_set
        self._flag[0] = b"\1"
        try:
            yield
        finally:
            self._flag[0] = b"\0"
            if was_set or self._times_set != times:
                self._flag[0] = b"\1"

    @contextmanager
    def on_interrupt(self, others: Mapping[int, Callable[[], None]] = _NONE) -> Iterator[None]:
        """While inside, Ctrl-C sets the flag instead of raising KeyboardInterrupt. Main thread only.

        `others` are called when their signals come, at once, in another thread: also during a decode.

        A process that was told to ignore it (as `nohup` and background jobs are) goes on ignoring it.
        """
        self.clear()
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            yield
            return
        receiver, sender = socket.socketpair()
        sender.setblocking(False)
        previous_handler = signal.signal(signal.SIGINT, lambda *_: self._interrupt())
        previous = {number: signal.signal(number, _left_to_watcher) for number in others}
        previous_fd = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
        watcher = threading.Thread(target=self._watch, args=(receiver, others), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(previous_fd)
            for number, handler in previous.items():
                signal.signal(number, handler)
            signal.signal(signal.SIGINT, previous_handler)
            sender.close()
            watcher.join()
            receiver.close()

    def _watch(self, receiver: socket.socket, others: Mapping[int, Callable[[], None]]) -> None:
        while received := receiver.recv(16):
            for number in filter(others.__contains__, received):
                others[number]()
            if any(number in received for number in _STOPPING):
                self._interrupt()

    def _interrupt(self) -> None:
        self.is_interrupted = True
        self.set()


def _left_to_watcher(_: int, __: object) -> None:
    """A handler in Python waits for the end of a decode: what is to be done then is done already."""
