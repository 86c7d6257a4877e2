"""Nothing waits in silence: a person at a terminal is told what is waited for, and a pipe hears nothing."""

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from alignbeam_local.cli import waiting
from alignbeam_local.cli.waiting import awaited, entered, told_if_slow

from .gguf_files import write_gguf
from .running import CHILD, run, touch_models

SLOW = 0.05


@pytest.fixture
def on_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dumb one: it gets lines."""
    monkeypatch.setattr(waiting, "is_terminal", lambda _: True)
    monkeypatch.setattr(waiting, "is_dumb", lambda: True)
    monkeypatch.setattr(waiting.told_if_slow.__wrapped__, "__kwdefaults__", {"quiet": False, "seconds": SLOW})


class Person:
    """A program whose stderr is a terminal, and whose stdin is a pipe that stays open."""

    def __init__(self, *args: str) -> None:
        self._ours, theirs = pty.openpty()
        self.child = subprocess.Popen(
            [sys.executable, "-c", CHILD, *args],
            cwd=Path(__file__).parents[1],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=theirs,
        )
        os.close(theirs)
        self.seen = ""

    def reads(self, text: str, seconds: float = 30) -> bool:
        end = time.monotonic() + seconds
        while text not in self.seen and time.monotonic() < end:
            if select.select([self._ours], [], [], 0.1)[0]:
                self.seen += os.read(self._ours, 65536).decode()
        return text in self.seen

    def end(self, given: bytes) -> str:
        out, _ = self.child.communicate(given, timeout=30)
        os.close(self._ours)
        return out.decode()


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("ask", "echo: x"), "reading stdin until it ends"),
        (("filter",), "reading prompts from stdin"),
        (("chat", "--no-log"), "reading messages from stdin"),
    ],
)
def test_who_waits_for_stdin_says_so_on_a_terminal(args: tuple[str, ...], told: str) -> None:
    touch_models()
    person = Person(*args)
    assert person.reads(told), person.seen
    assert person.end(b"" if args[0] == "ask" else b"echo: x\n") == "x\n"
    assert person.seen.count(told) == 1


def test_who_is_quiet_waits_in_silence() -> None:
    touch_models()
    person = Person("ask", "echo: x", "--quiet")
    assert not person.reads("reading stdin", seconds=2.5)
    assert person.end(b"") == "x\n"


def test_what_takes_no_time_is_not_told(on_terminal: None, capsys: pytest.CaptureFixture[str]) -> None:
    with told_if_slow("soon"):
        pass
    time.sleep(2 * SLOW)
    assert capsys.readouterr().err == ""


def test_a_pipe_hears_nothing_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    with told_if_slow("slow", seconds=SLOW):
        time.sleep(3 * SLOW)
    assert capsys.readouterr().err == ""


def test_what_is_slow_is_told_once(on_terminal: None, capsys: pytest.CaptureFixture[str]) -> None:
    @contextmanager
    def opening() -> Iterator[str]:
        time.sleep(3 * SLOW)
        yield "opened"

    def items() -> Iterator[int]:
        time.sleep(3 * SLOW)
        yield 1
        yield 2

    with entered("opening", opening()) as opened:
        assert opened == "opened"
        time.sleep(3 * SLOW)
    assert list(awaited("looking", items())) == [1, 2]
    assert capsys.readouterr().err == "opening\nlooking\n"


def test_an_error_while_something_is_awaited_stays_what_it_is(on_terminal: None) -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("here")

    with pytest.raises(ValueError, match="here"):
        list(awaited("looking", items()))


@pytest.mark.parametrize("command", ["verify", "import", "bridge", "doctor"])
def test_commands_that_take_long_say_what_they_do(
    command: str, tmp_path: Path, on_terminal: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever they do, it happens within `waiting`."""
    told: list[str] = []

    @contextmanager
    def recording(what: str) -> Iterator[object]:
        told.append(what)
        yield told.append

    for module in ("waiting", "commands.models", "commands.bridge"):
        monkeypatch.setattr(f"alignbeam_local.cli.{module}.waiting", recording, raising=module != "waiting")
    path = write_gguf(tmp_path / "tiny.gguf")
    run("models", "import", str(path))
    told_by = {
        "verify": (("models", "verify", "tiny"), "tiny: 100%"),
        "import": (("models", "import", str(path), "--name", "other"), f"reading {path}"),
        "bridge": (("bridge", str(path), str(path)), "tiny: is it the file that it must be?"),
        "doctor": (("doctor",), "looking"),
    }
    args, expected = told_by[command]
    told.clear()
    run(*args)
    assert expected in told
