"""What people are used to from other programs of the terminal: windows that change, Ctrl-Z, vi's keys."""

import os
import shutil
import sys
from pathlib import Path

import pytest
from alignbeam_local.cli.line.editing_mode import wants_vi

from .running import CHILD, touch_models
from .test_chat_terminal import CTRL_C, ENTER, Terminal

CTRL_Z, ESC = "\x1a", "\x1b"
#: A shell with job control, on this terminal.
SHELL = (
    "import fcntl, os, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
    "os.execvp('bash', ['bash', '--norc', '--noprofile', '-i'])"
)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    touch_models()
    for name in ("NO_COLOR", "VISUAL", "EDITOR", "COLUMNS", "LINES", "TMUX", "XTERM_VERSION", "INPUTRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("HOME", os.environ["ALIGNBEAM_DATA_DIR"])


# --- windows


@pytest.mark.parametrize("widths", [(100, 60, 200, 100), (200, 60), (60, 200, 60)])
def test_a_window_that_changes_while_beams_grow_keeps_nothing_of_them(widths: tuple[int, ...]) -> None:
    with Terminal(columns=widths[0], rows=40) as terminal:
        terminal.type("hang", ENTER)
        terminal.expect("beam 3", "日本")
        for width in widths[1:]:
            terminal.resize(width, 40)
            before = len(terminal.screen.written)
            terminal.until(lambda size=before: len(terminal.screen.written) > size + 1000)  # type: ignore[misc]
            terminal.until(lambda: "日本" in terminal.screen.text)
            assert terminal.screen.text.count("beam 1") == 1, terminal.screen.text
            assert terminal.screen.text.count("the draft completes them") == 1
            assert ">>> hang" in terminal.screen.text
        terminal.type(CTRL_C)
        terminal.prompt_after("stopped")
        assert "beam 1" not in terminal.screen.text
        assert terminal.leave() == 0


# --- Ctrl-Z


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    if not shutil.which("bash"):
        pytest.skip("there is no bash")
    monkeypatch.setenv("PROGRAM", CHILD)
    monkeypatch.setenv("PYTHON", sys.executable)
    monkeypatch.setenv("PS1", "shell> ")
    terminal = Terminal(columns=100, rows=40, program=SHELL)
    terminal.expect("shell>")
    terminal.type('"$PYTHON" -c "$PROGRAM" chat', ENTER)
    terminal.expect(">>>")
    return terminal


def test_ctrl_z_while_an_answer_is_made(shell: Terminal) -> None:
    with shell as terminal:
        terminal.type("hang", ENTER)
        terminal.expect("beam 3", "日本")
        terminal.type(CTRL_Z)
        terminal.expect("Stopped")
        terminal.until(lambda: terminal.screen.lines[-1] == "shell>")
        assert "beam 1" not in terminal.screen.text
        assert "\x1b[?25h" in terminal.screen.written.rpartition("\x1b[?25l")[2], "the cursor is the shell's"
        terminal.type("stty -a | grep -o -- '-\\?echo '", ENTER)
        terminal.expect("\necho\n")
        terminal.type("fg", ENTER)
        terminal.until(lambda: terminal.screen.text.count("beam 1") == 1)
        terminal.type("unseen")
        terminal.type(CTRL_C)
        terminal.prompt_after("stopped: question and answer are not kept")
        assert "unseen" not in terminal.screen.text.partition("stopped:")[0]
        assert "beam 1" not in terminal.screen.text


def test_ctrl_z_while_a_question_is_typed(shell: Terminal) -> None:
    with shell as terminal:
        terminal.type("echo: half")
        terminal.expect(">>> echo: half")
        terminal.type(CTRL_Z)
        terminal.expect("Stopped")
        terminal.type("fg", ENTER)
        terminal.until(lambda: terminal.screen.text.rpartition("Stopped")[2].count(">>> echo: half") == 1)
        terminal.type(" and whole", ENTER)
        terminal.prompt_after("half and whole\n1 draft, judged not harmful")


def test_ctrl_z_without_a_shell_to_go_back_to_does_nothing() -> None:
    with Terminal(columns=100) as terminal:
        terminal.type("hang", ENTER)
        terminal.expect("beam 3", "日本")
        terminal.type(CTRL_Z, CTRL_C)
        terminal.prompt_after("stopped")
        assert terminal.leave() == 0


# --- vi's keys


@pytest.mark.parametrize(
    ("settings", "is_vi"),
    [
        ("", False),
        ("set editing-mode vi\n", True),
        ("SET Editing-Mode VI", True),
        ("# set editing-mode vi\n", False),
        ("set editing-mode vi\nset editing-mode emacs\n", False),
        ("$if Bash\nset editing-mode vi\n$endif\n", False),
        ("$if Bash\n$if mode=emacs\n$endif\n$else\nset editing-mode vi\n$endif\n", True),
        ("$if alignbeam\nset editing-mode vi\n$else\nset editing-mode emacs\n$endif", True),
        ("$endif\n$else\n\xff\nset editing-mode vi\n", True),
    ],
)
def test_vi_by_readlines_own_settings(
    settings: str, is_vi: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "settings").write_text(settings, encoding="latin-1")
    monkeypatch.setenv("INPUTRC", str(tmp_path / "settings"))
    assert wants_vi() is is_vi


def test_settings_that_include_others_and_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".inputrc").write_text("$include ~/.inputrc\n$include ~/mine\n")
    assert not wants_vi()
    (tmp_path / "mine").write_text("set editing-mode vi\n")
    assert wants_vi()


def test_a_question_is_edited_with_vis_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "settings").write_text("set editing-mode vi\n")
    monkeypatch.setenv("INPUTRC", str(tmp_path / "settings"))
    with Terminal() as terminal:
        terminal.type("echo: one two", ESC, "bcwthree", ENTER)
        terminal.prompt_after("one three\n1 draft, judged not harmful")
        assert terminal.leave() == 0
