"""An answer that takes too long is cancelled, as Ctrl-C would."""

from collections.abc import Generator, Iterator
from threading import Timer

from alignbeam_local.cancellation import Cancellation
from alignbeam_local.events import Event


class TimeLimit:
    """Seconds for one stream of events, None for no limit; `expired` says whether they ran out."""

    def __init__(self, cancellation: Cancellation, seconds: float | None) -> None:
        self.expired = False
        self._cancellation = cancellation
        self._seconds = seconds

    def over(self, events: Iterator[Event]) -> Generator[Event, None, None]:
        """The events; the clock runs from the first one that is asked for to the end of the stream."""
        if self._seconds is None:
            yield from events
            return
        timer = Timer(self._seconds, self._expire)
        timer.start()
        try:
            yield from events
        finally:
            timer.cancel()
            timer.join()  # a late one must not cancel what comes next

    def _expire(self) -> None:
        self.expired = True
        self._cancellation.set()
