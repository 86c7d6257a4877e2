"""What a person is told while nothing else is shown: on stderr, on a terminal only."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from threading import Timer
from typing import TypeVar

from rich.console import Console
from rich.text import Text

from .terminal import is_dumb, is_terminal, printable, say

T = TypeVar("T")

_PATIENCE_SECONDS = 1.0
STDIN = "reading stdin until it ends (Ctrl-C stops; < /dev/null leaves it out)"


@contextmanager
def told_if_slow(message: str, *, quiet: bool = False, seconds: float = _PATIENCE_SECONDS) -> Iterator[None]:
    """While inside for longer than so many seconds, the message is written once."""
    if quiet or not is_terminal(sys.stderr):
        yield
        return
    timer = Timer(seconds, say, [message])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def waiting(what: str) -> Iterator[Callable[[str], None]]:
    """While inside, a line that moves says what is done; given is what changes it. It goes at the end."""
    if is_dumb() or not is_terminal(sys.stderr):
        with told_if_slow(what):
            yield lambda _: None
        return
    console = Console(stderr=True, highlight=False)
    with console.status(_line(what)) as status:
        yield lambda text: status.update(_line(text))


@contextmanager
def entered(what: str, manager: AbstractContextManager[T]) -> Iterator[T]:
    """The same context, with a line meanwhile where entering it takes long."""
    with ExitStack() as stack:
        with waiting(what):
            value = stack.enter_context(manager)
        yield value


def awaited(what: str, items: Iterable[T]) -> Iterator[T]:
    """The same items, with a line while the next one is made."""
    iterator = iter(items)
    while True:
        with waiting(what):
            found = next(iterator, iterator)
        if found is iterator:
            return
        yield found  # type: ignore[misc]  # the iterator itself stands for its end


def _line(text: str) -> Text:
    return Text(printable(text), style="dim")


def tracked(items: Iterable[T], what: str, total: int | None = None) -> Iterable[T]:
    """The same items, with a bar while they are gone through; `total` where their number is not known."""
    from rich.progress import track

    console = Console(stderr=True, highlight=False)
    return track(items, what, total, console=console, disable=not is_terminal(sys.stderr))
