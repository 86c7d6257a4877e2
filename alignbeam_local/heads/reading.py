"""What heads read while an answer is made: the request at the end of its prompt, answers at their ends."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import ContextFull
from ..lm.language_model import Hidden, LanguageModel
from ..lm.prompt_cache import PromptCache
from ..prompt.formats import fold_system
from ..prompt.message import Message
from ..prompt.undressed import NumTokens
from .head import RequestHead
from .parts import parts


class Reading(NamedTuple):
    """The probability that a request asks for harm: of its worst part, and of the whole prompt.

    `is_partial`: parts did not fit beside the prompt, and may hold anything.
    """

    worst: float
    whole: float
    is_partial: bool = False


def read_request(
    cache: PromptCache,
    head: RequestHead,
    ids: Sequence[int],
    conversation: Sequence[Message],
    encode: Callable[[Sequence[Message]], list[int]],
    *,
    num_tokens: NumTokens,
) -> Reading | None:
    """What the head reads in a request and in its parts.

    None where a state is no number, or the prompt does not fit: then there is no head.

    Args:
        cache: what the model holds that the head was fitted on, opened to read.
        ids: the prompt, the system prompt that the anchor gets included.
        conversation: that ends with the request; its system turns are part of it.
        encode: a conversation as the model reads it, without a system prompt of ours.
        num_tokens: how many tokens it needs for a text.

    Raises:
        Cancelled, ModelError: as the model's `extend`.
    """
    try:
        whole = cache.read(ids)
    except ContextFull:
        return None
    found = parts(fold_system(conversation), num_tokens)
    beside = dict.fromkeys(tuple(encode(part)) for part in found)
    beside.pop(tuple(ids), None)
    states = _read_beside(cache, list(beside))
    read = reading_of_states(head, np.stack([whole, *states]))
    return read and read._replace(is_partial=len(states) < len(beside))


def _read_beside(cache: PromptCache, prompts: Sequence[Sequence[int]]) -> list[Hidden]:
    """Those that fit beside what the cache holds, each by itself where they do not together."""
    try:
        return cache.read_beside(prompts)
    except ContextFull:
        return [state for ids in prompts for state in _read_alone(cache, ids)]


def _read_alone(cache: PromptCache, ids: Sequence[int]) -> list[Hidden]:
    """Of none, if it does not fit."""
    try:
        return cache.read_beside([ids])
    except ContextFull:
        return []


def reading_of_states(head: RequestHead, states: npt.ArrayLike) -> Reading | None:
    """What a head reads in states (n, n_embd), the whole prompt's first; None where one is no number."""
    found = head.probabilities(states)
    return None if found is None else Reading(float(found.max()), float(found[0]))


def read_answers(
    lm: LanguageModel, answers: Mapping[int, Sequence[int]], end: Sequence[int]
) -> dict[int, Hidden]:
    """The hidden states at the ends of answers, all in one batch; the sequences then hold what they held.

    Args:
        lm: the model that gave them.
        answers: prompt and answer by sequence; each holds all of it, or all but the last token.
        end: what ends a turn.

    Raises:
        Cancelled, ContextFull, ModelError: as the model's `extend`.
    """
    held = {sequence: len(lm.tokens(sequence)) for sequence in answers}
    try:
        return lm.read({sequence: [*ids, *end] for sequence, ids in answers.items()})
    finally:
        for sequence, length in held.items():
            lm.truncate(sequence, length)
