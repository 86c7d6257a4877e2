"""What is drawn over again and again, in a window whose size changes meanwhile."""

import random

import pytest
from alignbeam_local.cli.views.board import Board
from alignbeam_local.cli.views.region import Region, go_on_all, hold_all
from rich.console import Console
from rich.text import Text

from .fake_engine import running_beams
from .screen import Screen


class Window:
    """A region on a screen whose size changes; before it stands a question."""

    def __init__(self, columns: int, rows: int = 40) -> None:
        self.screen = Screen(columns, rows)
        self.console = Console(
            file=self.screen,  # type: ignore[arg-type]
            force_terminal=True,
            color_system="standard",
            highlight=False,
            width=columns,
            height=rows,
            _environ={},
        )
        self.console.print(">>> Why?")
        self.region = Region(self.console)
        self.board = Board()
        for event in running_beams():
            self.board.add(event)

    def draw(self) -> None:
        self.region.draw(self.board.drawn(self.console))

    def resize(self, columns: int, rows: int = 40) -> None:
        self.screen.resize(columns, rows)
        self.console.size = (columns, rows)


@pytest.fixture(autouse=True)
def a_terminal_that_wraps(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TMUX", "XTERM_VERSION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


@pytest.mark.parametrize(
    "widths", [(200, 100, 60), (100, 60, 200), (60, 100, 60), (200, 60), (100, 99, 98, 97, 35), (70, 69, 70)]
)
def test_a_resize_leaves_nothing_behind(widths: tuple[int, ...]) -> None:
    window = Window(widths[0])
    window.draw()
    for width in widths[1:]:
        window.resize(width)
        window.draw()
        assert window.screen.text.count("beam 1") == 1, window.screen.text
        assert window.screen.text.count("draft completes them") == 1
        window.draw()
    assert window.screen.lines[0].startswith(">>> Why?")
    window.region.close()
    assert window.screen.lines == [">>> Why?"]


def test_any_widths_one_after_the_other() -> None:
    draw = random.Random(17)
    window = Window(120)
    for _ in range(60):
        window.draw()
        window.resize(draw.randint(20, 200))
    window.draw()
    window.region.close()
    assert window.screen.lines == [">>> Why?"]


@pytest.mark.parametrize(("variable", "value"), [("XTERM_VERSION", "XTerm(390)"), ("TERM", "rxvt-unicode")])
def test_a_terminal_that_cuts_off_keeps_what_stands_above(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    window = Window(100)
    window.draw()
    window.screen.columns = 60
    window.screen._screen.resize(40, 60)
    window.console.size = (60, 40)
    window.draw()
    window.region.close()
    assert window.screen.lines == [">>> Why?"]


def test_what_is_held_is_off_the_screen_and_drawn_anew_below_what_others_wrote() -> None:
    window = Window(100)
    window.draw()
    hold_all()
    assert window.screen.lines == [">>> Why?"]
    assert window.screen.written.endswith("\x1b[?25h"), "the cursor is the shell's"
    window.draw()
    assert window.screen.lines == [">>> Why?"]
    window.screen.write("[1]+ Stopped\n$ fg\n")
    go_on_all()
    window.draw()
    assert window.screen.lines[:3] == [">>> Why?", "[1]+ Stopped", "$ fg"]
    assert window.screen.text.count("beam 1") == 1
    window.region.close()
    assert window.screen.lines == [">>> Why?", "[1]+ Stopped", "$ fg"]


def test_more_rows_than_the_window_has_are_cut_off() -> None:
    window = Window(80, rows=6)
    for _ in range(3):
        window.region.draw(Text("\n".join(f"row {n}" for n in range(50))))
    assert window.screen.lines == [">>> Why?", *(f"row {n}" for n in range(5))]
    window.region.close()
    assert window.screen.lines == [">>> Why?"]
