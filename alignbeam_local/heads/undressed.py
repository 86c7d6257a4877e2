"""What a request says that is written otherwise, where a small model does not see what is asked.

Base64, digits for letters, and quoted pieces to be put together; whatever else there is stays hidden.
"""

import re
from base64 import b64decode
from collections.abc import Iterator

_BASE64 = re.compile(r"[A-Za-z0-9+/]{20,}={0,2}")
_WORD = re.compile(r"\w+")
_LETTERS = str.maketrans("013457", "oieast")
#: So many words with digits among their letters, and such a share of all, are letters written as digits.
_LEAST_WORDS, _LEAST_SHARE = 3, 0.2
_QUOTED = re.compile(r"(?<!\w)'((?:[^'\\\n]|\\.)*)'(?!\w)|\"((?:[^\"\\\n]|\\.)*)\"")
#: Characters of the shortest text of pieces that is one.
_LEAST_JOINED = 16


def undressed(text: str) -> Iterator[str]:
    """What stands in a text, or is the text, in plain words; nothing of most."""
    yield from _decoded(text)
    yield from _respelt(text)
    yield from _joined(text)


def _decoded(text: str) -> Iterator[str]:
    """The texts of several words that stand in it in Base64."""
    for run in _BASE64.findall(text):
        coded = run.rstrip("=")
        try:
            found = b64decode(coded + "=" * (-len(coded) % 4)).decode()
        except ValueError:  # a long word, a hash, data
            continue
        if " " in found.strip() and all(c.isprintable() or c.isspace() for c in found):
            yield found


def _respelt(text: str) -> Iterator[str]:
    """The text with letters for its digits, if words are written so."""
    words = _WORD.findall(_BASE64.sub(" ", text))
    mixed = [word for word in words if any(map(str.isalpha, word)) and any(map(str.isdigit, word))]
    if len(mixed) >= max(_LEAST_WORDS, _LEAST_SHARE * len(words)):
        yield text.translate(_LETTERS)


def _joined(text: str) -> Iterator[str]:
    """Its quoted pieces put together, if there are several."""
    pieces = [single or double for single, double in _QUOTED.findall(text)]
    if len(pieces) > 1 and len("".join(pieces)) >= _LEAST_JOINED:
        yield "".join(pieces)
