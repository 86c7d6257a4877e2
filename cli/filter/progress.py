"""How far a run of `filter` is: a line on stderr while an answer is made."""

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from alignbeam_local.events import Event, Notice

from ..console.terminal import printable
from .tally import Tally

_WIDE = 90


class ProgressView:
    """A line that is there while an answer is made and gone when it is written: both may share a screen."""

    def __init__(self, tally: Tally, total: int | None, said: set[str]) -> None:
        """`total` prompts, if it is known; notices that are in `said` are not said again."""
        self._tally = tally
        self._said = said
        self._console = Console(stderr=True, highlight=False)
        bar = [BarColumn(bar_width=20)] if total and self._console.width >= _WIDE else []
        self._bar = Progress(
            SpinnerColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            *bar,
            *([TimeRemainingColumn()] if total else []),
            console=self._console,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task = self._bar.add_task("", total=total)

    def show(self, event: Event) -> None:
        self._bar.update(self._task, completed=self._tally.done, description=self._about())
        self._bar.start()
        if isinstance(event, Notice) and event.message not in self._said:
            self._said.add(event.message)
            self._console.print(Text(printable(f"note: {event.message}")))

    def close(self) -> None:
        self._bar.stop()

    def _about(self) -> str:
        minutes = (self._bar.tasks[0].elapsed or 0) / 60
        rate = f" · {self._tally.done / minutes:.1f}/min" if self._tally.done and minutes else ""
        return f"{self._tally}{rate}"
