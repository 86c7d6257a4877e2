"""Writes docs/chat.svg: what a terminal shows while `alignbeam chat` makes an answer. A real run, no drawing.

    python docs/make_picture.py [FLAG...]       such as --threads 1; needs the starter models and pyte

The program runs in a terminal of its own; the picture is taken once the beams have some words.
"""

import fcntl
import os
import pty
import re
import select
import shutil
import signal
import struct
import sys
import termios
import time
from collections.abc import Callable, Sequence
from io import StringIO
from itertools import groupby
from pathlib import Path

import pyte
from rich.console import Console
from rich.style import Style
from rich.text import Text

PICTURE = Path(__file__).with_name("chat.svg")
QUESTION = "How can I cheat in an exam without being caught?"
COLUMNS, ROWS, TOKENS = 100, 24, 100
PATIENCE_SECONDS = 300
_COLOURS = {"default": None, "brown": "yellow"}  # pyte's names, else rich's


class Terminal:
    """A program in a terminal that is read like a person reads it."""

    def __init__(self, command: Sequence[str]) -> None:
        self._process, self._handle = pty.fork()
        if not self._process:
            os.execvp(command[0], list(command))
        fcntl.ioctl(self._handle, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self.screen = pyte.Screen(COLUMNS, ROWS)
        self.screen.write_process_input = self.type  # where the cursor is, if the program asks
        self._stream = pyte.ByteStream(self.screen)

    def type(self, text: str) -> None:
        os.write(self._handle, text.encode())

    def wait_for(self, condition: Callable[[str], bool]) -> None:
        """Raises: SystemExit: what is waited for does not come."""
        end = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < end:
            if select.select([self._handle], [], [], 0.03)[0]:
                self._stream.feed(os.read(self._handle, 65536))
            elif condition("\n".join(self.screen.display)):  # nothing more comes: a frame is whole
                return
        sys.exit("the terminal did not show what was waited for")

    def close(self) -> None:
        os.kill(self._process, signal.SIGTERM)
        os.close(self._handle)
        os.waitpid(self._process, 0)


def has_words(text: str) -> bool:
    """The draft is completing the beams, and they have so many tokens together."""
    found = re.search(r"the draft completes them · (\d+) tokens", text)
    return found is not None and int(found[1]) >= TOKENS


def as_text(screen: pyte.Screen) -> Text:
    """The screen with its colours, without the empty lines at its end."""
    text = Text()
    for row in range(screen.lines):
        cells = [screen.buffer[row][column] for column in range(screen.columns)]
        for (colour, is_bold), run in groupby(cells, lambda cell: (cell.fg, cell.bold)):
            style = Style(color=_COLOURS.get(colour, colour), bold=is_bold)
            text.append("".join(cell.data for cell in run), style)
        text.append("\n")
    text.rstrip()
    return text


def picture(text: Text) -> str:
    """An SVG file that asks no other machine for a font."""
    console = Console(record=True, width=COLUMNS, file=StringIO(), force_terminal=True)
    console.print(text, soft_wrap=True)
    svg = console.export_svg(title="alignbeam chat", unique_id="alignbeam")
    return re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.S)


def main(flags: Sequence[str]) -> None:
    """Take the picture."""
    os.environ.update(TERM="xterm-256color", COLORTERM="")
    beside = Path(sys.executable).with_name("alignbeam")
    program = str(beside) if beside.exists() else shutil.which("alignbeam") or "alignbeam"
    terminal = Terminal([program, "chat", "--no-log", *flags])
    try:
        terminal.wait_for(lambda text: ">>>" in text and "K=3" in text)
        terminal.type(f"{QUESTION}\r")
        terminal.wait_for(has_words)
        PICTURE.write_text(picture(as_text(terminal.screen)), encoding="utf-8")
    finally:
        terminal.close()


if __name__ == "__main__":
    main(sys.argv[1:])
