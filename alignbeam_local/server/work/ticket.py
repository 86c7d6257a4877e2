"""What happens to a job, carried from the engine's thread into the event loop."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from ...errors import AlignBeamError
from .jobs import JobEvent


class Ticket:
    """Made in the event loop; `tell` may be called from any thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._arrived: asyncio.Queue[Sequence[JobEvent]] = asyncio.Queue()
        self._getting: asyncio.Task[Sequence[JobEvent]] | None = None

    def tell(self, events: Sequence[JobEvent]) -> None:
        """Let the loop know; after its end nobody listens."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._arrived.put_nowait, events)

    async def next(self, seconds: float | None = None) -> Sequence[JobEvent]:
        """The events that come next; nothing if none do in so many seconds."""
        if self._getting is None:
            self._getting = self._loop.create_task(self._arrived.get())
        await asyncio.wait({self._getting}, timeout=seconds)
        if not self._getting.done():
            return ()
        events, self._getting = self._getting.result(), None
        return events

    async def begun(self, seconds: float) -> Sequence[JobEvent]:
        """What has happened after the first word of the engine, or after so many seconds without one.

        Raises:
            AlignBeamError: the first word is that it can't be answered.
        """
        events = await self.next(seconds)
        if events and isinstance(events[-1], AlignBeamError):
            raise events[-1]
        return events

    def close(self) -> None:
        """Nobody listens any more."""
        if self._getting is not None:
            self._getting.cancel()
