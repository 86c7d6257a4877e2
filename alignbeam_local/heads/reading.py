"""What heads read while an answer is made: the request at the end of its prompt, answers at their ends."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ..errors import ContextFull
from ..lm.language_model import Hidden, LanguageModel, Logits
from ..lm.prompt_cache import PromptCache
from ..prompt.formats import fold_system
from ..prompt.message import Message
from .head import RequestHead
from .parts import parts


class Reading(NamedTuple):
    """The probability that a request asks for harm: of its worst part, and of the whole prompt."""

    worst: float
    whole: float


def read_request(
    cache: PromptCache,
    head: RequestHead,
    ids: Sequence[int],
    conversation: Sequence[Message],
    encode: Callable[[Sequence[Message]], list[int]],
) -> tuple[Logits, Reading | None]:
    """The anchor's logits after its prompt, and what the head reads there and in the request's parts.

    No reading where a state is no number, or the parts do not fit beside the prompt: then there is no head.

    Args:
        cache: what the anchor holds.
        ids: its prompt, the system prompt that it gets included.
        conversation: that ends with the request; its system turns are part of it.
        encode: a conversation as the anchor reads it, without a system prompt of ours.

    Raises:
        Cancelled, ContextFull, ModelError: as the model's `extend`, for the prompt itself.
    """
    row, state = cache.read(ids)
    beside = dict.fromkeys(tuple(encode(part)) for part in parts(fold_system(conversation)))
    beside.pop(tuple(ids), None)
    try:
        states = np.stack([state, *cache.read_beside(list(beside))])
    except ContextFull:
        return row, None
    found = head.probabilities(states)
    return row, None if found is None else Reading(float(found.max()), float(found[0]))


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
