"""What stands for a content while a template is rendered, and the content as it is put in afterwards."""

import json
import re
from collections.abc import Sequence
from typing import NamedTuple

#: A tab that is gone shows that the template trims; a letter for every time that it was written as JSON.
_PLACEHOLDER = re.compile(r"(\t?)AlignBeamContent(\d+)([au]*)End(\t?)")
_AS_JSON = re.compile(r"((?:\\t)?)AlignBeamContent(\d+)([au]*)End((?:\\t)?)")
_ASCII, _UNICODE = "a", "u"


class Part(NamedTuple):
    """A stretch of a prompt: the template's own text, or what somebody said."""

    text: str
    is_content: bool


def placeholder(index: int) -> str:
    """What stands for the content with this number."""
    return f"\tAlignBeamContent{index}End\t"


def within_json(text: str, *, ensure_ascii: bool) -> str:
    """JSON with placeholders in its strings, which from now on stand for contents written as it was."""
    letter = _ASCII if ensure_ascii else _UNICODE

    def marked(match: re.Match[str]) -> str:
        before, index, letters, after = match.groups()
        first, last = before and "\t", after and "\t"
        return f"{first}AlignBeamContent{index}{letters}{letter}End{last}"

    return _AS_JSON.sub(marked, text)


def numbers_in(text: str) -> set[int]:
    """Which placeholders stand in a rendered template."""
    return {int(match[2]) for match in _PLACEHOLDER.finditer(text)}


def is_in_pythons_notation(text: str) -> bool:
    """Whether placeholders stand in Python's own spelling of a value, where contents would not be escaped."""
    return r"\tAlignBeamContent" in text


def filled(text: str, contents: Sequence[str]) -> list[Part]:
    """A rendered template, split where contents stand: trimmed and written as JSON where it does so."""
    head, *rest = _PLACEHOLDER.split(text)
    parts = [Part(head, False)]
    for before, index, letters, after, own in zip(*(rest[i::5] for i in range(5)), strict=True):
        content = contents[int(index)]
        content = content if before else content.lstrip()
        content = content if after else content.rstrip()
        for letter in letters:
            content = json.dumps(content, ensure_ascii=letter == _ASCII)[1:-1]
        parts += [Part(content, True), Part(own, False)]
    return parts
