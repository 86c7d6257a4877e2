"""What is safe and sensible to write where."""

import os
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

#: Embeddings, overrides and isolates: with them text can be shown in another order than it is written.
_REORDERING = frozenset(map(chr, [*range(0x202A, 0x202F), *range(0x2066, 0x206A)]))

_modes: list[tuple[list[Any], list[Any]]] = []  # of each `unechoed`: before, and inside


def is_terminal(stream: IO[Any] | None) -> bool:
    """Whether a person reads or writes at the other end."""
    return stream is not None and not stream.closed and stream.isatty()


def is_dumb() -> bool:
    """Whether the terminal can't move its cursor."""
    return os.environ.get("TERM", "") in ("dumb", "unknown")


def reflows() -> bool:
    """Whether the terminal wraps rows that have become too long for it anew; a few cut them off instead."""
    if "TMUX" in os.environ:
        return True
    term = os.environ.get("TERM", "")
    return "XTERM_VERSION" not in os.environ and not term.startswith(("rxvt", "screen", "linux"))


@contextmanager
def unechoed() -> Iterator[None]:
    """While inside, what is typed ahead, Ctrl-C too, is not written over what is drawn; it is not lost."""
    try:
        import termios
    except ImportError:  # no POSIX terminal
        yield
        return
    if not is_terminal(sys.stdin):
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    silent = [*before[:3], before[3] & ~termios.ECHO, *before[4:]]
    _modes.append((before, silent))
    termios.tcsetattr(sys.stdin, termios.TCSANOW, silent)
    try:
        yield
    finally:
        _modes.pop()
        termios.tcsetattr(sys.stdin, termios.TCSANOW, before)


def set_echo(*, silent: bool) -> None:
    """Inside of `unechoed`: leave the terminal's modes to a shell as they were before, or set them again."""
    import termios

    if _modes:
        with suppress(termios.error):
            termios.tcsetattr(sys.stdin, termios.TCSANOW, _modes[-1][silent])


def printable(text: str) -> str:
    """Without characters that steer the terminal or reorder text; lines, tabs and all scripts stay."""
    return "".join(
        c for c in text if c in "\n\t" or (unicodedata.category(c) != "Cc" and c not in _REORDERING)
    )


def for_stream(text: str, stream: IO[str]) -> str:
    """Text from a model or a file, as it may be written there."""
    return printable(text) if is_terminal(stream) else text


def say(message: str) -> None:
    """One line for the user, beside the answer."""
    print(for_stream(message, sys.stderr), file=sys.stderr, flush=True)


def say_error(message: str, hint: str = "") -> None:
    """What went wrong and what to do about it."""
    say(f"error: {message}")
    if hint:
        say(f"hint: {hint}")
