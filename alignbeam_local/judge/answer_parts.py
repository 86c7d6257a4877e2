"""The parts of an answer that are read beside the whole: a refusal beside what helps does not hide it."""

from itertools import groupby

from ..prompt.paragraphs import BLANK_LINE
from ..prompt.undressed import NumTokens

#: Tokens of the shortest part that is read by itself.
MIN_TOKENS = 24


def answer_parts(answer: str, num_tokens: NumTokens) -> list[str]:
    """Its paragraphs, if there are several; shorter ones in a row are one, what is still short is none."""

    def is_short(text: str) -> bool:
        return num_tokens(text) < MIN_TOKENS

    paragraphs = [text for each in BLANK_LINE.split("\n".join(answer.splitlines())) if (text := each.strip())]
    parts: list[str] = []
    for are_short, run in groupby(paragraphs, key=is_short):
        together = list(run)
        parts += ["\n\n".join(together)] if are_short else together
    return [] if len(parts) < 2 else [part for part in parts if not is_short(part)]
