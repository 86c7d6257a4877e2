"""Markdown on a terminal while it grows: finished blocks are printed once, only the last one is redrawn."""

from time import monotonic

from markdown_it import MarkdownIt
from rich.console import Console, ConsoleOptions, RenderResult
from rich.control import Control
from rich.markdown import Markdown
from rich.segment import ControlType, Segment
from rich.text import Text

from .region import Region, trimmed

_REDRAW_S = 0.1
_ROWS_LEFT_FREE = 3
#: What rich reads, but HTML is text: an answer's words must not vanish because they look like a tag.
_PARSER = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"])


def split_finished(text: str) -> tuple[str, str]:
    """The blocks that no further text can change, and the rest: the last block, as it is so far."""
    starts = [token.map[0] for token in _PARSER.parse(text) if token.level == 0 and token.map]
    if len(starts) < 2:
        return "", text
    lines = text.split("\n")
    finished, rest = lines[: starts[-1]], lines[starts[-1] :]
    return "\n".join([*finished, ""]), "\n".join(rest)


def rendered(text: str) -> Markdown:
    """Markdown of a model: no terminal links (they hide where they lead), code in the terminal's colours."""
    markdown = Markdown("", code_theme="ansi_dark", hyperlinks=False)
    markdown.parsed = _PARSER.parse(text)
    return markdown


class MarkdownStream:
    """One answer, written in pieces. Texts must be free of control characters."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._size = console.size
        self._region: Region | None = None
        self._rest = ""
        self._status = ""
        self._rows = 0  # printed for good
        self._drawn_at = 0.0

    def write(self, text: str) -> None:
        """Append to the answer."""
        self._rest += text
        if "\n" in self._rest[-len(text) - 1 :]:
            self._print_finished()
        if monotonic() - self._drawn_at >= _REDRAW_S:
            self._draw()

    def status(self, text: str) -> None:
        """Say below the answer what is going on."""
        self._status = text
        self._draw()

    def close(self) -> None:
        """Print what is left; nothing is redrawn from here on."""
        with self._console:
            self._fold()
            if self._rest.strip():
                self._print(self._rest, "")

    def withdraw(self) -> bool:
        """Take the answer off the screen; False where part of it has left the screen and stays."""
        with self._console:
            self._fold()
            self._rest = ""
            reachable = self._rows < self._console.height and self._console.size == self._size
            if reachable:
                up = (ControlType.CURSOR_UP, 1), (ControlType.ERASE_IN_LINE, 2)
                self._console.control(Control(*up * self._rows))
        return reachable

    def _print_finished(self) -> None:
        finished, rest = split_finished(self._rest)
        if finished:
            with self._console:  # one write: no block must be seen twice, or not at all
                self._print(finished, rest)

    def _print(self, text: str, rest: str) -> None:
        """Print blocks for good; what is redrawn from here on stands below them."""
        block = _Block(text, self._rows > 0)
        self._rows += len(self._console.render_lines(block, pad=False))
        self._rest = rest
        if self._region is not None:
            self._region.erase()
        self._console.print(block, end="")
        if self._region is not None:
            self._draw()

    def _draw(self) -> None:
        if self._region is None:
            self._region = Region(self._console)
        self._region.draw(_Tail(self._rest, self._status, self._rows > 0))
        self._drawn_at = monotonic()

    def _fold(self) -> None:
        if self._region is not None:
            self._region.close()
            self._region = None


class _Block:
    """Blocks of an answer, a blank line before them if others stand above."""

    def __init__(self, text: str, has_gap: bool) -> None:
        self._text = text
        self._has_gap = has_gap

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self._has_gap:
            yield Segment.line()
        for row in console.render_lines(rendered(self._text), options, pad=False):
            yield from trimmed(row)
            yield Segment.line()


class _Tail:
    """The last block as far as the screen holds it, and a status line."""

    def __init__(self, text: str, status: str, has_gap: bool) -> None:
        self._block = _Block(text, has_gap)
        self._status = status

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        rows = console.render_lines(self._block, options, pad=False)
        for row in rows[-max(1, console.height - _ROWS_LEFT_FREE) :]:
            yield from row
            yield Segment.line()
        if self._status:
            yield Text(self._status, style="dim")
