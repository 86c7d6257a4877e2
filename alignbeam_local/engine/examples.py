"""The judge's worked examples: read beside the making of an answer, waited for where a verdict is needed."""

import threading
from collections.abc import Iterator
from time import monotonic
from typing import NamedTuple

from ..cancellation import Cancellation
from ..events import Event, ExamplesRead, Phase
from ..judge.judge import Judge
from .background import run_quietly

_LOOK_SECONDS = 0.2


class _Progress(NamedTuple):
    """Tokens read, tokens in all, and when all are read, by `monotonic`; None: nobody knows yet."""

    done: int
    total: int
    ends: float | None

    @property
    def event(self) -> ExamplesRead:
        left = None if self.ends is None else max(self.ends - monotonic(), 0.0)
        return ExamplesRead(self.done, self.total, left)


def _pieces(judge: Judge) -> Iterator[_Progress]:
    """Read what is left; the speed is that of what was read in this call."""
    begun, first = monotonic(), None
    for done, total in judge.read_prefixes():
        first = done if first is None else first
        now = monotonic()
        ends = now + (now - begun) * (total - done) / (done - first) if done > first else None
        yield _Progress(done, total, ends)


class ExampleReading:
    """Lets a judge read its examples in a thread of its own, on a context that nobody else touches meanwhile.

    Whoever touches the judge, or closes it, calls `stop` or exhausts `rest` before. What was read stays.
    """

    def __init__(self, cancellation: Cancellation) -> None:
        """`cancellation` aborts the judge's decodes, and the reading with them."""
        self._cancellation = cancellation
        self._thread: threading.Thread | None = None
        self._progress: _Progress | None = None

    def start(self, judge: Judge | None) -> None:
        """Read what is left to read, unless that is going on."""
        if judge is None or self._is_running or judge.holds_prefixes:
            return
        self._thread = threading.Thread(
            target=run_quietly, args=(lambda: self._read(judge),), name="examples", daemon=True
        )
        self._thread.start()

    def _read(self, judge: Judge) -> None:
        for self._progress in _pieces(judge):
            self._cancellation.check()

    def rest(self, judge: Judge) -> Iterator[Event]:
        """Wait for what is being read, read the rest, and tell how far it is; nothing where all is read.

        Raises:
            Cancelled, ContextFull, ModelError: as the model's `extend`.
        """
        if not self._is_running and judge.holds_prefixes:
            return
        yield Phase("examples")
        while self._is_running:
            if self._progress:
                yield self._progress.event
            self.wait(_LOOK_SECONDS)
        for progress in _pieces(judge):
            yield progress.event

    def wait(self, seconds: float | None = None) -> None:
        """Until what is going on is done, or for so many seconds."""
        if self._thread is not None:
            self._thread.join(seconds)

    def stop(self) -> None:
        """Abort the decode that it is in, and wait for that."""
        if self._is_running:
            with self._cancellation.raised():
                self.wait()
        self._thread = None

    @property
    def _is_running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()
