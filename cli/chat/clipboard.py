"""The clipboard of the terminal, by its own escape sequence (OSC 52): that works over ssh too."""

import sys
from base64 import b64encode

from alignbeam_local.errors import UsageError

from ..console.terminal import is_dumb, is_terminal


def copy_to_terminal(text: str) -> None:
    """Ask the terminal to take a text; it does not say whether it did.

    Raises:
        UsageError: there is no terminal that could.
    """
    if not is_terminal(sys.stdout) or is_dumb():
        raise UsageError("no terminal clipboard is available", "/export FILE writes a file.")
    sys.stdout.write(f"\x1b]52;c;{b64encode(text.encode()).decode()}\x07")
    sys.stdout.flush()
