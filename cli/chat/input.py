"""Where a chat's messages come from: a line editor on a terminal, else stdin as it is."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from alignbeam_local.errors import UsageError
from alignbeam_local.paths import data_dir, ensure_dir

from ..inputs import Arriving, checked
from ..terminal import is_dumb, is_terminal, say
from ..waiting import told_if_slow

if TYPE_CHECKING:
    from prompt_toolkit.completion import Completer
    from prompt_toolkit.history import History
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

_PROMPT, _CONTINUED = ">>> ", "... "
_QUOTES = '"""'
_MENU_ROWS = 5
_HINT = "Ctrl-D or /bye leaves, /help lists what can be typed."


class LineReader(Protocol):
    """What the user types."""

    def next_message(self) -> str | None:
        """The next message or command; None when the user leaves.

        Raises:
            UsageError: it is not UTF-8; the one after it can be read.
        """

    def edited(self, text: str) -> str | None:
        """The text as the user changed it, in an editor if that may write it; None if it was given up.

        Raises:
            UsageError: there is no terminal to edit on.
        """


class PipedReader:
    """Lines of stdin."""

    def __init__(self) -> None:
        self._lines = Arriving(sys.stdin.buffer, b"\n")
        self._has_waited = False  # a person hears once that nothing comes

    def next_message(self) -> str | None:
        message = self._line()
        while message is not None and is_open(message):
            line = self._line()
            if line is None:
                break
            message += line
        return None if message is None else checked(unquoted(message), "the message")

    def edited(self, text: str) -> str | None:
        raise UsageError("/edit needs a terminal", "Give the whole question as a line.")

    def _line(self) -> str | None:
        with told_if_slow("reading messages from stdin", quiet=self._has_waited):
            raw = self._lines.take()
        self._has_waited = True
        return None if raw is None else raw.decode(errors="surrogateescape") + "\n"


class PlainReader(PipedReader):
    """Lines typed at a terminal that can't move its cursor."""

    def next_message(self) -> str | None:
        while True:
            try:
                return super().next_message()
            except KeyboardInterrupt:
                say(f"\n{_HINT}")

    def _line(self) -> str | None:
        try:
            return input(_PROMPT) + "\n"
        except EOFError:
            return None


class LineEditor:
    """A line editor whose history outlives the chat, readable by the user alone.

    Without `keeps_history` nothing that is typed reaches the disk: no external editor is opened either, which
    reads a temporary file.
    """

    def __init__(
        self, completer: "Completer", toolbar: Callable[[], str], *, keeps_history: bool = True
    ) -> None:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.filters import Condition
        from prompt_toolkit.output.color_depth import ColorDepth

        from ..editing_mode import wants_vi

        self._may_open_editor = keeps_history
        self._notes: list[str] = []  # for the user, before the next prompt: over this one they would smear
        self._session = PromptSession[str](
            _PROMPT,
            multiline=True,
            prompt_continuation=_CONTINUED,
            history=_history(keeps_history, self._notes.append),
            key_bindings=_key_bindings(),
            completer=completer,
            complete_while_typing=Condition(lambda: self._session.default_buffer.text.startswith("/")),
            reserve_space_for_menu=_MENU_ROWS,
            bottom_toolbar=toolbar,
            enable_open_in_editor=keeps_history,
            enable_suspend=True,
            vi_mode=wants_vi(),
            tempfile_suffix=".md",
            color_depth=ColorDepth.from_env(),
        )

    def next_message(self) -> str | None:
        while True:
            while self._notes:
                say(self._notes.pop(0))
            try:
                return checked(unquoted(self._session.prompt()), "the message")
            except KeyboardInterrupt:
                if not self._session.default_buffer.text:
                    say(_HINT)
            except EOFError:
                return None

    def edited(self, text: str) -> str | None:
        buffer = self._session.default_buffer

        def open_editor() -> None:
            buffer.open_in_editor(validate_and_handle=True)

        try:
            return self._session.prompt(default=text, pre_run=open_editor if self._may_open_editor else None)
        except (KeyboardInterrupt, EOFError):
            return None


def open_reader(completer: "Completer", toolbar: Callable[[], str], *, keeps_history: bool) -> LineReader:
    """The line editor where a person types and reads."""
    if not (is_terminal(sys.stdin) and is_terminal(sys.stdout)):
        return PipedReader()
    if is_dumb():
        return PlainReader()
    return LineEditor(completer, toolbar, keeps_history=keeps_history)


def is_open(text: str) -> bool:
    """Whether a message in triple quotes has begun and not ended."""
    text = text.strip()
    return text.startswith(_QUOTES) and (len(text) < 2 * len(_QUOTES) or not text.endswith(_QUOTES))


def unquoted(text: str) -> str:
    """Without the triple quotes around it; what stood in them is never a command."""
    stripped = text.strip()
    if not stripped.startswith(_QUOTES):
        return text
    inner = stripped.removeprefix(_QUOTES).removesuffix(_QUOTES).strip("\n")
    return f" {inner}" if inner.startswith("/") else inner


def typed_lines() -> Path:
    """The file of what was typed in chats."""
    return data_dir() / "chat_history"


def _history(is_kept: bool, tell: Callable[[str], None]) -> "History":
    from prompt_toolkit.history import InMemoryHistory

    from .line_history import LineHistory

    if not is_kept:
        return InMemoryHistory()
    path = typed_lines()
    try:
        ensure_dir(data_dir())
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        path.chmod(0o600)
    except OSError as error:
        tell(f"note: what is typed is not kept: {path}: {error.strerror}")
        return InMemoryHistory()
    return LineHistory(path, tell)


def _key_bindings() -> "KeyBindings":
    """Enter sends, unless triple quotes are open; Alt-Enter (or Esc, Enter) begins a new line."""
    from prompt_toolkit.enums import DEFAULT_BUFFER
    from prompt_toolkit.filters import has_focus
    from prompt_toolkit.key_binding import KeyBindings

    bindings = KeyBindings()

    @bindings.add("enter", filter=has_focus(DEFAULT_BUFFER))
    def _send(event: "KeyPressEvent") -> None:
        if is_open(event.current_buffer.text):
            event.current_buffer.insert_text("\n")
        else:
            event.current_buffer.validate_and_handle()

    @bindings.add("escape", "enter", filter=has_focus(DEFAULT_BUFFER))
    def _new_line(event: "KeyPressEvent") -> None:
        event.current_buffer.insert_text("\n")

    return bindings
