"""What a person sees: the output of a program as a terminal shows it."""

from collections.abc import Callable

import pyte
from rich.console import Console


class Screen:
    """A terminal of some size; `write` makes it a file."""

    def __init__(
        self, columns: int = 80, rows: int = 24, answers: Callable[[str], object] | None = None
    ) -> None:
        """`answers` takes what the terminal itself says, such as where its cursor is."""
        self.columns, self.rows = columns, rows
        self.written = ""
        self._screen = pyte.HistoryScreen(columns, rows, history=10_000)
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
