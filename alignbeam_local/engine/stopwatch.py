"""Milliseconds of the parts of one answer."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from ..result import Timings


class Stopwatch:
    """Adds up named parts; the total runs from its making."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._parts: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Add the time inside to a part, named as in `Timings`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._parts[name] = self._parts.get(name, 0.0) + 1e3 * (time.perf_counter() - start)

    @property
    def timings(self) -> Timings:
        return Timings(**self._parts, total_ms=1e3 * (time.perf_counter() - self._start))
