"""Do other programs keep a model's threads from running? Told by the processor time that its decodes got."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter, process_time

#: Below this share of the processor time that its threads could have had a run is starved.
_FAIR_SHARE = 0.5
#: Seconds of decoding before anything is said: short ones are told apart badly.
_LEAST_SECONDS = 3.0


class Starvation:
    """What the decodes of one engine's models on the processor got; said once."""

    def __init__(self) -> None:
        self._wanted = self._got = self._passed = 0.0  # seconds
        self._is_told = False

    @contextmanager
    def measured(self, threads: int) -> Iterator[None]:
        """A decode inside, by so many threads."""
        wall, processor = perf_counter(), process_time()
        try:
            yield
        finally:
            self.add(perf_counter() - wall, process_time() - processor, threads)

    def add(self, passed: float, got: float, threads: int) -> None:
        """Seconds of a decode, and seconds of processor time that this process had meanwhile."""
        self._passed += passed
        self._wanted += passed * threads
        self._got += got

    def notice(self) -> str:
        """What the user should know of the decodes since the last call; empty where that is nothing new."""
        if self._is_told or self._passed < _LEAST_SECONDS:
            return ""
        share, self._passed, self._wanted, self._got = self._got / self._wanted, 0.0, 0.0, 0.0
        self._is_told = share < _FAIR_SHARE
        if not self._is_told:
            return ""
        return (
            f"other programs slow this down: its threads got {share:.0%} of the processor time they could "
            "use; close what runs beside it, or see `alignbeam doctor` (this is said once)"
        )
