"""The chat in a real pseudo-terminal: typed, pasted, interrupted, left."""

import base64
import fcntl
import os
import pty
import select
import stat
import struct
import termios
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
from alignbeam_local.cli.chat.greeting import PLACEHOLDER

from alignbeam_local.conversation.log import ConversationLog

from .fake_engine import BEAMS
from .forked import Forked
from .running import touch_models
from .screen import Screen

#: What runs in it: the program, the terminal its controlling one; and the same with the fake engine.
REAL = (
    "import fcntl, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
    "from alignbeam_local.cli import main; sys.exit(main.main(sys.argv[1:]))"
)
_FAKE = (
    "from alignbeam_local.cli import session; from tests.fake_engine import FakeEngine;"
    f"session.open_engine = FakeEngine; {REAL}"
)
CTRL_C, CTRL_D, CTRL_R, ENTER, ALT_ENTER, TAB = "\x03", "\x04", "\x12", "\r", "\x1b\r", "\t"


class Terminal:
    """`alignbeam chat` with a person in front of it."""

    def __init__(
        self,
        *args: str,
        columns: int = 80,
        rows: int = 30,
        program: str = _FAKE,
        seconds: float = 30,
        command: str = "chat",
    ) -> None:
        """`seconds` is how long it may take until something that is waited for is there."""
        self._ours, theirs = pty.openpty()
        self._seconds = seconds
        self.screen = Screen(columns, rows, self.type)
        self._set_size(columns, rows)
        self._child = Forked(
            program, command, *args, stdin=theirs, stdout=theirs, stderr=theirs, is_leader=True
        )
        os.close(theirs)

    def __enter__(self) -> Self:
        self.expect(">>>")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._child.kill()
        self._child.wait()
        os.close(self._ours)

    def type(self, *keys: str) -> None:
        os.write(self._ours, "".join(keys).encode(errors="surrogateescape"))

    def resize(self, columns: int, rows: int) -> None:
        """Give the window another size, with all that has been written for the old one on it.

        Behind a frame, if frames are drawn: then no other is under way, and those that come are for the
        new size, however long the screen takes to wrap what it shows.
        """
        while self._read(0):
            pass
        self._read(0.3)
        while self._read(0.01):
            pass
        self._set_size(columns, rows)
        self.screen.resize(columns, rows)

    def _set_size(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def expect(self, *lines: str) -> None:
        """Wait until the last prompt follows these lines, or until the last of them is on the screen."""
        self.until(lambda: all(line in self.screen.text for line in lines))

    def until(self, holds: Callable[[], bool]) -> None:
        """Read until something is so."""
        end = time.monotonic() + self._seconds
        while not holds():
            assert time.monotonic() < end, self.screen.text
            self._read(0.05)

    def prompt_after(self, line: str) -> None:
        """Wait until the chat, having written this line, waits for the next message."""
        self.until(lambda: line in self.screen.text and self._last_line() == ">>>")

    def leave(self) -> int:
        """Press Ctrl-D; the exit code."""
        self.type(CTRL_D)
        self.until(lambda: self._child.poll() is not None)
        return self._child.wait()

    def _last_line(self) -> str:
        lines = [line for line in self.screen.lines if line and not line.startswith(" K=")]
        return lines[-1].removesuffix(PLACEHOLDER).rstrip() if lines else ""

    def _read(self, seconds: float) -> bool:
        """Show what comes within some seconds; False if nothing does."""
        if select.select([self._ours], [], [], seconds)[0]:
            with suppress(OSError):  # the program has closed its end
                self.screen.feed(os.read(self._ours, 65536).decode("utf-8", "replace"))
                return True
        return False


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    touch_models()
    for name in ("NO_COLOR", "VISUAL", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def pasted(text: str) -> str:
    return f"\x1b[200~{text}\x1b[201~"


def test_a_chat_is_typed_pasted_interrupted_and_left() -> None:
    with Terminal() as terminal:
        terminal.type("echo: hello", ENTER)
        terminal.prompt_after("1 draft, judged not harmful")
        terminal.type(pasted("echo: first\n  second\nthird"), ENTER)
        terminal.prompt_after("third\n1 draft, judged not harmful")
        assert "first second third" in terminal.screen.text, "one paragraph of one answer"
        terminal.type("hang", ENTER)
        terminal.expect("beam 3", "日本")
        terminal.type(CTRL_C, CTRL_C, CTRL_C)
        terminal.prompt_after("stopped: question and answer are not kept; Up brings the question back")
        assert "beam 3" not in terminal.screen.text
        assert "^C" not in terminal.screen.text
        terminal.type("beams", ENTER)
        terminal.prompt_after("1 judged harmful, 1 without a verdict ·\n1.2 s")
        assert f">>> beams\n{BEAMS[0]}\nrefused: the anchor began it" in terminal.screen.text
        assert terminal.leave() == 0
        assert "Traceback" not in terminal.screen.text
    history = Path(os.environ["ALIGNBEAM_DATA_DIR"]) / "chat_history"
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    assert "+echo: first\n+  second\n+third\n" in history.read_text()


def test_the_line_editor() -> None:
    with Terminal() as terminal:
        terminal.type("never sent", CTRL_C)
        terminal.until(lambda: terminal.screen.text.count(">>>") == 2)
        terminal.type(CTRL_C)
        terminal.prompt_after("Ctrl-D or /bye leaves")
        terminal.type("echo: one", ALT_ENTER, "two", ENTER)
        terminal.prompt_after("1 draft, judged not harmful")
        assert ">>> echo: one\n... two\none two\n" in terminal.screen.text
        terminal.type('"""echo: three', ENTER, 'four"""', ENTER)
        terminal.expect("\nthree four\n")
        terminal.prompt_after("1 draft, judged not harmful")
        for begun, whole in (("/ret", "/retry"), (" vari", "variant="), ("ex", "variant=exact")):
            terminal.type(begun)
            terminal.expect(whole)
            terminal.type(TAB)
        terminal.expect(">>> /retry variant=exact")
        terminal.type(ENTER)
        terminal.prompt_after("variant=exact\nthree four\n1 draft, judged not harmful")
        terminal.type(CTRL_R, "one", ENTER, ENTER)
        terminal.until(lambda: terminal.screen.text.count("\none two\n1 draft, judged not harmful") == 2)
        terminal.type("/copy", ENTER)
        terminal.prompt_after("7 characters sent")
        copied = base64.b64encode(b"one\ntwo").decode()
        assert f"\x1b]52;c;{copied}\x07" in terminal.screen.written
        assert terminal.leave() == 0


def test_the_users_editor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nold="$(cat "$1")"\nprintf "echo: edited (%s)" "$old" > "$1"\n')
    editor.chmod(0o700)
    monkeypatch.setenv("EDITOR", str(editor))
    with Terminal() as terminal:
        terminal.type("a draft", "\x18\x05")
        terminal.prompt_after("edited (a draft)\n1 draft, judged not harmful")
        terminal.type("/edit", ENTER)
        terminal.prompt_after("edited (echo: edited (a draft))\n1 draft, judged not harmful")
        editor.write_text('#!/bin/sh\nprintf hang > "$1"\n')
        terminal.type("/edit", ENTER)
        terminal.expect("beam 3", "日本")
        terminal.type(CTRL_C)
        terminal.prompt_after("stopped: the question and the answer before stay")
        assert terminal.leave() == 0
    with ConversationLog() as log:
        (kept,) = log.conversations()
        assert [one.question for one in log.exchanges(kept.id)] == ["echo: edited (echo: edited (a draft))"]


def test_without_a_log_no_editor_gets_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    editor, opened = tmp_path / "editor", tmp_path / "opened"
    editor.write_text(f"#!/bin/sh\ntouch {opened}\n")
    editor.chmod(0o700)
    monkeypatch.setenv("EDITOR", str(editor))
    with Terminal("--no-log") as terminal:
        terminal.type("echo: one", "\x18\x05", " two")
        terminal.expect(">>> echo: one two")
        terminal.type(ENTER)
        terminal.prompt_after("one two\n1 draft, judged not harmful")
        terminal.type("/edit", ENTER)
        terminal.expect(">>> /edit\n>>> echo: one two")
        terminal.type(" more", ENTER)
        terminal.prompt_after("one two more\n1 draft, judged not harmful")
        assert terminal.leave() == 0
    assert not opened.exists()


def test_a_window_may_change_its_size_while_beams_run() -> None:
    with Terminal(columns=100) as terminal:
        terminal.type("hang", ENTER)
        terminal.expect("beam 3")
        for columns, rows in ((40, 10), (5, 3), (200, 60), (100, 30)):
            terminal.resize(columns, rows)
            terminal.until(lambda: True)
        terminal.type(CTRL_C)
        terminal.prompt_after("stopped")
        assert terminal.leave() == 0


@pytest.mark.parametrize(("variable", "value"), [("TERM", "dumb"), ("NO_COLOR", "1")])
def test_plain_terminals(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, value)
    with Terminal(columns=60) as terminal:
        terminal.type("beams", ENTER)
        terminal.prompt_after(f"\n{BEAMS[0]}\nrefused: the anchor began it")
        terminal.type("slow", ENTER)
        terminal.expect("begun")
        terminal.type(CTRL_C)
        terminal.prompt_after("stopped")
        assert terminal.leave() == 0
        colours = [f"\x1b[{style}{code}m" for style in ("", "0;", "1;") for code in range(31, 37)]
        assert not any(colour in terminal.screen.written for colour in colours)


@pytest.mark.parametrize("term", ["xterm-256color", "dumb"])
def test_bytes_that_are_no_text_are_said_and_the_chat_goes_on(
    term: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", term)
    with Terminal() as terminal:
        terminal.type("/save caf\udce9", ENTER)
        terminal.prompt_after("error: the message is not Unicode text")
        terminal.type("echo: on", ENTER)
        terminal.prompt_after("\non\n")
        assert terminal.leave() == 0


@pytest.mark.parametrize("columns", [60, 100, 200])
def test_the_chat_greets(columns: int) -> None:
    with Terminal(columns=columns) as terminal:
        terminal.expect(f">>> {PLACEHOLDER}")
        greeting = " ".join(terminal.screen.text.partition(">>>")[0].split())
        assert greeting == (
            "note: the judge is not calibrated "
            "A local model answers, an aligned one begins, a judge chooses. /help lists what can be typed. "
            "draft smollm2-135m-instruct ← anchor qwen2.5-coder-0.5b-instruct "
            "judge qwen2.5-coder-0.5b-instruct · profile starter "
            "The starter profile is a toy for trying the mechanics: its answers are not worth much. "
            "`alignbeam start` leads to a chat with a model file of your own. "
            "The judge reads its worked examples in the background, only this first time; "
            "the first answer may have to wait for it."
        )
        terminal.type("echo: hello")
        terminal.expect(">>> echo: hello")
        assert PLACEHOLDER not in terminal.screen.text
        terminal.type(ENTER)
        terminal.prompt_after("hello\n1 draft")
        terminal.type(CTRL_C)
        terminal.prompt_after("Ctrl-D or /bye leaves")
        assert terminal.screen.text.count(PLACEHOLDER) == 1, "a line that was left empty is empty"
        assert terminal.screen.text.count("toy") == 1
        assert terminal.leave() == 0


def test_who_named_a_draft_hears_of_no_toy_and_who_is_quiet_of_nothing() -> None:
    with Terminal("--profile", "starter") as terminal:
        assert "profile starter" in terminal.screen.text
        assert "toy" not in terminal.screen.text
        assert terminal.leave() == 0
    with Terminal("--quiet") as terminal:
        assert "an aligned one begins" not in terminal.screen.text
        assert terminal.leave() == 0
