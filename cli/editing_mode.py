"""Does the user edit lines with vi's keys? What readline's own file of settings says."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_NAME = "alignbeam"  # what `$if` may ask for
_DEEPEST = 5  # files that include files


def wants_vi() -> bool:
    """What the last `set editing-mode` says of those that apply; emacs' keys without one."""
    mode = "emacs"
    for line in _lines(_inputrc(), _DEEPEST):
        words = line.lower().split()
        if words[:2] == ["set", "editing-mode"] and len(words) > 2:
            mode = words[2]
    return mode == "vi"


def _inputrc() -> Path:
    """Where readline looks: INPUTRC, ~/.inputrc, and the system's file where that is not there."""
    own = Path(os.path.expanduser(os.environ.get("INPUTRC") or "~/.inputrc"))
    return own if own.exists() else Path("/etc/inputrc")


def _lines(path: Path, deepest: int) -> Iterator[str]:
    """The settings outside of `$if`, and within one that is about this program."""
    applies = [True]
    text = ""
    with suppress(OSError, ValueError):
        text = path.read_text(encoding="utf-8", errors="replace")
    for line in map(str.strip, text.splitlines()):
        word, _, rest = line.partition(" ")
        match word.lower():
            case "$if":
                applies.append(applies[-1] and rest.strip().lower() == _NAME)
            case "$else" if len(applies) > 1:
                applies[-1] = applies[-2] and not applies[-1]
            case "$endif" if len(applies) > 1:
                applies.pop()
            case "$include" if applies[-1] and deepest:
                yield from _lines(Path(os.path.expanduser(rest.strip())), deepest - 1)
            case _ if applies[-1] and not line.startswith("#"):
                yield line
