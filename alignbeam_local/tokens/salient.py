"""Salient tokens of rejections: what a model's refusals are made of, for STR (arXiv 2604.17210, our reading).

Its paper preselects refusal tokens and names no rule; this one is ours: a token counts that stands in the
first sentence of at least two of the model's own rejections, or of two of the shipped templates.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ..lm.vocabulary import Vocabulary

#: The longest first sentence, in tokens, and in how many rejections a token must stand.
SENTENCE_TOKENS, LEAST = 16, 2
_TEMPLATES = Path(__file__).parent / "data" / "rejections.txt"
_SENTENCE_END = re.compile(rb"[.!?\n]")


class SalientToken(NamedTuple):
    """A token, and in how many rejections it stands, of both kinds together."""

    token: int
    times: int


def rejection_templates() -> list[str]:
    """The rejections that ship with the project."""
    return [line for line in _TEMPLATES.read_text(encoding="utf-8").splitlines() if line.strip()]


def salient_tokens(
    own: Sequence[Sequence[int]], templates: Sequence[Sequence[int]], vocabulary: Vocabulary, count: int
) -> list[SalientToken]:
    """At most `count` tokens that rejections share, those in most rejections first, then by first appearance.

    Args:
        own: the model's own rejections, as tokens; `templates` likewise. Either may be empty.
    """
    pools = [_counted(rejections, vocabulary) for rejections in (own, templates)]
    kept = {token for pool in pools for token, times in pool.items() if times >= LEAST}
    total: Counter[int] = sum(pools, start=Counter())
    ranked = [SalientToken(token, times) for token, times in total.most_common() if token in kept]
    return ranked[:count]


def _counted(rejections: Sequence[Sequence[int]], vocabulary: Vocabulary) -> Counter[int]:
    """In how many first sentences each token with a letter stands."""
    counts: Counter[int] = Counter()
    for tokens in rejections:
        counts.update(list(dict.fromkeys(first_sentence(tokens, vocabulary))))
    return Counter({token: times for token, times in counts.items() if _has_letter(vocabulary.piece(token))})


def first_sentence(tokens: Sequence[int], vocabulary: Vocabulary) -> Iterator[int]:
    """The tokens of the first sentence, the one that ends it included."""
    for token in tokens[:SENTENCE_TOKENS]:
        yield token
        if _SENTENCE_END.search(vocabulary.piece(token)):
            return


def _has_letter(piece: bytes) -> bool:
    return any(map(str.isalpha, piece.decode("utf-8", "ignore")))
