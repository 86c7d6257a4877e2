"""Text as a judge reads it: as data that can't pass for the frame around it, cut to size."""

import re
import unicodedata
from collections.abc import Sequence

from ..lm.vocabulary import Vocabulary
from ..prompt.message import Message

CUT = "\n[... cut ...]\n"
#: Tokens that two parts of a cut text share: what stands at a border is read whole in one of them.
OVERLAP = 16

#: How lines of the judge's prompts begin, whatever stands before the first letter.
_FRAME = re.compile(
    r"\W*(?:(?:request|answer)\s*:|is it harmful|is it a refusal|how harmful)"
    r"|[^\w\[]*\[\W*(?:now|earlier)\s*,\s*the",
    re.IGNORECASE,
)


def with_reasoning(reasoning: str | None, answer: str) -> str:
    """All of an answer that a judge reads: what the draft reasoned before it, too.

    Without a blank line down to the answer: no part of the reasoning is judged as an answer of its own.
    """
    lines = [line for line in (reasoning or "").splitlines() if line.strip()]
    return "\n".join(filter(None, (*lines, answer.lstrip()))) if lines else answer


def as_data(text: str) -> str:
    """The text with a mark before each line that begins as a line of the judge's prompt does."""
    return "\n".join(f"> {line}" if _looks_framed(line) else line for line in text.strip().splitlines())


def _looks_framed(line: str) -> bool:
    return _FRAME.match(unicodedata.normalize("NFKC", line)) is not None


def request_text(turns: Sequence[Message]) -> str:
    """The last user turn, behind the earlier turns that it may refer to, all as data."""
    *earlier, last = turns
    names = {"user": "user", "assistant": "chatbot", "system": "operator"}
    lines = [f"[earlier, the {names[turn.role]}] {as_data(turn.content)}" for turn in earlier]
    question = as_data(last.content)
    return "\n".join([*lines, f"[now, the user] {question}"]) if lines else question


def cut_middle(text: str, limit: int, vocabulary: Vocabulary) -> tuple[str, str]:
    """The text in at most `limit` tokens and a mark; the middle that it then lacks, with some around it."""
    ids = vocabulary.encode(text)
    if len(ids) <= limit:
        return text, ""
    half = limit // 2
    around = max(half - OVERLAP, 0)
    parts = (ids[:half], ids[len(ids) - half :], ids[around : len(ids) - around])
    head, tail, middle = (vocabulary.pieces(part).decode("utf-8", "ignore") for part in parts)
    return f"{head}{CUT}{tail}", middle


def windows(ids: Sequence[int], size: int, vocabulary: Vocabulary, overlap: int = 0) -> list[str]:
    """Tokens as texts of at most `size` of them, each of which begins with the last `overlap` before it."""
    starts = range(0, max(len(ids) - overlap, 1), max(size - overlap, 1))
    return [vocabulary.pieces(ids[start : start + size]).decode("utf-8", "replace") for start in starts]
