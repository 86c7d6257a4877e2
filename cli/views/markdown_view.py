"""The answer on a terminal as it is decided: Markdown drawn, words wrapped."""

from rich.console import Console
from rich.text import Text

from alignbeam_local.events import AnswerText, Done, Event, Phase, Withdrawn

from ..console.markdown_stream import MarkdownStream
from ..console.terminal import printable
from .board import PHASES
from .view import told_withdrawn


class MarkdownView:
    """Draws the answer while it grows; below it, what happens meanwhile."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._answer: MarkdownStream | None = None

    def show(self, event: Event) -> None:
        match event:
            case AnswerText():
                self._write(event.text)
            case Withdrawn():
                self._withdraw(event)
            case Phase() if self._answer:
                self._answer.status(PHASES[event.name])
            case Done():
                self.close()

    def close(self) -> None:
        if self._answer:
            self._answer.close()
            self._answer = None

    def _write(self, text: str) -> None:
        if self._answer is None:
            self._answer = MarkdownStream(self._console)
        self._answer.write(printable(text))

    def _withdraw(self, event: Withdrawn) -> None:
        erased = self._answer is None or self._answer.withdraw()
        self._answer = None
        which = "what was shown" if erased else "the answer above"
        self._console.print(Text(f"[{told_withdrawn(event, which)}]", style="bold red"))
        if event.text:
            self._write(event.text)
