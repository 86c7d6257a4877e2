"""A draft that can't be silenced reasons first; mixing begins where its reasoning ends."""

from collections.abc import Sequence
from typing import NamedTuple

from ..config import Config
from ..lm.language_model import LanguageModel, Logits, SamplerSettings
from ..lm.sequences import PROMPT, REASONING
from ..prompt.text_stream import whole_characters


class Thought(NamedTuple):
    """Reasoning: its tokens, the end of the block included, its text, and whether the block was closed."""

    tokens: tuple[int, ...] = ()
    text: str = ""
    finished: bool = True


def think(draft: LanguageModel, config: Config, row: Logits, *, think_end: str, limit: int) -> Thought:
    """Let the draft alone reason after the prompt in sequence 0, whose row is given, for `limit` tokens.

    A draft that ends its turn without reasoning has not thought: what it said is dropped, since nothing
    guarded it, and mixing begins at the prompt.
    """
    sampler = draft.sampler(SamplerSettings.of(config, max(limit, 1)))
    end, tail = think_end.encode(), b""
    tokens: list[int] = []
    try:
        draft.fork(PROMPT, [REASONING])
        token = int(row.argmax())
        sampler.accept(token)
        while len(tokens) < limit:
            if token in draft.vocabulary.end_tokens:
                return Thought()
            tokens.append(token)
            tail += _spelling(draft, token)
            if end in tail:
                return Thought(tuple(tokens), spelt(draft, tokens).partition(think_end)[0], True)
            tail = tail[-len(end) :]  # what the end may begin in
            draft.extend({REASONING: [token]})
            token = sampler.sample(REASONING)
        return Thought(tuple(tokens), spelt(draft, tokens), False)
    finally:
        sampler.close()


def spelt(lm: LanguageModel, tokens: Sequence[int]) -> str:
    """Text in which control tokens are spelt out, as think tags may be; without an unfinished character."""
    return whole_characters(b"".join(_spelling(lm, token) for token in tokens))


def _spelling(lm: LanguageModel, token: int) -> bytes:
    return lm.vocabulary.piece(token) or lm.vocabulary.text(token).encode()
