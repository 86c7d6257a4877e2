"""Nudging: where the draft is unsure the anchor says the next word; it crosses vocabularies."""

from math import exp
from typing import Annotated, ClassVar, NamedTuple

from pydantic import Field

from ...config import Config
from ...engine.open_models import Model
from ...engine.stopwatch import Stopwatch
from ...errors import ContextFull
from ...lm.language_model import Logits
from ...lm.vocabulary import is_unfinished
from ...result import Result
from ...search.mixing import log_normaliser
from .decoding import Decoded, encoded, hold, max_new_tokens, result
from .model_methods import ModelMethod, Models
from .prompt import Prompt
from .row_sampler import RowSampler

#: A word of the anchor is at most so many of its tokens.
_LONGEST_WORD = 16


class Nudging(ModelMethod):
    """Where the draft's likeliest token has less than `gamma`, the anchor's next word is taken instead.

    Nudging (Fei et al. 2025, arXiv 2410.09300), section 3: the base model is unsure where its top-1
    probability is under a threshold, 0.4 there; the nudging model then adds the text up to the next space.
    """

    name: ClassVar[str] = "nudging"

    gamma: Annotated[float, Field(ge=0, le=1)] = 0.4

    def answer(self, models: Models, prompt: Prompt, config: Config) -> Result:
        watch = Stopwatch()
        draft, anchor = models["draft"], models["anchor"]
        own = encoded(draft, prompt, config, is_anchor=False)
        pair = _Pair(draft, anchor, own, encoded(anchor, prompt, config, is_anchor=True))
        return result(_decode(pair, config, self.gamma), models, config, len(own), watch)


class _Pair(NamedTuple):
    draft: Model
    anchor: Model
    draft_prompt: list[int]
    anchor_prompt: list[int]


def _decode(pair: _Pair, config: Config, gamma: float) -> Decoded:
    """Raises: ContextFull, Cancelled, ModelError: as `decode`."""
    both = (pair.draft, pair.anchor), (pair.draft_prompt, pair.anchor_prompt)
    limit = max_new_tokens(*both, config)
    hold(*both)
    sampler, answer = RowSampler(config), Decoded(pair.draft, config)
    goes_on = True
    while goes_on and len(answer.tokens) < limit:
        for token in _next(pair, sampler, answer, gamma)[: limit - len(answer.tokens)]:
            sampler.accept(token)
            goes_on = goes_on and answer.append(token)
        if goes_on and len(answer.tokens) < limit:
            pair.draft.lm.set_tokens({0: [*pair.draft_prompt, *answer.tokens]})
    return answer


def _next(pair: _Pair, sampler: RowSampler, answer: Decoded, gamma: float) -> list[int]:
    """The draft's token where it is sure or inside a character, else the anchor's word in draft tokens."""
    vocabulary, row = pair.draft.lm.vocabulary, pair.draft.lm.logits(0)
    said = vocabulary.pieces(answer.tokens)
    if is_unsure(row, gamma) and not is_unfinished(said):
        word = _word(pair, said)
        space = " " if word and not said and pair.draft.format.strips_leading_space else ""
        return vocabulary.encode(space + word) or sorted(vocabulary.end_tokens)[:1]
    return [sampler.sample(row)]


def is_unsure(row: Logits, gamma: float) -> bool:
    """Whether the likeliest token of a row has less than `gamma`."""
    return exp(float(row.max()) - log_normaliser(row)) < gamma


def _word(pair: _Pair, said: bytes) -> str:
    """The anchor's greedy text up to the next space after a word; empty where it ends the answer."""
    lm, text = pair.anchor.lm, said.decode("utf-8", "replace")
    if pair.draft.format.strips_leading_space:
        text = text.removeprefix(" ")
    ids = [*pair.anchor_prompt, *lm.vocabulary.encode(text)]
    if len(ids) + _LONGEST_WORD > lm.num_cells:
        raise ContextFull("the anchor cuts this answer into more tokens than fit", "Raise --context.")
    lm.set_tokens({0: ids})
    raw = b""
    for _ in range(_LONGEST_WORD):
        token = int(lm.logits(0).argmax())
        if token in lm.vocabulary.end_tokens:
            break
        piece = lm.vocabulary.piece(token)
        if raw.strip() and piece[:1].isspace():
            break
        raw += piece
        lm.extend({0: [token]})
    return raw.decode("utf-8", "ignore")
