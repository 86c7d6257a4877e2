"""Where a chat's lines come from: a line editor on a terminal, else stdin as it is."""

import os
import sys
from typing import Protocol

from alignbeam_local.paths import data_dir, ensure_dir

from .inputs import decoded
from .terminal import is_terminal, say


class Reader(Protocol):
    """What the user types."""

    def next_line(self) -> str | None:
        """The next line; None when the user leaves."""


class PipedReader:
    """Lines of stdin."""

    def next_line(self) -> str | None:
        raw = sys.stdin.buffer.readline()
        return decoded(raw, "the line") if raw else None


class LineEditor:
    """A line editor whose history outlives the chat, readable by the user alone."""

    def __init__(self) -> None:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.history import FileHistory

        path = ensure_dir(data_dir()) / "chat_history"
        os.close(os.open(path, os.O_CREAT | os.O_APPEND, 0o600))
        self._session = PromptSession[str](">>> ", history=FileHistory(path))

    def next_line(self) -> str | None:
        while True:
            try:
                return self._session.prompt()
            except KeyboardInterrupt:
                say("Ctrl-D leaves.")
            except EOFError:
                return None


def open_reader() -> Reader:
    """The line editor where a person types and reads."""
    return LineEditor() if is_terminal(sys.stdin) and is_terminal(sys.stdout) else PipedReader()
