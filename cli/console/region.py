"""Rows at the end of the screen that are drawn over again and again, in a window whose size may change."""

from collections.abc import Callable, Iterator
from threading import Event, RLock, Thread

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.segment import ControlType, Segment

from .terminal import reflows

_FRAMES_PER_SECOND = 8
_shown: list["Region"] = []  # of this process; at most one in use


class Region:
    """The last rows, without what would fill them up: a narrower window would wrap it.

    A terminal that is made narrower wraps each row that is too long into several. So what is erased before
    the next drawing is counted by the width that the window has by then.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._lock = RLock()
        self._lengths: list[
            int
        ] = []  # of the rows that stand on the screen, in cells; the cursor is in the last
        self._is_held = False
        self._what: RenderableType = ""
        self._ended = Event()
        self._thread: Thread | None = None

    def follow(self, drawn: Callable[[], RenderableType]) -> None:
        """Draw what this returns until `close`, some times a second, in a thread."""
        self.draw(drawn())
        self._thread = Thread(target=self._follow, args=(drawn,), name="drawing", daemon=True)
        self._thread.start()

    def _follow(self, drawn: Callable[[], RenderableType]) -> None:
        while not self._ended.wait(1 / _FRAMES_PER_SECOND):
            self.draw(drawn())

    def draw(self, what: RenderableType) -> None:
        """Draw it in the place of what stands there; while it is held, only what came last is drawn later."""
        with self._lock:
            self._what = what
            if self._is_held or self._ended.is_set():
                return
            options = self._console.options
            rows = [trimmed(row) for row in self._console.render_lines(what, options, pad=False)]
            rows = rows[: max(1, options.max_height - 1)]
            self._write([self._erasing(), *([] if self._lengths else [_HIDE]), *_joined(rows)])
            self._lengths = [Segment.get_line_length(row) for row in rows]
            if self not in _shown:
                _shown.append(self)

    def erase(self) -> None:
        """Take it off the screen; the next drawing begins where it began."""
        with self._lock:
            if self._lengths:
                self._write([self._erasing(), _SHOW])
            self._lengths = []

    def close(self) -> None:
        """Take it off the screen for good."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        self.erase()
        if self in _shown:
            _shown.remove(self)

    def hold(self) -> None:
        """Leave the screen to others until `go_on`."""
        with self._lock:
            self.erase()
            self._is_held = True

    def go_on(self) -> None:
        """Draw it anew, where the cursor is: others have written meanwhile."""
        with self._lock:
            self._is_held, self._lengths = False, []
            self.draw(self._what)

    def _erasing(self) -> Segment:
        if not self._lengths:
            return Segment("")
        width = max(1, self._console.width)
        above = sum(_wrapped(length, width) for length in self._lengths[:-1])
        return _control("\r" + (f"\x1b[{above}A" if above else "") + "\x1b[J")

    def _write(self, segments: list[Segment]) -> None:
        self._console.print(_Segments(segments), end="", crop=False, soft_wrap=True)


def hold_all() -> None:
    """Leave the screen to others: what is drawn over is taken off it."""
    for region in list(_shown):
        region.hold()


def go_on_all() -> None:
    """Draw anew what was on it."""
    for region in list(_shown):
        region.go_on()


class _Segments:
    """Segments as they are."""

    def __init__(self, segments: list[Segment]) -> None:
        self._segments = segments

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from self._segments


def _control(codes: str) -> Segment:
    return Segment(codes, None, [(ControlType.CARRIAGE_RETURN,)])


_HIDE, _SHOW = _control("\x1b[?25l"), _control("\x1b[?25h")


def _joined(rows: list[list[Segment]]) -> Iterator[Segment]:
    """Rows one below the other, and the cursor at the beginning of the last."""
    for number, row in enumerate(rows):
        if number:
            yield Segment.line()
        yield from row
    yield _control("\r")


def trimmed(row: list[Segment]) -> list[Segment]:
    """Without the blanks that fill it up: a narrower window would wrap them."""
    row = list(row)
    while row and not row[-1].text.strip(" "):
        row.pop()
    return [*row[:-1], *(Segment(last.text.rstrip(" "), last.style) for last in row[-1:])]


def _wrapped(length: int, width: int) -> int:
    """Rows that a row of so many cells takes in a window of this width."""
    return max(1, -(-length // width)) if reflows() else 1
