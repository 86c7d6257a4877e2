"""The lines typed in chats, in a file as long as it can be read and written."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from prompt_toolkit.history import FileHistory


class LineHistory(FileHistory):
    """A file's history; when the file fails, `tell` is told once, and lines are remembered in memory only."""

    def __init__(self, path: Path, tell: Callable[[str], None]) -> None:
        super().__init__(path)
        self._tell = tell
        self._is_kept = True

    def load_history_strings(self) -> Iterable[str]:
        try:
            return super().load_history_strings()
        except OSError as error:
            self._give_up(error)
            return []

    def store_string(self, string: str) -> None:
        if not self._is_kept:
            return
        try:
            os.close(os.open(self.filename, os.O_RDWR | os.O_CREAT, 0o600))  # it may have been removed
            super().store_string(string)
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self._is_kept = False
        self._tell(f"note: your input history is no longer saved: {self.filename!s}: {error.strerror}")
