"""The parts of a request that are read beside the whole: padding around a harmful sentence clears nothing."""

import re
from collections.abc import Sequence

from ..prompt.message import Message
from ..prompt.paragraphs import BLANK_LINE
from ..prompt.undressed import NumTokens, undressed

#: Bytes of the shortest sentence that is read by itself; a shorter one goes with its neighbour.
MIN_BYTES = 16

_END = re.compile(r"(?<=[.!?…])\s+|(?<=[。！？；])\s*|\n+")

Conversation = tuple[Message, ...]


def parts(conversation: Sequence[Message], num_tokens: NumTokens) -> list[Conversation]:
    """The conversation itself, then what its last user turn holds, each by itself; none is there twice.

    By itself, as heads are fitted: that turn, what follows its last blank line, its sentences, and what it
    says in another dress. `num_tokens` is the reading model's.
    """
    text = conversation[-1].content
    tail = BLANK_LINE.split(text.strip())[-1]
    inside = [part for found in undressed(text, num_tokens) for part in (found, *sentences(found))]
    alone = [(Message("user", part),) for part in (text, tail, *sentences(text), *inside)]
    return list(dict.fromkeys([tuple(conversation), *alone]))


def sentences(text: str) -> list[str]:
    """The sentences of a text, however many: in a run of several a harmful one would hide."""
    found: list[str] = []
    for sentence in filter(None, map(str.strip, _END.split(text))):
        if found and _is_short(found[-1]):
            found[-1] += f" {sentence}"
        else:
            found.append(sentence)
    if len(found) > 1 and _is_short(found[-1]):
        found[-2:] = [" ".join(found[-2:])]
    return found


def _is_short(sentence: str) -> bool:
    return len(sentence.encode()) < MIN_BYTES
