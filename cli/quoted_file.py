"""A file as part of a prompt: its name, then its text in a fence."""

import re

from alignbeam_local.errors import UsageError
from alignbeam_local.paths import user_path
from alignbeam_local.reading import read_text

from .inputs import checked

_HINT = "Give a UTF-8 text file."
_SHORTEST_FENCE = 3


def quoted_file(given: str, *, waits: bool = True) -> str:
    """The part of a prompt that holds a file's text; the fence is longer than any in it.

    `waits`: as `read_text`.

    Raises:
        UsageError: it can't be read, is not text, or is empty.
    """
    path = user_path(checked(given, "the name of the file"))
    text = read_text(path, _HINT, waits=waits)
    if "\0" in text:
        raise UsageError(f"{path} is not a text file", _HINT)
    if not text.strip():
        raise UsageError(f"there is nothing in {path}", "Leave it out, or give another file.")
    runs = (len(run) for run in re.findall("`+", text))
    fence = "`" * max(_SHORTEST_FENCE, *(length + 1 for length in runs), 0)
    body = text if text.endswith("\n") else f"{text}\n"
    return f"{path}\n{fence}\n{body}{fence}"
