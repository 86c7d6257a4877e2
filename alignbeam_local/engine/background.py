"""One piece of work beside the main thread, stopped at once when the main thread needs the models."""

import logging
import threading
from collections.abc import Callable

from ..cancellation import Cancellation
from ..errors import AlignBeamError, Cancelled

log = logging.getLogger(__name__)


class Background:
    """Runs one thing at a time; models are not thread-safe, so whoever uses them calls `stop` before."""

    def __init__(self, cancellation: Cancellation) -> None:
        self._cancellation = cancellation
        self._thread: threading.Thread | None = None

    def start(self, work: Callable[[], None]) -> None:
        """Stop what runs, then run this. Nobody waits for it, so its failures are only logged."""
        self.stop()
        self._cancellation.clear()
        self._thread = threading.Thread(target=run_quietly, args=(work,), name="background", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Until it is done."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def stop(self) -> None:
        """Abort the decode that it is in, and wait for that."""
        if self._thread is not None:
            with self._cancellation.raised():
                self.wait()


def run_quietly(work: Callable[[], None]) -> None:
    """Do what nobody waits for: what goes wrong is only logged."""
    try:
        work()
    except Cancelled:
        log.debug("stopped")
    except AlignBeamError as error:
        log.warning("%s", error)
    except Exception:
        log.exception("in the background")
