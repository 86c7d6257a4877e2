"""An answer in the making on a terminal: the beams side by side, then the answer, the rest folded away."""

from rich.console import Console
from rich.text import Text

from alignbeam_local.events import AnswerText, Done, Event, Notice, Phase, Withdrawn

from ..console.markdown_stream import MarkdownStream
from ..console.region import Region
from ..console.terminal import printable
from .board import PHASES, Board
from .story import summary
from .view import told_withdrawn


class LiveView:
    """The board of beams until the answer is decided; then the answer as Markdown, and a line about it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._board = Board()
        self._region: Region | None = None
        self._answer: MarkdownStream | None = None
        self._later: list[str] = []  # notices that came while the answer was growing

    def show(self, event: Event) -> None:
        match event:
            case AnswerText():
                self._write(event.text)
            case Withdrawn():
                self._withdraw(event)
            case Notice() if self._answer:
                self._later.append(event.message)
            case Notice():
                self._fold()
                self._tell(f"note: {event.message}")
            case Done():
                self.close()
                if event.result.text:
                    self._tell(summary(event.result))
            case Phase() if self._answer:
                self._answer.status(PHASES[event.name])
            case _ if not self._answer:
                self._board.add(event)
                self._open()

    def close(self) -> None:
        self._fold()
        if self._answer:
            self._answer.close()
            self._answer = None
        for message in self._later:
            self._tell(f"note: {message}")
        self._later = []

    def _open(self) -> None:
        """Draw the board from here on, in a thread: models decode without a word for seconds."""
        if self._region is None:
            self._region = Region(self._console)
            self._region.follow(lambda: self._board.drawn(self._console))

    def _fold(self) -> None:
        if self._region is not None:
            self._region.close()
            self._region = None

    def _write(self, text: str) -> None:
        self._fold()
        if self._answer is None:
            self._answer = MarkdownStream(self._console)
        self._answer.write(printable(text))

    def _withdraw(self, event: Withdrawn) -> None:
        self._fold()
        erased = self._answer is None or self._answer.withdraw()
        self._answer, self._board = None, Board()  # another answer may be made in its place
        which = "what was shown" if erased else "the answer above"
        self._console.print(Text(f"[{told_withdrawn(event, which)}]", style="bold red"))
        if event.text:
            self._write(event.text)

    def _tell(self, line: str) -> None:
        self._console.print(Text(printable(line), style="dim"))
