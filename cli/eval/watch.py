"""How far a run of `eval` is: a line with the time left on a terminal, and what is to be known of it."""

import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from ..console.terminal import is_terminal, printable

if TYPE_CHECKING:
    from alignbeam_local.evaluation.runs.run_directory import Json, SampleKey


class Watch:
    """Shows the samples of a run as they come."""

    def __init__(self, *, quiet: bool) -> None:
        columns = (MofNCompleteColumn(), BarColumn(bar_width=20), TimeElapsedColumn(), TextColumn("left:"))
        #: What stands at the line's end: who is at work.
        self.beside: Callable[[], str] = lambda: ""
        self._bar = Progress(
            *columns,
            TimeRemainingColumn(),
            TextColumn("{task.description}", markup=False),
            console=Console(stderr=True, highlight=False),
            disable=quiet or not is_terminal(sys.stderr),
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def tell(self, message: str) -> None:
        """A line of its own."""
        self._bar.console.print(printable(message), markup=False, soft_wrap=True)

    def over(self, samples: "Iterator[tuple[SampleKey, Json]]", done: int, total: int) -> None:
        """Run to the end. Raises: as the samples do."""
        with self._bar:
            task = self._bar.add_task("", total=total, completed=done)
            for key, sample in samples:
                now = " · ".join(filter(None, (key.method, key.suite, self.beside())))
                self._bar.update(task, advance=1, description=printable(now))
                if error := sample.get("error"):
                    message = f"{key.suite} {key.id}, {key.method}: {error['message']}"
                    self._bar.console.print(printable(message), markup=False)
