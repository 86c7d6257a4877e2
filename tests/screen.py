"""What a person sees: the output of a program as a terminal shows it."""

from collections.abc import Callable

import pyte
from pyte.screens import Char, StaticDefaultDict
from rich.console import Console


class WrappingScreen(pyte.HistoryScreen):
    """Wraps rows anew when its size changes, as most terminals do; pyte itself cuts them off.

    A row that this made to go on in the next has `goes_on`; what a program has wrapped counts as rows.
    """

    def wrap_anew(self, columns: int, rows: int) -> None:
        above = list(self.history.top)
        written = (y for y in self.buffer if any(cell.data != " " for cell in self.buffer[y].values()))
        last = max(self.cursor.y, *written)
        lines: list[list[Char]] = [[]]
        cursor = (0, 0)
        for number, row in enumerate([*above, *(self.buffer[y] for y in range(last + 1))]):
            if number == len(above) + self.cursor.y:
                cursor = (len(lines) - 1, len(lines[-1]) + self.cursor.x)
            width = max((x for x in row if row[x].data != " "), default=-1) + 1
            lines[-1].extend(row[x] for x in range(width))
            if not getattr(row, "goes_on", False):
                lines.append([])
        self._put(lines[:-1], cursor, columns, rows)

    def erase_in_display(self, how: int = 0, *args: object, **options: object) -> None:
        super().erase_in_display(how, *args, **options)
        for y in range(self.cursor.y, self.lines):
            self.buffer[y].goes_on = False  # type: ignore[attr-defined]

    def _put(self, lines: list[list[Char]], cursor: tuple[int, int], columns: int, rows: int) -> None:
        wrapped: list[StaticDefaultDict[int, Char]] = []
        at = (0, 0)
        for number, line in enumerate(lines):
            if number == cursor[0]:
                at = (len(wrapped) + min(cursor[1], max(0, len(line) - 1)) // columns, cursor[1] % columns)
            pieces = [line[x : x + columns] for x in range(0, len(line), columns)] or [[]]
            for piece in pieces:
                row: StaticDefaultDict[int, Char] = StaticDefaultDict(self.default_char)
                row.update(enumerate(piece))
                row.goes_on = piece is not pieces[-1]  # type: ignore[attr-defined]
                wrapped.append(row)
        start = max(0, len(wrapped) - rows)
        self.resize(rows, columns)
        self.buffer.clear()
        self.history.top.clear()
        self.history.top.extend(wrapped[:start])
        self.buffer.update(enumerate(wrapped[start:]))
        self.cursor.y, self.cursor.x = max(0, at[0] - start), at[1]
        self.dirty.update(range(rows))


class Screen:
    """A terminal of some size; `write` makes it a file."""

    def __init__(
        self, columns: int = 80, rows: int = 24, answers: Callable[[str], object] | None = None
    ) -> None:
        """`answers` takes what the terminal itself says, such as where its cursor is."""
        self.columns, self.rows = columns, rows
        self.written = ""
        self._screen = WrappingScreen(columns, rows, history=10_000)
        if answers:
            setattr(self._screen, "write_process_input", answers)  # noqa: B010
        self._stream = pyte.Stream(self._screen)

    def write(self, text: str) -> int:
        """Take what a program without a line discipline between writes."""
        self.feed(text.replace("\n", "\r\n"))
        return len(text)

    def flush(self) -> None: ...

    def isatty(self) -> bool:
        return True

    def resize(self, columns: int, rows: int) -> None:
        """Give the window another size; what is on it is wrapped anew."""
        self.columns, self.rows = columns, rows
        self._screen.wrap_anew(columns, rows)

    def feed(self, text: str) -> None:
        """Take what comes out of a terminal's other end."""
        self.written += text
        self._stream.feed(text)

    @property
    def lines(self) -> list[str]:
        """What has scrolled away and what is on the screen, without blanks at the ends."""
        gone = [
            "".join(row[column].data for column in range(self.columns)) for row in self._screen.history.top
        ]
        return "\n".join(line.rstrip() for line in (*gone, *self._screen.display)).rstrip("\n").split("\n")

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def console(self, *, no_color: bool = False) -> Console:
        """A console that writes to this screen."""
        return Console(
            file=self,  # type: ignore[arg-type]
            force_terminal=True,
            color_system="standard",
            no_color=no_color,
            width=self.columns,
            height=self.rows,
            highlight=False,
            _environ={},
        )
