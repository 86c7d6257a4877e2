"""Ctrl-Z while an answer is made: the shell gets its terminal as it was; after `fg` it is drawn on again."""

import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress

import psutil

from .terminal import is_terminal, set_echo


def listeners() -> Mapping[int, Callable[[], None]]:
    """What is to be called at which signal; nothing where there is no terminal, or Ctrl-Z is ignored."""
    if not hasattr(signal, "SIGTSTP") or not is_terminal(sys.stdin):
        return {}
    if signal.getsignal(signal.SIGTSTP) is not signal.SIG_DFL:
        return {}
    return {signal.SIGTSTP: _stop, signal.SIGCONT: _go_on}


def _stop() -> None:
    from .region import hold_all

    if not _has_shell():  # nobody could continue it
        return
    hold_all()
    set_echo(silent=False)
    os.kill(os.getpid(), signal.SIGSTOP)


def _go_on() -> None:
    from .region import go_on_all

    with suppress(OSError):
        if os.tcgetpgrp(sys.stdin.fileno()) != os.getpgrp():  # `bg`: the terminal is the shell's
            return
    set_echo(silent=True)
    go_on_all()


def _has_shell() -> bool:
    """Whether a process of this session, in another group, started ours, as the kernel asks it too."""
    session, group = os.getsid(0), os.getpgrp()
    with suppress(OSError, psutil.Error):
        for parent in psutil.Process().parents():
            if os.getpgid(parent.pid) != group:
                return os.getsid(parent.pid) == session
    return False
