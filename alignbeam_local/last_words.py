"""What this process was doing and what ended it, in memory that the parent above it can read afterwards.

llama.cpp ends a process whose RPC server is lost, at once and without an exception. What stands here then is
all that is left to tell.
"""

import mmap
import sys

_DOING, _MOST = 64, 4096


class LastWords:
    """Two texts in memory that a fork shares."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _MOST)

    @property
    def doing(self) -> str:
        """The phase that was begun last; empty: none."""
        return self._text(0, _DOING)

    @property
    def reason(self) -> str:
        """What llama.cpp said when it ended the process; empty: it did not."""
        return self._text(_DOING, _MOST)

    def note_doing(self, name: str) -> None:
        self._put(0, _DOING, name)

    def note_reason(self, text: str) -> None:
        self._put(_DOING, _MOST, text)

    def _put(self, start: int, end: int, text: str) -> None:
        data = text.encode("utf-8", "replace")[: end - start]
        self._memory[start:end] = data.ljust(end - start, b"\0")

    def _text(self, start: int, end: int) -> str:
        return self._memory[start:end].rstrip(b"\0").decode("utf-8", "replace")


_watched: list[LastWords] = []


def watch_with(words: LastWords) -> None:
    """From now on this process, a child, tells here what it does."""
    _watched[:] = [words]


def is_watched() -> bool:
    """Whether a parent reads what is told here."""
    return bool(_watched)


def note_doing(name: str) -> None:
    """A phase begins."""
    for words in _watched:
        words.note_doing(name)


def note_reason(text: str) -> None:
    """llama.cpp is about to end this process; without a parent it is said on stderr."""
    for words in _watched:
        words.note_reason(text)
    if not _watched:
        print(f"llama.cpp ends this process: {text}", file=sys.stderr, flush=True)
