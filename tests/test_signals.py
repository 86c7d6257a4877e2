"""SIGTERM and SIGHUP end a command as Ctrl-C does: models freed, nothing half said, its own exit code."""

import ctypes
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from alignbeam_local.cli import main as main_module

from tests.forked import Forked
from tests.running import touch_models
from tests.screen import Screen

#: The program with a fake engine that leaves a note when it is closed; the rest of the command follows.
CHILD = """
import sys
from pathlib import Path
from alignbeam_local.cli import main, session
from tests.fake_engine import FakeEngine

class Noted(FakeEngine):
    def __exit__(self, *error):
        super().__exit__(*error)
        Path(sys.argv[1]).write_text("closed")

session.open_engine = Noted
sys.exit(main.main(sys.argv[2:]))
"""
ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def hangups_are_heard() -> Iterator[None]:
    """Children inherit what is ignored, and under `nohup` that is SIGHUP."""
    previous = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, previous)


@pytest.fixture
def note(tmp_path: Path) -> Path:
    touch_models()
    return tmp_path / "note"


def started(note: Path, *args: str) -> Forked:
    return Forked(CHILD, str(note), *args)


@pytest.mark.parametrize("command", ["ask", "filter"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_an_answer_in_the_making_is_dropped(
    note: Path, command: str, number: signal.Signals, code: int
) -> None:
    child = started(note, command, "--trace")
    assert child.stdin is not None
    assert child.stderr is not None
    child.stdin.write(b"slow\n")
    child.stdin.flush()
    if command == "ask":
        child.stdin.close()
        child.stdin = None
    while not child.stderr.readline().startswith(b"{"):  # the first step: the answer is being made
        pass
    child.send_signal(number)
    child.send_signal(number)  # the second is too late to disturb the end
    out, err = child.communicate(timeout=30)
    assert (child.returncode, out, err) == (code, b"", b"")
    assert note.read_text() == "closed"


def test_answers_that_were_ready_stay(note: Path) -> None:
    child = started(note, "filter")
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(b"echo: one\n")
    child.stdin.flush()
    assert child.stdout.readline() == b"one\n"
    child.send_signal(signal.SIGTERM)  # it waits for a line
    out, _ = child.communicate(timeout=30)
    assert (child.returncode, out, note.read_text()) == (143, b"", "closed")


def test_a_signal_that_is_ignored_stays_ignored(note: Path) -> None:
    ignoring = ("/bin/sh", "-c", "trap '' HUP; exec \"$@\"", "sh")
    child = subprocess.Popen(
        [*ignoring, sys.executable, "-c", CHILD, str(note), "filter"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    for word in (b"one", b"two"):
        child.stdin.write(b"echo: " + word + b"\n")
        child.stdin.flush()
        assert child.stdout.readline() == word + b"\n"
        child.send_signal(signal.SIGHUP)
    child.communicate(timeout=30)
    assert child.returncode == 0


def test_a_terminal_that_goes_away_ends_a_chat(note: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("PROMPT_TOOLKIT_NO_CPR", "1")
    ours, theirs = pty.openpty()
    own_terminal = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)"
    child = Forked(
        own_terminal + CHILD, str(note), "chat", stdin=theirs, stdout=theirs, stderr=theirs, is_leader=True
    )
    os.close(theirs)
    screen = Screen()
    _read_until(">>>", ours, screen)
    os.write(ours, b"slow\r")
    _read_until("begun", ours, screen)
    os.close(ours)
    assert child.wait(30) == 129
    assert note.read_text() == "closed"


def _read_until(text: str, terminal: int, screen: Screen) -> None:
    end = time.monotonic() + 30
    while text not in screen.text:
        assert time.monotonic() < end, screen.text
        if select.select([terminal], [], [], 0.1)[0]:
            screen.feed(os.read(terminal, 65536).decode("utf-8", "replace"))


@pytest.fixture
def handlers() -> Iterator[None]:
    """Puts them back."""
    before = {number: signal.getsignal(number) for number in main_module._ENDING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
def test_handlers_are_put_back(capsys: pytest.CaptureFixture[str]) -> None:
    before = [signal.getsignal(number) for number in main_module._ENDING]
    assert main_module.main(["--help"]) == 0
    assert [signal.getsignal(number) for number in main_module._ENDING] == before


@pytest.mark.usefixtures("handlers")
def test_a_signal_that_a_callback_swallows_ends_it_all_the_same() -> None:
    def swallowing() -> None:
        with main_module._ended_by_signals(), suppress(main_module.Ended):
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(main_module.Ended) as caught:
        swallowing()
    assert caught.value.exit_code == 143


def test_a_signal_within_a_callback_of_c_ends_the_command_without_a_word(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)  # what would print it
    callback = ctypes.CFUNCTYPE(None)(lambda: signal.raise_signal(signal.SIGTERM))

    def called() -> None:
        with main_module._ended_by_signals():
            callback()

    with pytest.raises(main_module.Ended):
        called()
    assert told == []
