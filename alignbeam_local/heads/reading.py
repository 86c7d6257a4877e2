"""A request read by a head while it is answered: the prompt as the anchor has it, then its parts."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ..errors import ContextFull
from ..lm.language_model import Logits
from ..lm.prompt_cache import PromptCache
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
        conversation: that ends with the request; system turns are not read in the parts.
        encode: a conversation as the anchor reads it, without a system prompt of ours.

    Raises:
        Cancelled, ContextFull, ModelError: as the model's `extend`, for the prompt itself.
    """
    row, state = cache.read(ids)
    turns = [turn for turn in conversation if turn.role != "system"]
    beside = dict.fromkeys(tuple(encode(part)) for part in parts(turns))
    beside.pop(tuple(ids), None)
    try:
        states = np.stack([state, *cache.read_beside(list(beside))])
    except ContextFull:
        return row, None
    found = head.probabilities(states)
    return row, None if found is None else Reading(float(found.max()), float(found[0]))
