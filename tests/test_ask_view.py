"""`ask` for a person: Markdown drawn, its text as it is where that is wanted, files in the prompt."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from contextlib import suppress
from pathlib import Path

import pytest
from alignbeam_local.cli.quoted_file import quoted_file
from alignbeam_local.cli.views.markdown_view import MarkdownView

from alignbeam_local.config import Config
from alignbeam_local.errors import ContextFull, UsageError
from alignbeam_local.events import AnswerText, Done, Phase, Withdrawn

from .fake_engine import REFUSED, FakeEngine, fake_result
from .running import CHILD, run, touch_models
from .screen import Screen

MARKDOWN = "Some **bold** words that must wrap between words, not inside them.\n\n- one\n- two"


def on_terminal(*args: str, columns: int = 40) -> Screen:
    """What a person sees of a command whose three streams are a terminal."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    env = {**os.environ, "TERM": os.environ.get("TERM_OF_TEST", "xterm"), "COLUMNS": str(columns)}
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, *args],
        cwd=Path(__file__).parents[1],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=env,
    )
    os.close(theirs)
    screen, read = Screen(columns), b""
    with suppress(OSError):  # the other end is closed
        while chunk := os.read(ours, 65536):
            read += chunk
    assert child.wait(30) == 0
    os.close(ours)
    screen.feed(read.decode())
    return screen


def test_on_a_terminal_its_markdown_is_drawn_and_words_are_wrapped() -> None:
    touch_models()
    screen = on_terminal("ask", f"echo: {MARKDOWN}")
    assert "**" not in screen.text
    assert " • one" in screen.lines
    assert "Some bold words that must wrap between" in screen.lines
    assert "1 draft, judged not harmful" in " ".join(screen.text.split())


def test_plain_is_the_text_as_it_is() -> None:
    touch_models()
    screen = on_terminal("ask", "--plain", "--quiet", f"echo: {MARKDOWN}", columns=90)
    assert screen.text.endswith(MARKDOWN)


def test_an_answer_with_a_grammar_is_left_as_it_is() -> None:
    touch_models()
    screen = on_terminal("ask", "--quiet", "--grammar", "root ::= [^x]*", "echo: * [1,\n* 2]", columns=90)
    assert screen.text.endswith("* [1,\n* 2]")


def test_a_terminal_that_cannot_be_redrawn_gets_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    touch_models()
    monkeypatch.setenv("TERM_OF_TEST", "dumb")
    screen = on_terminal("ask", f"echo: {MARKDOWN}", columns=90)
    assert MARKDOWN in screen.text
    assert "\x1b" not in screen.written


@pytest.mark.usefixtures("engines")
@pytest.mark.parametrize("flag", [(), ("--plain",)])
def test_a_pipe_gets_every_byte_as_it_is(flag: tuple[str, ...]) -> None:
    assert run("ask", *flag, f"echo: {MARKDOWN}\x1b[31m").out == f"{MARKDOWN}\x1b[31m\n"


def view_of(screen: Screen) -> MarkdownView:
    return MarkdownView(screen.console())


def test_it_is_drawn_while_it_grows_with_what_happens_below_it() -> None:
    screen = Screen(60)
    view = view_of(screen)
    view.show(Phase("mix"))
    assert screen.text == "", "before the answer the story tells it"
    view.show(AnswerText("A **first** paragraph.\n\nAnd a sec"))
    view.show(Phase("judge"))
    assert "A first paragraph." in screen.lines
    assert screen.lines[-1] == "the judge reads them"
    view.show(AnswerText("ond."))
    view.show(Done(fake_result("x", Config())))
    assert screen.lines == ["A first paragraph.", "", "And a second."]


def test_what_is_withdrawn_leaves_the_screen() -> None:
    screen = Screen(60)
    view = view_of(screen)
    view.show(AnswerText("A harmful\n\nbeginning"))
    view.show(Withdrawn(REFUSED))
    view.close()
    assert "harmful" not in screen.text
    assert screen.lines == ["[withdrawn: what was shown did not stand]", REFUSED]


def test_nothing_of_an_answer_steers_the_terminal() -> None:
    screen = Screen(60)
    view = view_of(screen)
    view.show(AnswerText("a\x1b]0;owned\x07\x1b[2Jb"))
    view.close()
    assert "\x1b]" not in screen.written
    assert "\x1b[2J" not in screen.written


# --- files


def test_a_file_comes_under_its_name_in_a_fence_that_nothing_in_it_ends(tmp_path: Path) -> None:
    plain, fenced = tmp_path / "a.py", tmp_path / "b.md"
    plain.write_bytes(b"\xef\xbb\xbfx = 1\r\n")
    fenced.write_text("````\ncode\n````")
    assert quoted_file(str(plain)) == f"{plain}\n```\nx = 1\n```"
    assert quoted_file(str(fenced)) == f"{fenced}\n`````\n````\ncode\n````\n`````"


def test_files_come_before_what_is_piped_in_and_the_question(
    tmp_path: Path, engines: list[FakeEngine]
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_text(f"{name}'s text\n")
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    run("ask", "-f", one, "--file", two, "Why?", given="piped\n")
    (asked,) = engines[0].asked[0][0]
    assert asked.content == f"{one}\n```\none's text\n```\n\n{two}\n```\ntwo's text\n```\n\npiped\n\nWhy?"
    run("ask", "-f", one)
    assert engines[1].asked[0][0][0].content == f"{one}\n```\none's text\n```"


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"", "nothing in"), (b"a\0b", "not a text file"), (b"\xff\x00\xd8", "UTF-8"), (None, "cannot read")],
)
def test_what_is_no_text_file_is_a_usage_error(tmp_path: Path, content: bytes | None, why: str) -> None:
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=why):
        quoted_file(str(path))
    assert run("ask", "-f", str(path), "hi").code == 2


def test_a_chat_puts_a_file_before_the_next_question_that_is_answered(
    tmp_path: Path, engines: list[FakeEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    fitting = iter((False, True, True))

    def left_out(*_: object) -> int:
        if not next(fitting):
            raise ContextFull("it does not fit")
        return 0

    monkeypatch.setattr(FakeEngine, "left_out", left_out)
    path = tmp_path / "my notes.md"
    path.write_text("- tea\n")
    quoted = f"{path}\n```\n- tea\n```"
    ran = run("chat", given=f"/file '{path}'\nWhat?\nWhat now?\nAnd then?\n")
    questions = [turns[-1].content for turns, _ in engines[0].asked]
    assert questions == [f"{quoted}\n\nWhat now?", "And then?"]
    assert "before the next question: 1 file; /file alone" in ran.err
    assert "error: it does not fit" in ran.err


def test_a_file_is_taken_off_again(tmp_path: Path, engines: list[FakeEngine]) -> None:
    path = tmp_path / "notes.md"
    path.write_text("- tea\n- milk\n")
    ran = run("chat", given=f"/file\n/file {path}\n/file {path}\n/file\n/file {tmp_path}/none\necho: hi\n")
    assert [turns[-1].content for turns, _ in engines[0].asked] == ["echo: hi"]
    assert "error: /file needs a file" in ran.err
    assert "taken off: 2 files" in ran.err
    assert "error: cannot read" in ran.err
