"""What a server says on stderr while it loads and runs: no prompt and no answer."""

import logging
import sys
from time import monotonic

from alignbeam_local.events import Event, ExamplesRead, Notice

from ..console.terminal import is_terminal, say
from ..views.examples import examples_left


class LoadTeller:
    """Tells notices, the judge's reading on a terminal, and when each pair is ready."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._begun: dict[str, float] = {}
        self._last = 0.0

    def __call__(self, pair: str, event: Event) -> None:
        self._begun.setdefault(pair, monotonic())
        if isinstance(event, Notice):
            say(f"note: {event.message}")
        elif isinstance(event, ExamplesRead) and self._may_tell():
            say(f"{pair}: the judge reads its examples: {examples_left(event)}")

    def _may_tell(self) -> bool:
        """Every few seconds, to a person."""
        now = monotonic()
        if self._quiet or not is_terminal(sys.stderr) or now - self._last < 5:
            return False
        self._last = now
        return True


def log_to_stderr() -> None:
    """Warnings of the server's parts, one line each."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    logging.getLogger("alignbeam_local.server").addHandler(handler)
